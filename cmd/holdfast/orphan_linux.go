package main

import "syscall"

// dieWithParent makes the kernel kill a child when its parent dies, even of SIGKILL.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

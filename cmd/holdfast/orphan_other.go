//go:build !linux

package main

import "syscall"

// dieWithParent leaves it to the child to notice, by the end of its standard input,
// that its parent has died.
func dieWithParent() *syscall.SysProcAttr { return nil }

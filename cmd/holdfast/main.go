// Command holdfast shows what the library does: a small shop whose sessions live
// in a SQL database.
//
//	holdfast demo       the shop on this machine, several nodes, nothing to set up
//	holdfast serve      one node of the shop on a database of yours
//	holdfast migrate    makes or updates the tables in a database of yours
//	holdfast health     asks a node how it is, for a container's health check
//	holdfast version    which build this is
//
// It exits with 0 after an orderly end, also on Ctrl-C or SIGTERM, with 2 if the
// command line is wrong, and with 1 on any other error.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signalled(context.Background())
	err := newCommand().ExecuteContext(ctx)
	stop()
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "holdfast:", err)
	if _, ok := errors.AsType[usageError](err); ok {
		os.Exit(2)
	}
	os.Exit(1)
}

// signalled returns a context that ends with the first Ctrl-C or SIGTERM. The second
// one ends the process at once, as if nobody had listened. (With signal.NotifyContext
// it would be swallowed if it came before the listening has stopped.)
func signalled(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() { // as long as the process
		<-signals
		cancel()
		again := <-signals
		signal.Reset(again)
		if self, err := os.FindProcess(os.Getpid()); err != nil || self.Signal(again) != nil {
			os.Exit(1) // not on every system
		}
	}()
	return ctx, cancel
}

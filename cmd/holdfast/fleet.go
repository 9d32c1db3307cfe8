package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"github.com/holdfast-sessions/holdfast/internal/balancer"
	"github.com/holdfast-sessions/holdfast/internal/shop"
)

// A fleet is the demo's nodes, processes of this same program. It is the
// [shop.Cluster] that visitors command.
type fleet struct {
	program  string
	database string
	told     upbringing
	balancer *balancer.Balancer
	standby  balancer.Node // answers while no node does
	out      io.Writer     // for what nodes print, safe for concurrent use
	errs     io.Writer     // for what they log, safe for concurrent use
	running  sync.WaitGroup

	mu       sync.Mutex // guards what follows, and the members
	members  []*member
	ending   bool
	failures []error // of nodes that should have ended in good order
}

// A member is one node. It keeps its name and, if it can, its port from one process
// to the next.
type member struct {
	name     string
	address  string // host:port, "" until the first process has said it
	state    shop.NodeState
	detail   string
	asked    shop.NodeCommand // what ends its process, "" for nothing
	isolated bool
	process  *os.Process // nil while there is none
	stdin    io.Closer   // its end tells the process to end
	up       chan struct{}
	down     chan struct{} // closed when the process has started, has ended
}

func (f *fleet) add(names ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range names {
		m := &member{name: name}
		f.members = append(f.members, m)
		f.startLocked(m)
	}
	f.balanceLocked()
}

// awaitStart waits until every node has said its address or ctx ends, and fails if
// one ended instead. It returns the addresses.
func (f *fleet) awaitStart(ctx context.Context) (addresses []string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.members {
		up, down := m.up, m.down
		f.mu.Unlock()
		select {
		case <-up:
		case <-down:
		case <-ctx.Done():
		}
		f.mu.Lock()
		if m.state == shop.NodeStopped && ctx.Err() == nil {
			return nil, fmt.Errorf("%s stopped %s", m.name, m.detail)
		}
		addresses = append(addresses, m.address)
	}
	return addresses, nil
}

// Nodes implements [shop.Cluster].
func (f *fleet) Nodes(context.Context) (nodes []shop.ClusterNode, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.members {
		nodes = append(nodes, shop.ClusterNode{Name: m.name, State: m.state, Detail: m.detail})
	}
	return nodes, nil
}

// Command implements [shop.Cluster].
func (f *fleet) Command(_ context.Context, node string, command shop.NodeCommand) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.members {
		if m.name == node {
			return f.commandLocked(m, command)
		}
	}
	return shop.ErrNoSuchNode
}

func (f *fleet) commandLocked(m *member, command shop.NodeCommand) error {
	switch {
	case f.ending:
		return errors.New("the demo is about to end")
	case command == shop.StartNode && m.state == shop.NodeStopping:
		return fmt.Errorf("%s is still about to stop", m.name)
	case command == shop.StartNode:
		if m.state == shop.NodeStopped {
			f.startLocked(m)
		}
		return nil
	case m.state == shop.NodeStopped:
		return nil
	case command == shop.StopNode && m.asked != "":
		return nil // a second signal would not be in good order
	}
	m.state = shop.NodeStopping
	defer f.balanceLocked()
	switch command {
	case shop.IsolateNode:
		m.isolated = true
		return nil
	case shop.StopNode, shop.KillNode:
		m.asked = command
	default:
		return fmt.Errorf("unknown command %q", command)
	}
	if m.process == nil {
		return nil // it is only about to start, and will not
	}
	if command == shop.KillNode {
		return ignoreDone(m.process.Kill())
	}
	if err := m.process.Signal(syscall.SIGTERM); err != nil { // not on every system
		return ignoreDone(m.stdin.Close())
	}
	return nil
}

// ignoreDone passes over that a process, or its input, was at its end already.
func ignoreDone(err error) error {
	if errors.Is(err, os.ErrProcessDone) || errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// balanceLocked leads new connections to the nodes that run.
func (f *fleet) balanceLocked() {
	nodes := []balancer.Node{f.standby}
	for _, m := range f.members {
		if m.state == shop.NodeRunning && !m.isolated {
			nodes = append(nodes, balancer.Node{Name: m.name, Address: m.address})
		}
	}
	f.balancer.SetNodes(nodes)
}

func (f *fleet) startLocked(m *member) {
	m.state, m.detail, m.asked, m.isolated = shop.NodeStarting, "", "", false
	m.up, m.down = make(chan struct{}), make(chan struct{})
	f.running.Go(func() { f.run(m, m.address) })
}

// run sees a node through from its start to its end.
func (f *fleet) run(m *member, address string) {
	// On Linux a child is told of the death of the thread that began it, so that
	// thread has to stay.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := f.runProcess(m, cmp.Or(address, "127.0.0.1:0"))
	if address != "" && !m.isUp() {
		err = f.runProcess(m, "127.0.0.1:0") // its old port may be another's now
	}

	f.mu.Lock()
	defer f.mu.Unlock()
	m.state, m.process = shop.NodeStopped, nil
	defer close(m.down)
	defer f.balanceLocked()
	result := "it ended with exit status 0"
	if err != nil {
		result = err.Error()
	}
	switch {
	case m.asked == shop.KillNode:
		m.detail = "killed"
		return
	case err == nil && (f.ending || m.asked == shop.StopNode):
		m.detail = "in good order"
		return
	case f.ending:
		f.failures = append(f.failures, fmt.Errorf("%s: %w", m.name, err))
	}
	m.detail = "by itself: " + result
	if m.asked == shop.StopNode {
		m.detail = "not in good order: " + result
	}
	fmt.Fprintf(f.errs, "[%s] stopped %s\n", m.name, m.detail)
}

func (m *member) isUp() bool {
	select {
	case <-m.up:
		return true
	default:
		return false
	}
}

// runProcess runs a node's process to its end.
func (f *fleet) runProcess(m *member, address string) error {
	cmd := exec.Command(f.program, "serve", "--child", "--node", m.name, "--listen", address,
		"--database", f.database, "--drain", demoDrain.String())
	cmd.SysProcAttr = dieWithParent()
	cmd.Stderr = &prefixed{to: f.errs, prefix: "[" + m.name + "] "}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	f.mu.Lock()
	if f.ending || m.asked != "" {
		f.mu.Unlock()
		return nil
	}
	if err = cmd.Start(); err == nil {
		m.process, m.stdin = cmd.Process, stdin
	}
	f.mu.Unlock()
	if err != nil {
		return err
	}
	if err := json.NewEncoder(stdin).Encode(f.told); err != nil {
		// It has ended, and says itself why.
		_, _ = io.Copy(io.Discard, stdout)
		return cmp.Or(cmd.Wait(), err)
	}
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if said, ok := strings.CutPrefix(lines.Text(), m.name+" http://"); ok {
			f.report(m, said)
			continue
		}
		fmt.Fprintf(f.out, "[%s] %s\n", m.name, lines.Text())
	}
	return cmd.Wait()
}

// report notes that a node has begun to listen.
func (f *fleet) report(m *member, address string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m.address != "" && m.address != address {
		fmt.Fprintf(f.out, "%s http://%s\n", m.name, address)
	}
	m.address = address
	if m.state == shop.NodeStarting { // and was not told to stop meanwhile
		m.state = shop.NodeRunning
	}
	close(m.up)
	f.balanceLocked()
}

// shutdown ends all nodes in good order, or, when ctx ends, at once.
func (f *fleet) shutdown(ctx context.Context) error {
	f.each(func(m *member) { _ = ignoreDone(m.stdin.Close()) })
	ended := make(chan struct{})
	go func() {
		f.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
		f.each(func(m *member) { _ = ignoreDone(m.process.Kill()) })
		<-ended
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return errors.Join(f.failures...)
}

// each lets no more nodes start, and does something with each process.
func (f *fleet) each(do func(*member)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ending = true
	for _, m := range f.members {
		if m.process != nil {
			do(m)
		}
	}
}

// A shared writer is written to by several goroutines, each line by one.
type shared struct {
	mu sync.Mutex // guards to
	to io.Writer
}

// Write implements [io.Writer].
func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.to.Write(p)
}

// A prefixed writer says before each line whose it is.
type prefixed struct {
	to     io.Writer
	prefix string
	rest   []byte // a line that has no end yet
}

// Write implements [io.Writer].
func (p *prefixed) Write(b []byte) (int, error) {
	p.rest = append(p.rest, b...)
	for {
		line, rest, ok := bytes.Cut(p.rest, []byte("\n"))
		if !ok {
			return len(b), nil
		}
		if _, err := fmt.Fprintf(p.to, "%s%s\n", p.prefix, line); err != nil {
			return 0, err
		}
		p.rest = rest
	}
}

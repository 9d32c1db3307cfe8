package faults

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// startWait is how long a node may take until it answers: a node that was killed
// leaves its name behind, which its successor waits for.
const startWait = 2 * time.Minute

// A process is one run of a node's program.
type process struct {
	cmd    *exec.Cmd
	ended  chan struct{} // closed when it has ended and its output is read
	err    error         // how it ended; read after ended
	killed bool          // by kill, so that its end is no surprise
}

// A member is a node of the cluster: a name and an address that outlive its
// processes.
type member struct {
	name    string
	address string // host:port
	url     string
	network []*proxy // to each of the database's servers
	args    []string
	binary  string
	log     string // file that standard errors are appended to
	ended   func(node, line string)

	mu          sync.Mutex // guards what follows
	process     *process
	incarnation int  // counts processes
	down        bool // on purpose: it is killed, stopped or frozen
	killed      bool // some process was killed
}

// freeAddress returns an address on which nobody listens. A port that the system gives
// out may become somebody's end of a connection while the node that it was for is down;
// it gives out none below 32768.
func freeAddress() (string, error) {
	var err error
	for range 100 {
		var l net.Listener
		if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20000+rand.N(10000))); err == nil {
			defer l.Close()
			return l.Addr().String(), nil
		}
	}
	return "", err
}

// start starts a process and waits until it answers. offset sets its wall clock off.
func (m *member) start(ctx context.Context, offset time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	for {
		err := m.startOnce(ctx, offset)
		if err == nil || ctx.Err() != nil {
			return err
		}
		// The database may be away, or the name still be held by the process before.
		if pause(ctx, 200*time.Millisecond) != nil {
			return err
		}
	}
}

func (m *member) startOnce(ctx context.Context, offset time.Duration) error {
	log, err := os.OpenFile(m.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the process has its own handle
	cmd := exec.Command(m.binary, m.args...)
	cmd.Env = append(os.Environ(), clockOffset+"="+offset.String(), "GORACE=exitcode=66")
	cmd.Stderr = log
	// Not the terminal's group: Ctrl-C is for the harness.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", m.name, err)
	}
	p := &process{cmd: cmd, ended: make(chan struct{})}
	go m.follow(p, out)
	for {
		if healthy(ctx, m.url) {
			break
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended before it answered: %w; see %s", m.name, p.err, m.log)
		case <-ctx.Done():
			p.cmd.Process.Kill()
			<-p.ended
			return fmt.Errorf("%s does not answer: %w; see %s", m.name, ctx.Err(), m.log)
		case <-time.After(20 * time.Millisecond):
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.process, m.down = p, false
	m.incarnation++
	return nil
}

// follow reads what a process prints until it ends.
func (m *member) follow(p *process, out io.Reader) {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if line, ok := strings.CutPrefix(lines.Text(), "ended "); ok {
			m.ended(m.name, line)
		}
	}
	p.err = p.cmd.Wait()
	close(p.ended)
}

func healthy(ctx context.Context, url string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	c := newClient(false, nil)
	defer c.close()
	c.wait = time.Second
	return c.do(ctx, func() time.Duration { return 0 }, "GET", url+"/healthz", "", cookies{}).ok()
}

// now returns the process that runs, and which one it is.
func (m *member) now() (p *process, incarnation int, down bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.process, m.incarnation, m.down
}

func (m *member) setDown(down bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = down
}

// kill ends the process as a power cut would.
func (m *member) kill() {
	m.mu.Lock()
	p := m.process
	m.down, m.killed = true, true
	p.killed = true
	m.mu.Unlock()
	p.cmd.Process.Kill()
	<-p.ended
}

// terminate asks the process to end and returns an error if it does so in disorder.
func (m *member) terminate(ctx context.Context) error {
	p, _, _ := m.now()
	m.setDown(true)
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("terminate %s: %w", m.name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	select {
	case <-p.ended:
		if p.err != nil {
			return fmt.Errorf("terminate %s: %w; see %s", m.name, p.err, m.log)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("terminate %s: still running: %w", m.name, ctx.Err())
	}
}

// freeze stops the process where it is, until thaw.
func (m *member) freeze() error {
	p, _, _ := m.now()
	m.setDown(true)
	return p.cmd.Process.Signal(syscall.SIGSTOP)
}

func (m *member) thaw() error {
	p, _, _ := m.now()
	err := p.cmd.Process.Signal(syscall.SIGCONT)
	m.setDown(false)
	return err
}

// setNetwork changes what the node's network to the database does.
func (m *member) setNetwork(s netState) {
	for _, p := range m.network {
		p.set(s)
	}
}

// dump ends a process that hangs, and lets it write its goroutines to its log.
func (m *member) dump() {
	p, _, _ := m.now()
	if p.cmd.Process.Signal(syscall.SIGQUIT) == nil {
		<-p.ended
	}
}

// faultsInLog returns what the processes have written that none may write.
func (m *member) faultsInLog() ([]string, error) {
	text, err := os.ReadFile(m.log)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, mark := range []string{"WARNING: DATA RACE", "panic: ", "fatal error: ", "panicked"} {
		if i := strings.Index(string(text), mark); i >= 0 {
			found = append(found, fmt.Sprintf("%s: %s", filepath.Base(m.log), text[i:min(len(text), i+3000)]))
		}
	}
	return found, nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

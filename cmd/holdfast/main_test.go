package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/cookiejar"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-sessions/holdfast/internal/dbtest"
)

// beCommand makes the test binary be the command itself: the same code, with the
// race detector if the tests have it.
const beCommand = "HOLDFAST_TEST_BE_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(beCommand) == "1" {
		main()
		return // main exits by itself after an error
	}
	dbtest.Main(m)
}

// patience is how long a command may run, much longer than any should. One that
// hangs is made to say where.
const patience = 4 * time.Minute

func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Env = append(os.Environ(), beCommand+"=1", "GOTRACEBACK=all")
	cmd.Cancel = func() error {
		if t.Context().Err() != nil {
			return cmd.Process.Kill() // the test is over
		}
		return cmd.Process.Signal(syscall.SIGQUIT)
	}
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// runCommand runs a command to its end.
func runCommand(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := command(t, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatalf("holdfast %s: %v", strings.Join(args, " "), err)
	} else if ok {
		code = exit.ExitCode()
	}
	return out.String(), errs.String(), code
}

// A process is a command that serves until it is stopped.
type process struct {
	t       *testing.T
	cmd     *exec.Cmd
	url     string
	lines   *bufio.Scanner
	started string // what it printed up to its address
	stderr  bytes.Buffer
	stopped bool
}

var addressRE = regexp.MustCompile(`http://\S+`)

// start starts a command and waits until it has printed its address.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	return startCommand(t, command(t, args...))
}

func startCommand(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd}
	p.cmd.Stderr = &p.stderr
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !p.stopped {
			p.cmd.Process.Kill()
			p.cmd.Wait()
		}
		if t.Failed() {
			t.Logf("%v logged:\n%s", cmd.Args[1:], p.stderr.String())
		}
	})
	p.lines = bufio.NewScanner(stdout)
	for p.lines.Scan() {
		p.started += p.lines.Text() + "\n"
		if p.url = addressRE.FindString(p.lines.Text()); p.url != "" {
			return p
		}
	}
	p.cmd.Wait()
	t.Fatalf("%v ended without printing an address: %s%s", cmd.Args[1:], p.started, p.stderr.String())
	return nil
}

// stop ends the process with a signal, and fails the test unless that goes in
// good order. It returns what the process printed at last.
func (p *process) stop(signal os.Signal) string {
	p.t.Helper()
	p.signal(signal)
	rest, err := p.wait()
	if err != nil || p.stderr.Len() > 0 {
		p.t.Fatalf("ended with %v and printed %s%s", err, rest, p.stderr.String())
	}
	return rest
}

func (p *process) signal(signal os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil {
		p.t.Fatal(err)
	}
}

// wait waits for the process to end by itself, and returns what it printed since it
// started.
func (p *process) wait() (string, error) {
	var rest strings.Builder
	for p.lines.Scan() {
		rest.WriteString(p.lines.Text() + "\n")
	}
	err := p.cmd.Wait()
	p.stopped = true
	return rest.String(), err
}

// newClient returns a client with a cookie jar.
func newClient(t *testing.T) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Jar: jar, Transport: transport, Timeout: 30 * time.Second}
}

func fetch(t *testing.T, c *http.Client, method, url, body string) string {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%s %s: %d %v: %s", method, url, resp.StatusCode, err, answer)
	}
	return string(answer)
}

func wantContains(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("no %q in: %s", word, text)
		}
	}
}

func TestVersion(t *testing.T) {
	out, errs, code := runCommand(t, "version")
	if code != 0 || errs != "" || !strings.HasPrefix(out, "holdfast ") || !strings.Contains(out, " go1.") {
		t.Errorf("version: %d %q %q", code, out, errs)
	}
}

func TestHelp(t *testing.T) {
	out, _, code := runCommand(t)
	wantContains(t, out, "demo", "serve", "migrate", "health", "version")
	if code != 0 {
		t.Errorf("exit code %d", code)
	}
	out, _, code = runCommand(t, "serve", "--help")
	wantContains(t, out, "--listen", "--node", "--database", "--migrate", "sqlite:path", "postgres://", "mysql://")
	if code != 0 {
		t.Errorf("exit code %d", code)
	}
}

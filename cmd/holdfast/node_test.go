package main

import (
	"errors"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sqlbackend/sqlite"
)

// health asks a node how it is, and returns the status and what it says, and whether
// it wants the connection to be closed.
func health(t *testing.T, c *http.Client, p *process) (code int, says string, closes bool) {
	t.Helper()
	resp, err := c.Get(p.url + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body), resp.Close
}

// awaitDraining waits until the node says that it drains.
func awaitDraining(t *testing.T, c *http.Client, p *process) {
	t.Helper()
	for {
		if code, says, closes := health(t, c, p); code == http.StatusServiceUnavailable {
			wantContains(t, says, `"status":"draining"`, `"node":"n"`)
			if !closes { // the signal came in the midst of this request
				_, _, closes = health(t, c, p)
			}
			if !closes {
				t.Error("the node keeps the connection")
			}
			return
		}
		<-time.After(time.Millisecond)
	}
}

// A node that was told to stop says so, serves as before but attracts nobody, and ends.
func TestServeDrains(t *testing.T) {
	t.Parallel()
	node := start(t, "serve", "--node", "n", "--listen", "127.0.0.1:0", "--drain", "5s",
		"--database", "sqlite:"+filepath.Join(t.TempDir(), "x.db"))
	c := newClient(t)
	fetch(t, c, "POST", node.url+"/api/counters/n", "")
	if code, says, closes := health(t, c, node); code != http.StatusOK || closes || !strings.Contains(says, `"status":"ok"`) {
		t.Errorf("before: %d %s, closes: %t", code, says, closes)
	}
	if token := sessionCookie(t, c, node); !strings.HasSuffix(token, ".n") {
		t.Error("the token carries no route")
	}
	statements := statementsOf(t, c, node)
	health(t, c, node)
	if n := statementsOf(t, c, node); n != statements {
		t.Errorf("statements went from %s to %s", statements, n)
	}

	node.signal(syscall.SIGTERM)
	awaitDraining(t, c, node)
	wantContains(t, fetch(t, c, "POST", node.url+"/api/counters/n", ""), `{"value":2}`)
	if token := sessionCookie(t, c, node); strings.Contains(token, ".") {
		t.Error("the token still leads here")
	}
	rest, err := node.wait()
	wantContains(t, rest, "Stopped.")
	if err != nil || node.stderr.Len() > 0 {
		t.Errorf("ended with %v: %s", err, node.stderr.String())
	}
}

func sessionCookie(t *testing.T, c *http.Client, p *process) string {
	t.Helper()
	req, err := http.NewRequest("GET", p.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, cookie := range c.Jar.Cookies(req.URL) {
		if cookie.Name == "session" {
			return cookie.Value
		}
	}
	return ""
}

// statementsOf returns how many statements the node has run, as it writes it.
func statementsOf(t *testing.T, c *http.Client, p *process) string {
	t.Helper()
	_, rest, _ := strings.Cut(fetch(t, c, "GET", p.url+"/api/stats", ""), `"statements":`)
	n, _, _ := strings.Cut(rest, ",")
	return n
}

func TestServeSecondSignal(t *testing.T) {
	t.Parallel()
	node := start(t, "serve", "--node", "n", "--listen", "127.0.0.1:0", "--drain", "1h",
		"--database", "sqlite:"+filepath.Join(t.TempDir(), "x.db"))
	node.signal(syscall.SIGTERM)
	awaitDraining(t, newClient(t), node)
	node.signal(syscall.SIGTERM)
	_, err := node.wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		t.Errorf("ended with %v", err)
	}
}

func TestServeNodeNames(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x.db")
	args := []string{"serve", "--node", "n", "--listen", "127.0.0.1:0", "--drain", "0", "--database", "sqlite:" + path}
	first := start(t, args...)
	registry, err := sqlite.Open(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer registry.Close()
	holder := awaitNode(t, registry, uuid.Nil)

	// Its name is not for others while it lives.
	second := start(t, args...)
	c := newClient(t)
	wantContains(t, fetch(t, c, "POST", second.url+"/api/counters/n", ""), `{"value":1}`)
	_, err = second.wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 {
		t.Errorf("the second one ended with %v", err)
	}
	wantContains(t, second.stderr.String(), "holdfast: ", "node name is taken", "alive as n (", holder.Instance.String(), "name of its own")

	// Killed, it is replaced by a process that is started at once.
	first.signal(syscall.SIGKILL)
	if _, err := first.wait(); err == nil {
		t.Error("it survived")
	}
	again := start(t, args...)
	wantContains(t, fetch(t, c, "POST", again.url+"/api/counters/n", ""), `{"value":2}`)
	awaitNode(t, registry, holder.Instance)
	again.signal(syscall.SIGTERM)
	if rest, err := again.wait(); err != nil || !strings.Contains(rest, "Stopped.") || !strings.Contains(again.stderr.String(), "waiting to see") {
		t.Errorf("the heir ended with %v: %s%s", err, rest, again.stderr.String())
	}
	for n := range registry.Nodes(t.Context()) {
		t.Errorf("%v is left", n)
	}
}

// awaitNode waits until the node n is alive and not this instance.
func awaitNode(t *testing.T, registry sessionstore.NodeRegistry, not uuid.UUID) sessionstore.Node {
	t.Helper()
	for deadline := time.After(patience); ; {
		for n, err := range registry.Nodes(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			if n.Name == "n" && n.Alive() && n.Instance != not {
				return n
			}
		}
		select {
		case <-deadline:
			t.Fatal("the node does not come alive")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

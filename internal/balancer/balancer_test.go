package balancer_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/holdfast-sessions/holdfast/internal/balancer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A backend is an HTTP server that says its name and answers checks with a status.
type backend struct {
	balancer.Node
	server *httptest.Server
	health atomic.Int64
}

func newBackend(t *testing.T, name string) *backend {
	t.Helper()
	b := &backend{}
	b.health.Store(200)
	b.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" {
			w.WriteHeader(int(b.health.Load()))
			return
		}
		io.WriteString(w, name)
	}))
	t.Cleanup(b.server.Close)
	b.Node = balancer.Node{Name: name, Address: b.server.Listener.Addr().String()}
	return b
}

// A front is a balancer that serves.
type front struct {
	*balancer.Balancer
	t       *testing.T
	address string
	served  chan error
}

// newFront serves a balancer over nodes; checks come fast, and every one counts.
func newFront(t *testing.T, cfg balancer.Config, nodes ...balancer.Node) *front {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	if cfg.CheckPath != "" {
		cfg.CheckInterval = 5 * time.Millisecond
	}
	b, err := balancer.New(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	b.SetNodes(nodes)
	l := listen(t)
	f := &front{Balancer: b, t: t, address: l.Addr().String(), served: make(chan error, 1)}
	go func() { f.served <- b.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		b.Shutdown(ended)
		if err := <-f.served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return f
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// who returns which node answers on a new connection, or the error.
func (f *front) who() string {
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
	resp, err := c.Get("http://" + f.address + "/")
	if err != nil {
		return "error"
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "error"
	}
	return string(body)
}

func (f *front) state(name string) balancer.State {
	for _, n := range f.Nodes() {
		if n.Name == name {
			return n.State
		}
	}
	return ""
}

// await waits until something has come about.
func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for !condition() {
		select {
		case <-time.After(time.Millisecond):
		case <-deadline:
			t.Fatalf("in vain waited until %s", what)
		}
	}
}

func (f *front) awaitState(name string, state balancer.State) {
	f.t.Helper()
	await(f.t, name+" is "+string(state), func() bool { return f.state(name) == state })
}

// dial opens a connection, and fails the test if it is never answered.
func (f *front) dial() *net.TCPConn {
	f.t.Helper()
	conn, err := net.Dial("tcp", f.address)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	return conn.(*net.TCPConn)
}

// newEcho returns a node that gives each connection to serve.
func newEcho(t *testing.T, name string, serve func(*net.TCPConn)) balancer.Node {
	t.Helper()
	l := listen(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.SetDeadline(time.Now().Add(30 * time.Second))
			wg.Go(func() {
				defer conn.Close()
				serve(conn.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return balancer.Node{Name: name, Address: l.Addr().String()}
}

func echo(c *net.TCPConn) { io.Copy(c, c) }

func TestRoundRobin(t *testing.T) {
	a, b, c := newBackend(t, "a"), newBackend(t, "b"), newBackend(t, "c")
	var mu sync.Mutex
	var took []string
	f := newFront(t, balancer.Config{Connected: func(n balancer.Node, client net.Addr) {
		mu.Lock()
		defer mu.Unlock()
		if client.(*net.TCPAddr).Port == 0 {
			t.Error("the hook was told no address")
		}
		took = append(took, n.Name)
	}}, a.Node, b.Node, c.Node)
	var answered []string
	for range 9 {
		answered = append(answered, f.who())
	}
	for i, name := range answered {
		if name != answered[i%3] || i > 0 && name == answered[i-1] {
			t.Fatalf("not in turn: %v", answered)
		}
	}
	if !slices.Equal(took, answered) {
		t.Errorf("the hook was told %v, but %v answered", took, answered)
	}
	await(t, "no connection is open", func() bool {
		for _, n := range f.Nodes() {
			if n.Taken != 3 || n.State != balancer.Healthy {
				t.Fatalf("node %+v, want 3 connections taken", n)
			}
			if n.Open != 0 {
				return false
			}
		}
		return true
	})
}

// Whoever is refused by one node gets another, also before any check has noticed.
func TestDialFailureTriesTheNext(t *testing.T) {
	a, b, c := newBackend(t, "a"), newBackend(t, "b"), newBackend(t, "c")
	f := newFront(t, balancer.Config{}, a.Node, b.Node, c.Node)
	a.server.Close()
	c.server.Close()
	for range 6 {
		if name := f.who(); name != "b" {
			t.Fatalf("answered by %s", name)
		}
	}
	b.server.Close()
	if name := f.who(); name != "error" {
		t.Errorf("answered by %s", name)
	}
}

// A node that answers checks with 503 gets no new connections, and keeps its old ones.
func TestDraining(t *testing.T) {
	a, b := newBackend(t, "a"), newBackend(t, "b")
	f := newFront(t, balancer.Config{CheckPath: "/healthz"}, a.Node)
	keep := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(keep.CloseIdleConnections)
	ask := func() string {
		resp, err := keep.Get("http://" + f.address)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return string(body)
	}
	ask()
	f.SetNodes([]balancer.Node{a.Node, b.Node})
	a.health.Store(503)
	f.awaitState("a", balancer.Draining)
	for range 4 {
		if name := f.who(); name != "b" {
			t.Fatalf("a new connection went to %s", name)
		}
		if name := ask(); name != "a" {
			t.Fatalf("the old connection is answered by %s", name)
		}
	}
	// If there is nobody else, it is better than a refusal.
	b.health.Store(503)
	f.awaitState("b", balancer.Draining)
	if name := f.who(); name == "error" {
		t.Error("nobody answers")
	}
	a.health.Store(204)
	f.awaitState("a", balancer.Healthy)
	for range 4 {
		if name := f.who(); name != "a" {
			t.Fatalf("a new connection went to %s", name)
		}
	}
}

func TestDownAndUpAgain(t *testing.T) {
	a, b := newBackend(t, "a"), newBackend(t, "b")
	f := newFront(t, balancer.Config{CheckPath: "/healthz", Fall: 3, Rise: 2}, a.Node, b.Node)
	a.health.Store(500)
	f.awaitState("a", balancer.Down)
	for range 4 {
		if name := f.who(); name != "b" {
			t.Fatalf("a new connection went to %s", name)
		}
	}
	a.health.Store(302)
	f.awaitState("a", balancer.Healthy)
	b.server.Close()
	f.awaitState("b", balancer.Down)
}

// A node that accepts and then says nothing, as a suspended process does, is down
// soon, and delays nobody else's check.
func TestSilentNode(t *testing.T) {
	silent := newEcho(t, "silent", func(c *net.TCPConn) { io.Copy(io.Discard, c) })
	a := newBackend(t, "a")
	f := newFront(t, balancer.Config{CheckPath: "/healthz", CheckTimeout: 500 * time.Millisecond}, silent, a.Node)
	a.health.Store(503)
	f.awaitState("a", balancer.Draining)
	a.health.Store(200)
	f.awaitState("silent", balancer.Down)
	f.awaitState("a", balancer.Healthy)
	if name := f.who(); name != "a" {
		t.Errorf("answered by %s", name)
	}
}

func TestBackup(t *testing.T) {
	a, spare := newBackend(t, "a"), newBackend(t, "spare")
	spare.Backup = true
	f := newFront(t, balancer.Config{CheckPath: "/healthz"}, spare.Node, a.Node)
	for range 3 {
		if name := f.who(); name != "a" {
			t.Fatalf("answered by %s", name)
		}
	}
	a.server.Close()
	for range 3 {
		if name := f.who(); name != "spare" {
			t.Fatalf("answered by %s", name)
		}
	}
}

// A node that is taken away finishes what it has.
func TestSetNodes(t *testing.T) {
	e := newEcho(t, "e", echo)
	a := newBackend(t, "a")
	f := newFront(t, balancer.Config{}, e)
	c := f.dial()
	say(t, c, "one")
	f.SetNodes([]balancer.Node{a.Node})
	say(t, c, "two")
	if name := f.who(); name != "a" {
		t.Errorf("answered by %s", name)
	}
	f.SetNodes([]balancer.Node{a.Node, e})
	if got := f.Nodes(); len(got) != 2 || got[0].Taken != 1 || got[1].Taken != 0 {
		t.Errorf("counts after a change: %+v", got)
	}
	f.SetNodes(nil)
	if name := f.who(); name != "error" {
		t.Errorf("answered by %s, though there are no nodes", name)
	}
	say(t, c, "three")
}

// say sends words to an echo and waits for them.
func say(t *testing.T, c net.Conn, words string) {
	t.Helper()
	if _, err := io.WriteString(c, words); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(words))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != words {
		t.Fatalf("sent %q, got %q: %v", words, got, err)
	}
}

// The end of one direction leaves the other alone.
func TestHalfClose(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	t.Run("client first", func(t *testing.T) {
		f := newFront(t, balancer.Config{}, newEcho(t, "e", func(c *net.TCPConn) {
			all, _ := io.ReadAll(c) // until the client has said that this was all
			c.Write(all)
		}))
		c := f.dial()
		go func() {
			c.Write(big)
			c.CloseWrite()
		}()
		if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, big) {
			t.Errorf("got %d bytes of %d back: %v", len(got), len(big), err)
		}
	})
	t.Run("node first", func(t *testing.T) {
		heard := make(chan string, 1)
		f := newFront(t, balancer.Config{}, newEcho(t, "e", func(c *net.TCPConn) {
			c.CloseWrite()
			all, _ := io.ReadAll(c)
			heard <- string(all)
		}))
		c := f.dial()
		if _, err := io.ReadAll(c); err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, "still here")
		c.CloseWrite()
		if got := <-heard; got != "still here" {
			t.Errorf("the node heard %q", got)
		}
	})
}

// A broken connection does not look like an orderly end, on either side.
func TestResetIsPassedOn(t *testing.T) {
	heard := make(chan error, 1)
	f := newFront(t, balancer.Config{}, newEcho(t, "e", func(c *net.TCPConn) {
		io.WriteString(c, "half of ")
		first := make([]byte, 1)
		if _, err := io.ReadFull(c, first); err != nil || first[0] == 'n' {
			c.SetLinger(0)
			return
		}
		_, err := io.ReadAll(c)
		heard <- err
	}))
	c := f.dial()
	io.WriteString(c, "n")
	if got, err := io.ReadAll(c); err == nil {
		t.Errorf("the node broke off, the client read %q and an end", got)
	}
	c = f.dial()
	io.WriteString(c, "c")
	io.ReadFull(c, make([]byte, 8))
	c.SetLinger(0)
	c.Close()
	if err := <-heard; err == nil {
		t.Error("the client broke off, the node read an end")
	}
}

func TestIdleConnectionsAreClosed(t *testing.T) {
	f := newFront(t, balancer.Config{IdleTimeout: 50 * time.Millisecond}, newEcho(t, "e", echo))
	c := f.dial()
	if got, err := io.ReadAll(c); err != nil || len(got) > 0 {
		t.Errorf("read %q: %v", got, err)
	}
	await(t, "the connection is gone", func() bool { return f.Nodes()[0].Open == 0 })
}

func TestShutdownWaits(t *testing.T) {
	f := newFront(t, balancer.Config{}, newEcho(t, "e", echo))
	c := f.dial()
	say(t, c, "before")
	down := make(chan error, 1)
	go func() { down <- f.Shutdown(context.Background()) }()
	await(t, "the listener is closed", func() bool {
		conn, err := net.Dial("tcp", f.address)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	say(t, c, "after")
	c.Close()
	if err := <-down; err != nil {
		t.Errorf("shut down: %v", err)
	}
	if err := f.Shutdown(context.Background()); err != nil {
		t.Errorf("again: %v", err)
	}
	if err := f.Serve(context.Background(), listen(t)); !errors.Is(err, balancer.ErrServing) {
		t.Errorf("served again: %v", err)
	}
}

func TestShutdownCutsWhatIsLeft(t *testing.T) {
	f := newFront(t, balancer.Config{}, newEcho(t, "e", echo))
	c := f.dial()
	say(t, c, "before")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := f.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("shut down: %v", err)
	}
	if _, err := io.ReadAll(c); err == nil {
		t.Error("the connection ended in good order")
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	b, err := balancer.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	b.SetNodes([]balancer.Node{newEcho(t, "e", echo)})
	ctx, cancel := context.WithCancel(context.Background())
	l := listen(t)
	served := make(chan error, 1)
	go func() { served <- b.Serve(ctx, l) }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	say(t, c, "before")
	cancel()
	if err := <-served; err != nil {
		t.Errorf("serve: %v", err)
	}
}

func TestShutdownBeforeServe(t *testing.T) {
	b, err := balancer.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if err := b.Serve(context.Background(), listen(t)); err != nil {
		t.Error(err)
	}
}

// An acceptFailure is a listener whose first calls fail, as without file descriptors.
type acceptFailure struct {
	net.Listener
	failures atomic.Int64
}

func (l *acceptFailure) Accept() (net.Conn, error) {
	if l.failures.Add(-1) >= 0 {
		return nil, errors.New("too many open files")
	}
	return l.Listener.Accept()
}

func TestAcceptGoesOnAfterErrors(t *testing.T) {
	var log bytes.Buffer
	b, err := balancer.New(&balancer.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	b.SetNodes([]balancer.Node{newEcho(t, "e", echo)})
	l := &acceptFailure{Listener: listen(t)}
	l.failures.Store(2)
	served := make(chan error, 1)
	go func() { served <- b.Serve(context.Background(), l) }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	say(t, c, "at last")
	c.Close()
	if err := b.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	<-served
	if n := strings.Count(log.String(), "too many open files"); n != 2 {
		t.Errorf("logged %d times: %s", n, &log)
	}
}

func TestStartStop(t *testing.T) {
	a := newBackend(t, "a")
	for range 10 {
		b, err := balancer.New(&balancer.Config{CheckPath: "/healthz", CheckInterval: time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		l := listen(t)
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := b.Serve(context.Background(), l); err != nil {
				t.Error(err)
			}
		})
		for i := range 50 {
			wg.Go(func() {
				switch i % 5 {
				case 0:
					b.Shutdown(context.Background())
				case 1:
					b.Nodes()
				case 2:
					b.SetNodes([]balancer.Node{a.Node})
				default:
					if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
						c.Close()
					}
				}
			})
		}
		wg.Wait()
		if err := b.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

func TestBadConfig(t *testing.T) {
	for _, cfg := range []balancer.Config{
		{CheckInterval: -1}, {CheckTimeout: -1}, {DialTimeout: -1}, {IdleTimeout: -1}, {Fall: -1}, {Rise: -1}, {CheckPath: "healthz"},
	} {
		if _, err := balancer.New(&cfg); err == nil {
			t.Errorf("%+v is taken", cfg)
		}
	}
}

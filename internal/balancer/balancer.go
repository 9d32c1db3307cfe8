// Package balancer spreads TCP connections over nodes in turn, knowing nothing of
// what they carry. It is what stands in front of the demo's nodes and of the fault
// tests'.
//
//	b, err := balancer.New(&balancer.Config{CheckPath: "/healthz"})
//	b.SetNodes([]balancer.Node{{Name: "node1", Address: "127.0.0.1:8081"}})
//	err = b.Serve(ctx, listener)
//
// A connection goes to the next healthy node; if that cannot be dialled, to the one
// after it. A node is in one of three states:
//
//	            check fails Fall times, or dialling fails
//	  Healthy --------------------------------------------> Down
//	   |    ^                                                |
//	503|    '------------ check succeeds Rise times ---------'
//	   v                       (also from Draining)
//	Draining   keeps its connections, gets new ones only if no other node takes them
package balancer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Config configures a [Balancer]. The zero Config, or nil, is the default.
type Config struct {
	// CheckPath is what is asked of every node by HTTP GET. A status below 400
	// means that the node is healthy, 503 that it is draining, anything else or no
	// answer that the check failed. Defaults to "": no checks, every node is tried
	// in turn.
	CheckPath string

	// CheckInterval is the time between two checks of a node. Defaults to 500 ms.
	CheckInterval time.Duration

	// CheckTimeout is how long a node may take to answer a check. Defaults to 2 s.
	CheckTimeout time.Duration

	// Fall is how many checks in a row must fail before a node counts as down.
	// Defaults to 2.
	Fall int

	// Rise is how many checks in a row must succeed before a node that was down or
	// draining counts as healthy. Defaults to 1.
	Rise int

	// DialTimeout is how long a node may take to accept a connection before the
	// next one is tried. Defaults to 2 s.
	DialTimeout time.Duration

	// IdleTimeout closes a connection after this long without a byte in either
	// direction. It should be longer than any response takes to begin. Defaults to
	// 10 minutes.
	IdleTimeout time.Duration

	// Connected is told of each connection, before its first byte is forwarded:
	// the node that took it, and the client's address. It is called from many
	// goroutines. Defaults to nothing.
	Connected func(node Node, client net.Addr)

	// Logger hears of nodes that change their state, and of connections that no
	// node took. Defaults to [slog.Default].
	Logger *slog.Logger
}

// resolved returns a copy of cfg with every default in place.
func (cfg *Config) resolved() (Config, error) {
	var c Config
	if cfg != nil {
		c = *cfg
	}
	c.CheckInterval = cmp.Or(c.CheckInterval, 500*time.Millisecond)
	c.CheckTimeout = cmp.Or(c.CheckTimeout, 2*time.Second)
	c.Fall = cmp.Or(c.Fall, 2)
	c.Rise = cmp.Or(c.Rise, 1)
	c.DialTimeout = cmp.Or(c.DialTimeout, 2*time.Second)
	c.IdleTimeout = cmp.Or(c.IdleTimeout, 10*time.Minute)
	c.Logger = cmp.Or(c.Logger, slog.Default())
	return c, c.validate()
}

func (cfg *Config) validate() error {
	switch {
	case cfg.CheckPath != "" && !strings.HasPrefix(cfg.CheckPath, "/"):
		return fmt.Errorf(`balancer: CheckPath is %q, want one that begins with "/"`, cfg.CheckPath)
	case cfg.CheckInterval < 0:
		return fmt.Errorf("balancer: CheckInterval is %v, want a positive duration", cfg.CheckInterval)
	case cfg.CheckTimeout < 0:
		return fmt.Errorf("balancer: CheckTimeout is %v, want a positive duration", cfg.CheckTimeout)
	case cfg.Fall < 0:
		return fmt.Errorf("balancer: Fall is %d, want at least 1", cfg.Fall)
	case cfg.Rise < 0:
		return fmt.Errorf("balancer: Rise is %d, want at least 1", cfg.Rise)
	case cfg.DialTimeout < 0:
		return fmt.Errorf("balancer: DialTimeout is %v, want a positive duration", cfg.DialTimeout)
	case cfg.IdleTimeout < 0:
		return fmt.Errorf("balancer: IdleTimeout is %v, want a positive duration", cfg.IdleTimeout)
	}
	return nil
}

// ErrServing is returned by [Balancer.Serve] when it is called a second time.
var ErrServing = errors.New("balancer: Serve was called before")

// A Balancer forwards connections. Its methods are safe for concurrent use.
type Balancer struct {
	cfg    Config
	client *http.Client // asks the nodes for their health
	wg     sync.WaitGroup
	poke   chan struct{} // there are nodes that were never checked
	done   chan struct{} // closed when Serve has returned

	mu       sync.Mutex // guards what follows
	nodes    []*node
	turn     int
	listener net.Listener // nil before Serve
	tunnels  map[*tunnel]bool
	closed   bool // takes no more connections
	severed  bool // cuts those it has
}

// New returns a balancer without nodes. It starts nothing. A nil cfg means the
// defaults; cfg is copied.
func New(cfg *Config) (*Balancer, error) {
	c, err := cfg.resolved()
	if err != nil {
		return nil, err
	}
	return &Balancer{
		cfg: c,
		// Each check is a connection of its own, as its clients' are; a redirect is
		// an answer.
		client: &http.Client{
			Transport:     &http.Transport{DisableKeepAlives: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Timeout:       c.CheckTimeout,
		},
		poke:    make(chan struct{}, 1),
		done:    make(chan struct{}),
		tunnels: make(map[*tunnel]bool),
	}, nil
}

// Serve forwards the listener's connections, and checks the nodes, until ctx ends
// or [Balancer.Shutdown] is called. It closes the listener and returns nil once all
// connections have ended; those that are left when ctx ends are cut.
func (b *Balancer) Serve(ctx context.Context, listener net.Listener) error {
	defer listener.Close()
	b.mu.Lock()
	if b.listener != nil {
		b.mu.Unlock()
		return ErrServing
	}
	b.listener = listener
	closed := b.closed
	b.mu.Unlock()
	defer close(b.done)
	if closed {
		return nil
	}

	stop := context.AfterFunc(ctx, b.sever)
	defer stop()
	checking, cancel := context.WithCancel(ctx)
	if b.cfg.CheckPath != "" {
		b.wg.Go(func() { b.check(checking) })
	}
	b.accept(ctx, listener)
	cancel()
	b.wg.Wait()
	return nil
}

// Shutdown closes the listener and waits until all connections have ended, at most
// until ctx ends: then it cuts them and returns ctx's error. It may be called at
// any time, and more than once.
func (b *Balancer) Shutdown(ctx context.Context) error {
	b.mu.Lock()
	b.closed = true
	listener := b.listener
	b.mu.Unlock()
	if listener == nil {
		return nil
	}
	listener.Close()
	select {
	case <-b.done:
		return nil
	case <-ctx.Done():
		b.sever()
		<-b.done
		return ctx.Err()
	}
}

// sever stops taking connections and cuts those that there are.
func (b *Balancer) sever() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed, b.severed = true, true
	b.listener.Close()
	for t := range b.tunnels {
		t.cut()
	}
}

// accept hands out connections until the listener is closed.
func (b *Balancer) accept(ctx context.Context, listener net.Listener) {
	const longestPause = time.Second
	pause := time.Duration(0)
	for {
		conn, err := listener.Accept()
		switch {
		case err == nil:
			pause = 0
			b.wg.Go(func() { b.connect(ctx, conn) })
			continue
		case errors.Is(err, net.ErrClosed):
			return
		}
		// Out of file descriptors, most likely: let connections end.
		b.cfg.Logger.LogAttrs(ctx, slog.LevelError, "cannot accept a connection", slog.Any("error", err))
		pause = min(longestPause, max(2*pause, 5*time.Millisecond))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// connect forwards one client's connection to the first node that takes it.
func (b *Balancer) connect(ctx context.Context, client net.Conn) {
	dialer := net.Dialer{Timeout: b.cfg.DialTimeout}
	for _, n := range b.candidates() {
		conn, err := dialer.DialContext(ctx, "tcp", n.Address)
		if err != nil {
			b.dialFailed(ctx, n, err)
			continue
		}
		b.forward(n, client, conn)
		return
	}
	b.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "no node takes a connection")
	client.Close()
}

// candidates returns the nodes in the order in which a new connection tries them:
// the healthy ones by turns, then, because a refusal would be no better, those
// that are draining or seem to be down, and last the backups.
func (b *Balancer) candidates() []*node {
	b.mu.Lock()
	defer b.mu.Unlock()
	var healthy []*node
	for _, n := range b.nodes {
		if n.rank() == 0 {
			healthy = append(healthy, n)
		}
	}
	others := slices.DeleteFunc(slices.Clone(b.nodes), func(n *node) bool { return n.rank() == 0 })
	slices.SortStableFunc(others, func(a, c *node) int { return cmp.Compare(a.rank(), c.rank()) })
	if len(healthy) > 0 {
		b.turn = (b.turn + 1) % len(healthy)
		healthy = slices.Concat(healthy[b.turn:], healthy[:b.turn])
	}
	return append(healthy, others...)
}

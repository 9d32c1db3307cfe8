package balancer

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"time"
)

// A Node is where connections go.
type Node struct {
	Name    string // for people and hooks
	Address string // host:port

	// Backup marks a node of last resort: it gets a connection only if no other
	// node takes it. Backups are not checked.
	Backup bool
}

// A State says what a node gets.
type State string

// The states of a node. A new one counts as healthy until a check or a connection
// shows otherwise.
const (
	Healthy  State = "healthy"
	Draining State = "draining"
	Down     State = "down"
)

// A Status is a node with what is known about it.
type Status struct {
	Node
	State State
	Taken int64 // connections since it was added
	Open  int   // connections at this moment
}

// A node is a Node with its state, guarded by the balancer's lock.
type node struct {
	Node
	state     State
	checking  bool
	failures  int // of its checks, in a row
	successes int
	taken     int64
	open      int
}

// rank orders nodes for a new connection.
func (n *node) rank() int {
	switch {
	case n.Backup:
		return 3
	case n.state == Down:
		return 2
	case n.state == Draining:
		return 1
	}
	return 0
}

// SetNodes replaces the nodes. One that was there before, by name, address and
// kind, keeps its state and its counts; connections of one that is gone go on.
func (b *Balancer) SetNodes(nodes []Node) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.nodes
	b.nodes = nil
	for _, wanted := range nodes {
		i := slices.IndexFunc(old, func(n *node) bool { return n.Node == wanted })
		if i >= 0 {
			b.nodes = append(b.nodes, old[i])
			continue
		}
		b.nodes = append(b.nodes, &node{Node: wanted, state: Healthy})
	}
	select {
	case b.poke <- struct{}{}:
	default: // the checks begin soon anyway
	}
}

// Nodes returns the nodes as they are now, in the order of [Balancer.SetNodes].
func (b *Balancer) Nodes() []Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []Status
	for _, n := range b.nodes {
		all = append(all, Status{Node: n.Node, State: n.state, Taken: n.taken, Open: n.open})
	}
	return all
}

// check asks every node for its health at each interval, until ctx ends. A node
// that does not answer delays no other's check.
func (b *Balancer) check(ctx context.Context) {
	tick := time.NewTicker(b.cfg.CheckInterval)
	defer tick.Stop()
	for {
		b.mu.Lock()
		for _, n := range b.nodes {
			if !n.Backup && !n.checking {
				n.checking = true
				b.wg.Go(func() { b.checkNode(ctx, n) })
			}
		}
		b.mu.Unlock()
		select {
		case <-tick.C:
		case <-b.poke:
		case <-ctx.Done():
			return
		}
	}
}

func (b *Balancer) checkNode(ctx context.Context, n *node) {
	status, err := b.ask(ctx, n.Address)
	b.mu.Lock()
	defer b.mu.Unlock()
	n.checking = false
	switch {
	case ctx.Err() != nil:
	case err != nil:
		n.successes = 0
		if n.failures++; n.failures >= b.cfg.Fall {
			b.changeLocked(ctx, n, Down, err)
		}
	case status == http.StatusServiceUnavailable:
		n.successes, n.failures = 0, 0
		b.changeLocked(ctx, n, Draining, nil)
	default:
		n.failures = 0
		if n.successes++; n.successes >= b.cfg.Rise {
			b.changeLocked(ctx, n, Healthy, nil)
		}
	}
}

// ask returns the status of a health check that is answered as it should be.
func (b *Balancer) ask(ctx context.Context, address string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+b.cfg.CheckPath, nil)
	if err != nil {
		return 0, err
	}
	resp, err := b.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)); err != nil {
		return 0, err
	}
	if resp.StatusCode >= 400 && resp.StatusCode != http.StatusServiceUnavailable {
		return 0, fmt.Errorf("status %d", resp.StatusCode)
	}
	return resp.StatusCode, nil
}

// dialFailed keeps the next connections away from a node, if there are checks that
// bring it back.
func (b *Balancer) dialFailed(ctx context.Context, n *node, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cfg.CheckPath == "" || n.Backup || ctx.Err() != nil {
		return
	}
	n.successes = 0
	b.changeLocked(ctx, n, Down, err)
}

func (b *Balancer) changeLocked(ctx context.Context, n *node, state State, cause error) {
	if n.state == state {
		return
	}
	n.state = state
	attrs := []slog.Attr{slog.String("node", n.Name), slog.String("address", n.Address), slog.String("state", string(state))}
	if cause != nil {
		attrs = append(attrs, slog.Any("error", cause))
	}
	b.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "node changed", attrs...)
}

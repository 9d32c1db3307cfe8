package idmanager

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// A registration keeps this process registered under its name.
//
//	          name is free                  name is taken
//	start ------------------> registered ------------------+
//	  |                           ^                        v   holder is seen again
//	  +---------------------------|------------------> watching -----------------> Run ends
//	       name is taken          +------------------------+
//	                                holder's TTL runs out,
//	                                or it unregisters
//
// A registered process finds its name taken only if it was not heard of for longer
// than its TTL: it was stopped, or cut off from the database.
type registration struct {
	registry sessionstore.NodeRegistry
	cfg      *Config
	self     sessionstore.Node
	draining *atomic.Bool
	changed  chan struct{} // wakes run, to say that draining changed
	tried    atomic.Bool   // something of this process may be stored

	others others
}

// others are the nodes that the registry knows, and those that were asked about.
type others struct {
	mu      sync.Mutex           // guards what follows
	serving map[string]bool      // by name, whether it did when it was looked last
	met     map[string]time.Time // by name, when it served last, or somebody asked about it
}

const (
	// goneFor is how long a name is remembered that is in the registry no more.
	goneFor = time.Hour
	// maxMet bounds the names that are remembered because somebody asked: clients may make
	// up as many as they like. What is not remembered counts as a node that serves.
	maxMet = 1024
)

// serves reports whether a node serves. One that nobody knows may have begun a moment ago,
// and counts as one that does until the next look.
func (o *others) serves(name string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	serves, known := o.serving[name]
	if _, met := o.met[name]; !serves && (met || len(o.met) < maxMet) {
		o.met[name] = time.Now()
	}
	return serves || !known
}

// metOfLate returns the names that a look which begins now is to find, or they are gone.
func (o *others) metOfLate() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	for name, serves := range o.serving {
		if serves {
			o.met[name] = time.Now()
		}
	}
	maps.DeleteFunc(o.met, func(_ string, at time.Time) bool { return time.Since(at) > goneFor })
	return slices.Collect(maps.Keys(o.met))
}

func (o *others) set(serving map[string]bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.serving = serving
}

func newRegistration(registry sessionstore.NodeRegistry, cfg *Config, draining *atomic.Bool) *registration {
	instance := uuid.New()
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return &registration{
		registry: registry, cfg: cfg, draining: draining, changed: make(chan struct{}, 1),
		others: others{met: make(map[string]time.Time)},
		self: sessionstore.Node{
			Name: cmp.Or(cfg.Node, instance.String()), Instance: instance,
			Host: strings.ToValidUTF8(host[:min(len(host), sessionstore.MaxNameBytes)], ""),
			PID:  os.Getpid(), TTL: cfg.NodeTTL,
		},
	}
}

// run registers and renews until ctx ends, or until another process that has the
// name is known to be alive. That the database is away is no reason to end.
func (r *registration) run(ctx context.Context) error {
	var watched sessionstore.Node // whoever has our name, the zero Node if we do
	for failing := false; ; {
		holder, err := r.register(ctx)
		switch {
		case errors.Is(err, sessionstore.ErrNodeNameTaken):
			if holder.Instance == watched.Instance && !holder.SeenAt.Equal(watched.SeenAt) {
				return fmt.Errorf("idmanager: %w: another process is alive as %s; give each process a name of its own, or stop the other one",
					sessionstore.ErrNodeNameTaken, holder)
			}
			if holder.Instance != watched.Instance {
				r.cfg.Logger.Warn("node name is taken, waiting to see whether its holder is alive",
					slog.String("holder", holder.String()), slog.Duration("ttl", holder.TTL))
			}
			watched, failing = holder, false
		case err == nil:
			watched, failing = sessionstore.Node{}, false
		case !failing && ctx.Err() == nil:
			failing = true
			r.cfg.Logger.Warn("node is not registered, trying again", slog.String("node", r.self.Name), slog.Any("error", err))
		}
		if err == nil && r.cfg.Node != "" {
			r.look(ctx)
		}
		if wait(ctx, early(r.cfg.HeartbeatInterval), r.changed) != nil {
			return nil
		}
	}
}

// look finds out which nodes serve. If it cannot, what it knew remains: a node that has
// ended is then taken for alive, and tokens keep its route.
func (r *registration) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	serving := make(map[string]bool)
	for _, name := range r.others.metOfLate() {
		serving[name] = false // unless it is found
	}
	for node, err := range r.registry.Nodes(ctx) {
		if err != nil {
			return
		}
		serving[node.Name] = node.Alive() && node.State != sessionstore.NodeDraining
	}
	r.others.set(serving)
}

func (r *registration) register(ctx context.Context) (holder sessionstore.Node, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	r.tried.Store(true)
	node := r.self
	node.State = sessionstore.NodeServing
	if r.draining.Load() {
		node.State = sessionstore.NodeDraining
	}
	return r.registry.RegisterNode(ctx, node)
}

// announce lets the registry know at once that this node drains.
func (r *registration) announce() {
	select {
	case r.changed <- struct{}{}:
	default: // run has yet to look
	}
}

// leave forgets this process, after run has returned.
func (r *registration) leave(ctx context.Context) {
	if !r.tried.Swap(false) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	if err := r.registry.UnregisterNode(ctx, r.self.Name, r.self.Instance); err != nil {
		// No reason for Shutdown to fail: the entry says by itself when it is over.
		r.cfg.Logger.Warn("node stays registered until its TTL has passed", slog.String("node", r.self.Name), slog.Any("error", err))
	}
}

// Nodes yields the processes that use this database, by name: those that are alive,
// and for a day those that ended without a Shutdown. After an error it yields nothing
// more; the error is [errors.ErrUnsupported] if the backend is no
// [sessionstore.NodeRegistry].
func (m *Manager) Nodes(ctx context.Context) iter.Seq2[sessionstore.Node, error] {
	registry, ok := m.backend.(sessionstore.NodeRegistry)
	if !ok {
		return func(yield func(sessionstore.Node, error) bool) {
			yield(sessionstore.Node{}, fmt.Errorf("idmanager: the backend keeps no list of nodes: %w", errors.ErrUnsupported))
		}
	}
	return registry.Nodes(ctx)
}

// Drain prepares the end of this process: it goes on serving and writing back, but no
// longer attracts clients. Tokens that it gives out carry no route; a client whose
// token has this node's is given it again without, by its next request, at the price
// of a statement; and [Manager.Nodes] says that this node drains. What else leads
// clients here, such as a health check, is the program's to end. There is no way
// back. Drain returns at once and may be called more than once.
func (m *Manager) Drain() {
	if !m.draining.Swap(true) && m.registration != nil {
		m.registration.announce()
	}
}

// Serves implements [sessionstore.NodeWatcher], by what the latest heartbeat has found, also
// after Run has ended. A node that was killed counts as alive until its NodeTTL has passed, and
// one of which no heartbeat could find out anything, as one that serves. Without a registry or
// a name, nobody is known to serve.
func (m *Manager) Serves(node string) bool {
	return node != "" && m.registration != nil && m.cfg.Node != "" && m.registration.others.serves(node)
}

// Draining reports whether Drain was called.
func (m *Manager) Draining() bool { return m.draining.Load() }

// route is what tokens carry.
func (m *Manager) route() string {
	if m.Draining() {
		return ""
	}
	return m.cfg.Node
}

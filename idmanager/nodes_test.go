package idmanager_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/holdfast-sessions/holdfast/idmanager"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
)

// A registryLine is one process's way to a registry, which can be cut off, or hang as
// if the process stood still.
type registryLine struct {
	*membackend.Backend
	mu    sync.Mutex    // guards what follows
	err   error         // what calls are answered, if not nil
	stall chan struct{} // what calls wait for, if not nil
}

func (l *registryLine) set(err error, stall chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err, l.stall = err, stall
}

func (l *registryLine) RegisterNode(ctx context.Context, node sessionstore.Node) (sessionstore.Node, error) {
	l.mu.Lock()
	err, stall := l.err, l.stall
	l.mu.Unlock()
	if stall != nil {
		<-stall
		ctx = context.WithoutCancel(ctx) // which stood still too
	}
	if err != nil {
		return sessionstore.Node{}, err
	}
	return l.Backend.RegisterNode(ctx, node)
}

func nodes(t *testing.T, m *idmanager.Manager) []sessionstore.Node {
	t.Helper()
	var all []sessionstore.Node
	for n, err := range m.Nodes(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, n)
	}
	return all
}

// run runs m in the background; the channel gives Run's outcome.
func run(m *idmanager.Manager) <-chan error {
	outcome := make(chan error, 1)
	go func() { outcome <- m.Run(context.Background()) }()
	return outcome
}

const nodeTTL = 5 * idmanager.DefaultHeartbeatInterval

func TestNodesAreRegisteredAndRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := membackend.New()
		named := newManager(t, memory, idmanager.Config{Node: "node1"})
		nameless := newManager(t, memory, idmanager.Config{})
		started := time.Now().UTC()
		first, second := run(named), run(nameless)
		time.Sleep(time.Hour)
		host, err := os.Hostname()
		if err != nil {
			t.Fatal(err)
		}
		all := nodes(t, named)
		if len(all) != 2 {
			t.Fatalf("nodes: %v", all)
		}
		for _, n := range all {
			if !n.Alive() || n.Now.Sub(n.SeenAt) > idmanager.DefaultHeartbeatInterval || !n.StartedAt.Equal(started) ||
				n.Host != host || n.PID != os.Getpid() || n.State != sessionstore.NodeServing || n.TTL != nodeTTL {
				t.Errorf("%+v", n)
			}
			if n.Name != "node1" && n.Name != n.Instance.String() {
				t.Errorf("a node without a name is called %q", n.Name)
			}
		}
		if n := memory.Statements(); n > 120 { // two sweeps a minute
			t.Errorf("heartbeats count among %d statements", n)
		}
		for m, outcome := range map[*idmanager.Manager]<-chan error{named: first, nameless: second} {
			if err := errors.Join(m.Shutdown(t.Context()), <-outcome); err != nil {
				t.Error(err)
			}
		}
		if all := nodes(t, named); len(all) != 0 {
			t.Errorf("after Shutdown: %v", all)
		}
	})
}

func TestTwoLiveNodesOfOneName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := membackend.New()
		first := newManager(t, memory, idmanager.Config{Node: "node1"})
		holds := run(first)
		time.Sleep(time.Minute)
		second := newManager(t, memory, idmanager.Config{Node: "node1"})
		app, err := sessionstore.New(second, "app", &sessionstore.Config{Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		refused := run(second)
		synctest.Wait()
		if !second.Live() {
			t.Error("not live while it waits for its name")
		}
		token := use(t, app, sessionstore.Token{})
		err = <-refused
		if !errors.Is(err, sessionstore.ErrNodeNameTaken) {
			t.Fatalf("Run returned %v", err)
		}
		instance := nodes(t, first)[0].Instance.String()
		for _, word := range []string{"node1", instance, "pid", "last seen", "name of its own"} {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%q does not mention %s", err, word)
			}
		}
		if d := time.Since(began); d > nodeTTL {
			t.Errorf("it took %v", d)
		}
		use(t, app, token) // right, if slower
		if second.Live() {
			t.Error("live after Run has ended")
		}
		if err := second.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if all := nodes(t, first); len(all) != 1 || all[0].Instance.String() != instance || !all[0].Alive() {
			t.Errorf("after the second one's end: %v", all)
		}
		if err := errors.Join(first.Shutdown(t.Context()), <-holds); err != nil {
			t.Error(err)
		}
	})
}

func TestADeadNodesNameIsTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := membackend.New()
		dead := sessionstore.Node{Name: "node1", Instance: uuid.New(), TTL: nodeTTL}
		if _, err := memory.RegisterNode(t.Context(), dead); err != nil { // and killed
			t.Fatal(err)
		}
		m := newManager(t, memory, idmanager.Config{Node: "node1"})
		outcome := run(m)
		time.Sleep(nodeTTL - 1)
		if n := nodes(t, m)[0]; n.Instance != dead.Instance {
			t.Error("the name was taken from a process that may be alive")
		}
		time.Sleep(idmanager.DefaultHeartbeatInterval + 1)
		if n := nodes(t, m)[0]; n.Instance == dead.Instance || !n.Alive() {
			t.Errorf("not taken over: %v", n)
		}
		if err := errors.Join(m.Shutdown(t.Context()), <-outcome); err != nil {
			t.Error(err)
		}
	})
}

// Of two processes started after a death, one gets the name and one is refused.
func TestTwoHeirsOfADeadNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := membackend.New()
		if _, err := memory.RegisterNode(t.Context(), sessionstore.Node{Name: "node1", Instance: uuid.New(), TTL: nodeTTL}); err != nil {
			t.Fatal(err)
		}
		a, b := newManager(t, memory, idmanager.Config{Node: "node1"}), newManager(t, memory, idmanager.Config{Node: "node1"})
		first, second := run(a), run(b)
		time.Sleep(time.Minute)
		refused := 0
		for m, outcome := range map[*idmanager.Manager]<-chan error{a: first, b: second} {
			alive := m.Live()
			if err := m.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			err := <-outcome
			if (err == nil) != alive || err != nil && !errors.Is(err, sessionstore.ErrNodeNameTaken) {
				t.Errorf("live: %t, Run returned %v", alive, err)
			}
			if err != nil {
				refused++
			}
		}
		if refused != 1 {
			t.Errorf("%d of 2 were refused", refused)
		}
	})
}

// A process that stood still for longer than its TTL finds its name taken.
func TestAFrozenNodeWakesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := &registryLine{Backend: membackend.New()}
		frozen := newManager(t, line, idmanager.Config{Node: "node1"})
		outcome := run(frozen)
		time.Sleep(time.Minute)

		wake := make(chan struct{})
		line.set(nil, wake)
		time.Sleep(time.Minute)
		close(wake)
		line.set(nil, nil)
		time.Sleep(time.Minute) // nobody wanted the name: all is as before
		if n := nodes(t, frozen)[0]; !n.Alive() || !frozen.Live() {
			t.Errorf("after the first sleep: %v", n)
		}

		wake = make(chan struct{})
		line.set(nil, wake)
		time.Sleep(time.Minute)
		heir := newManager(t, line.Backend, idmanager.Config{Node: "node1"})
		inherits := run(heir)
		time.Sleep(time.Minute)
		close(wake)
		line.set(nil, nil)
		if err := <-outcome; !errors.Is(err, sessionstore.ErrNodeNameTaken) {
			t.Errorf("after the second sleep Run returned %v", err)
		}
		if err := frozen.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if all := nodes(t, heir); len(all) != 1 || !all[0].Alive() {
			t.Errorf("the heir is gone with it: %v", all)
		}
		if err := errors.Join(heir.Shutdown(t.Context()), <-inherits); err != nil {
			t.Error(err)
		}
	})
}

func TestRegistryAwayAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := &registryLine{Backend: membackend.New()}
		down := errors.New("down")
		line.set(down, nil)
		m := newManager(t, line, idmanager.Config{Node: "node1"})
		outcome := run(m)
		time.Sleep(time.Minute)
		if !m.Live() || len(nodes(t, m)) != 0 {
			t.Error("an outage of the registry is more than that")
		}
		for range 2 {
			line.set(nil, nil)
			time.Sleep(idmanager.DefaultHeartbeatInterval)
			if n := nodes(t, m)[0]; !n.Alive() {
				t.Errorf("not registered again: %v", n)
			}
			line.set(down, nil)
			time.Sleep(3 * sessionstore.NodeRetention)
		}
		if err := errors.Join(m.Shutdown(t.Context()), <-outcome); err != nil {
			t.Error(err)
		}
	})
}

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := membackend.New()
		m := newManager(t, memory, idmanager.Config{Node: "node1"})
		outcome := run(m)
		synctest.Wait()
		if token := m.NewToken(); m.Draining() || token.Route() != "node1" {
			t.Errorf("draining: %t, route %q", m.Draining(), token.Route())
		}
		m.Drain()
		m.Drain()
		synctest.Wait()
		if token := m.NewToken(); !m.Draining() || token.Route() != "" || m.Node() != "node1" {
			t.Errorf("draining: %t, route %q", m.Draining(), token.Route())
		}
		if n := nodes(t, m)[0]; n.State != sessionstore.NodeDraining || !m.Live() {
			t.Errorf("the registry says %+v, live: %t", n, m.Live())
		}
		if err := errors.Join(m.Shutdown(t.Context()), <-outcome); err != nil {
			t.Error(err)
		}
	})
}

func TestWithoutRegistry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		none := newManager(t, &failing{Backend: membackend.New()}, idmanager.Config{Node: "node1"})
		unwanted := newManager(t, membackend.New(), idmanager.Config{Node: "node1", HeartbeatInterval: -1})
		for m, want := range map[*idmanager.Manager]error{none: errors.ErrUnsupported, unwanted: nil} {
			outcome := run(m)
			time.Sleep(time.Minute)
			m.Drain()
			for n, err := range m.Nodes(t.Context()) {
				if err == nil || !errors.Is(err, want) {
					t.Errorf("node %v, error %v", n, err)
				}
			}
			if err := errors.Join(m.Shutdown(t.Context()), <-outcome); err != nil {
				t.Error(err)
			}
		}
	})
}

package backendtest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

const nodeTTL = 10 * time.Minute // of the nodes that newNode returns

// registries returns the two handles; it skips the subtest if the backend has none.
func (c *check) registries() (first, second sessionstore.NodeRegistry) {
	c.Helper()
	first, ok := c.b.(sessionstore.NodeRegistry)
	if !ok {
		c.Skip("the backend is no sessionstore.NodeRegistry")
	}
	return first, c.second.(sessionstore.NodeRegistry)
}

// newNode returns a node of a name that no other subtest uses, if name is "".
func (c *check) newNode(name string) sessionstore.Node {
	if name == "" {
		name = c.name("node")
	}
	return sessionstore.Node{
		Name: name, Instance: uuid.New(), Host: "hôst", PID: 4711, State: sessionstore.NodeServing, TTL: nodeTTL,
	}
}

func (c *check) register(r sessionstore.NodeRegistry, n sessionstore.Node) {
	c.Helper()
	if holder, err := r.RegisterNode(c.ctx, n); err != nil || holder != (sessionstore.Node{}) {
		c.Fatalf("RegisterNode returned %v and %v, want the zero Node", holder, err)
	}
}

// node returns what is stored under name.
func (c *check) node(r sessionstore.NodeRegistry, name string) (node sessionstore.Node, found bool) {
	c.Helper()
	for n, err := range r.Nodes(c.ctx) {
		if err != nil {
			c.Fatalf("Nodes yielded %v", err)
		}
		if n.Name == name {
			node, found = n, true
		}
	}
	return node, found
}

// expectNode reports a stored node that does not say what want does, or has other
// times than were given, if any were.
func (c *check) expectNode(r sessionstore.NodeRegistry, want sessionstore.Node) sessionstore.Node {
	c.Helper()
	got, found := c.node(r, want.Name)
	if !found {
		c.Fatalf("Nodes does not yield %s", want.Name)
	}
	said := got
	said.StartedAt, said.SeenAt, said.Now = want.StartedAt, want.SeenAt, want.Now
	if said != want {
		c.Errorf("Nodes yielded %+v, want %+v", got, want)
	}
	return got
}

var nodeSubtests = []subtest{
	{"RegisterNode stores what a node says", "RegisterNode claims node's name for its instance and stores what node says", func(c *check) {
		first, second := c.registries()
		n := c.newNode("")
		n.Host = strings.Repeat("h", sessionstore.MaxNameBytes)
		c.register(first, n)
		stored := c.expectNode(second, n)
		if !stored.SeenAt.Equal(stored.StartedAt) || stored.SeenAt.IsZero() || stored.Now.Before(stored.SeenAt) || !stored.Alive() {
			c.Errorf("started %v, seen %v, now %v", stored.StartedAt, stored.SeenAt, stored.Now)
		}
	}},
	{"the database's clock decides", "The database's clock becomes SeenAt, and StartedAt if the name was not the instance's; node's own times are ignored.", func(c *check) {
		r, _ := c.registries()
		n := c.newNode("")
		n.StartedAt, n.SeenAt, n.Now = time.Unix(1, 0), time.Unix(2, 0), time.Unix(3, 0)
		c.register(r, n)
		if stored, _ := c.node(r, n.Name); stored.StartedAt.Year() < 2000 || stored.SeenAt.Year() < 2000 || stored.Now.Year() < 2000 {
			c.Errorf("times are %v, %v, %v", stored.StartedAt, stored.SeenAt, stored.Now)
		}
	}},
	{"RegisterNode renews", "or renews what the instance has stored before", func(c *check) {
		first, second := c.registries()
		n := c.newNode("")
		c.register(first, n)
		c.advance(nodeTTL / 2)
		n.State, n.Host, n.PID, n.TTL = sessionstore.NodeDraining, "other", 1, 2*nodeTTL
		c.register(second, n)
		stored := c.expectNode(first, n)
		if d := stored.SeenAt.Sub(stored.StartedAt); d < nodeTTL/2 || d > nodeTTL {
			c.Errorf("seen %v after its start, want a little more than %v", d, nodeTTL/2)
		}
		c.advance(10 * nodeTTL) // asleep, but nobody wanted the name
		c.register(second, n)
		if again := c.expectNode(first, n); again.SeenAt.Sub(again.StartedAt) < 10*nodeTTL || !again.Alive() {
			c.Errorf("after a long silence: started %v, seen %v, now %v", again.StartedAt, again.SeenAt, again.Now)
		}
	}},
	{"a name that is held is refused", "If another instance holds the name and is alive, RegisterNode returns [ErrNodeNameTaken] beside that node and changes nothing.", func(c *check) {
		first, second := c.registries()
		n := c.newNode("")
		c.register(first, n)
		c.advance(nodeTTL - time.Minute)
		before, _ := c.node(first, n.Name)
		holder, err := second.RegisterNode(c.ctx, c.newNode(n.Name))
		if !errors.Is(err, sessionstore.ErrNodeNameTaken) || holder.Instance != n.Instance || holder.Host != n.Host ||
			!holder.SeenAt.Equal(before.SeenAt) || !holder.Alive() || holder.Now.Sub(holder.SeenAt) < nodeTTL-time.Minute {
			c.Errorf("RegisterNode returned %+v and %v, want %v beside %+v", holder, err, sessionstore.ErrNodeNameTaken, before)
		}
		if after := c.expectNode(second, n); !after.SeenAt.Equal(before.SeenAt) {
			c.Errorf("the holder was seen at %v before and %v after", before.SeenAt, after.SeenAt)
		}
	}},
	{"a dead node's name is free", "It is alive while the database's clock is before SeenAt+TTL (P12).", func(c *check) {
		first, second := c.registries()
		n := c.newNode("")
		c.register(first, n)
		c.advance(nodeTTL)
		if stored, found := c.node(first, n.Name); !found || stored.Alive() {
			c.Errorf("after its TTL the node is stored: %t, alive: %t", found, stored.Alive())
		}
		other := c.newNode(n.Name)
		other.Host = "other"
		c.register(second, other)
		if stored := c.expectNode(first, other); !stored.StartedAt.Equal(stored.SeenAt) {
			c.Errorf("the new holder started %v before it was seen", stored.SeenAt.Sub(stored.StartedAt))
		}
		if holder, err := first.RegisterNode(c.ctx, n); !errors.Is(err, sessionstore.ErrNodeNameTaken) || holder.Instance != other.Instance {
			c.Errorf("the old holder is told %v and %v", holder, err)
		}
	}},
	{"of claims at once one succeeds", "Of concurrent claims of a name exactly one succeeds.", func(c *check) {
		first, second := c.registries()
		for _, was := range []string{"free", "dead"} {
			for range 5 {
				name := c.name("node")
				if was == "dead" {
					c.register(first, c.newNode(name))
					c.advance(2 * nodeTTL)
				}
				const claims = 8
				var mu sync.Mutex
				var won []uuid.UUID // guarded by mu
				var told []uuid.UUID
				c.parallel(claims, func(i int, _ sessionstore.Backend) {
					r, n := first, c.newNode(name)
					if i%2 == 1 {
						r = second
					}
					holder, err := r.RegisterNode(c.ctx, n)
					mu.Lock()
					defer mu.Unlock()
					switch {
					case err == nil:
						won = append(won, n.Instance)
					case errors.Is(err, sessionstore.ErrNodeNameTaken):
						told = append(told, holder.Instance)
					default:
						c.Errorf("RegisterNode returned %v", err)
					}
				})
				if len(won) != 1 {
					c.Fatalf("%d of %d claims of a %s name succeeded", len(won), claims, was)
				}
				if slices.ContainsFunc(told, func(id uuid.UUID) bool { return id != won[0] }) {
					c.Errorf("the others were told of %v, but %v has the name", told, won[0])
				}
				if stored, _ := c.node(second, name); stored.Instance != won[0] {
					c.Errorf("instance %v is stored, but %v was told it has the name", stored.Instance, won[0])
				}
			}
		}
	}},
	{"names are compared byte by byte", "Name is unique among the nodes that are alive", func(c *check) {
		r, _ := c.registries()
		name := c.name("node")
		for _, name := range []string{name, strings.ToUpper(name), name + " "} {
			c.register(r, c.newNode(name))
		}
	}},
	{"old nodes are forgotten", "A claim of a name that was not stored forgets the nodes that were alive last more than [NodeRetention] ago.", func(c *check) {
		r, _ := c.registries()
		old, young, alive := c.newNode(""), c.newNode(""), c.newNode("")
		alive.TTL += time.Hour + sessionstore.NodeRetention
		c.register(r, old)
		c.register(r, alive)
		c.advance(time.Hour)
		c.register(r, young)
		c.advance(nodeTTL + sessionstore.NodeRetention - time.Minute)
		c.register(r, young) // was stored
		c.expectNode(r, old)
		c.register(r, c.newNode(""))
		if _, found := c.node(r, old.Name); found {
			c.Errorf("a node that died long ago is still there")
		}
		c.expectNode(r, young)
		c.expectNode(r, alive)
	}},
	{"UnregisterNode forgets the instance only", "UnregisterNode forgets the node of this name if it is this instance. If it is not, or there is none, nothing changes, which is no error.", func(c *check) {
		first, second := c.registries()
		n := c.newNode("")
		c.register(first, n)
		for _, instance := range []uuid.UUID{uuid.New(), n.Instance, n.Instance} {
			if err := second.UnregisterNode(c.ctx, n.Name, instance); err != nil {
				c.Errorf("UnregisterNode returned %v", err)
			}
			if _, found := c.node(first, n.Name); found != (instance != n.Instance) {
				c.Errorf("stored: %t, after another instance was unregistered: %t", found, instance != n.Instance)
			}
		}
		c.register(second, c.newNode(n.Name))
	}},
	{"Nodes yields in order", "Nodes yields all nodes that are stored, alive or not, by name.", func(c *check) {
		r, _ := c.registries()
		prefix := c.name("node")
		var want []string
		for _, suffix := range []string{"b", "B", "a", "a1"} {
			c.register(r, c.newNode(prefix+suffix))
			want = append(want, prefix+suffix)
		}
		slices.Sort(want)
		c.advance(nodeTTL)
		var got []string
		for n, err := range r.Nodes(c.ctx) {
			if err != nil {
				c.Fatalf("Nodes yielded %v", err)
			}
			if strings.HasPrefix(n.Name, prefix) {
				got = append(got, n.Name)
			}
		}
		if !slices.Equal(got, want) {
			c.Errorf("Nodes yielded %q, want %q", got, want)
		}
	}},
	{"Nodes may be interrupted and nested", "It holds no resource of the database while it yields.", func(c *check) {
		r, _ := c.registries()
		n := c.newNode("")
		c.register(r, n)
		for other, err := range r.Nodes(c.ctx) {
			if err != nil {
				c.Fatalf("Nodes yielded %v", err)
			}
			if other.Name == n.Name {
				if err := r.UnregisterNode(c.ctx, n.Name, n.Instance); err != nil {
					c.Errorf("UnregisterNode while Nodes yields returned %v", err)
				}
				break
			}
		}
		if _, found := c.node(r, n.Name); found {
			c.Errorf("unregistered, the node is still there")
		}
	}},
	{"Nodes yields nothing after an error", "After an error it yields nothing more.", func(c *check) {
		r, _ := c.registries()
		c.register(r, c.newNode(""))
		cancelled, cancel := context.WithCancel(c.ctx)
		cancel()
		calls := 0
		for _, err := range r.Nodes(cancelled) {
			if calls++; err == nil {
				c.Errorf("Nodes yielded a node although its context had ended")
			}
		}
		if calls != 1 {
			c.Errorf("Nodes yielded %d times", calls)
		}
	}},
}

package sessionstore_test

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
)

func TestAttributes(t *testing.T) {
	n := newNode(t, membackend.New(), "", nil)
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) {
		count.Set(s, 1)
		tags.Set(s, map[string]int{"a": 1})
		if v, ok := count.Get(s); !ok || v != 1 {
			t.Errorf("own change: %d, %t", v, ok)
		}
		want(t, "new", s.IsNew(), true)
	})
	c.do(t, n.Manager, func(s *sessionstore.Session) { // K3
		want(t, "new", s.IsNew(), false)
		name.Set(s, "x")
		v, _ := tags.Get(s)
		v["a"] = 99 // X17: what Get hands out is the caller's
		v, _ = tags.Get(s)
		want(t, "stored map", v["a"], 1)
	})
	c.do(t, n.Manager, func(s *sessionstore.Session) {
		if got := slices.Collect(s.Names()); !slices.Equal(got, []string{"count", "name", "tags"}) {
			t.Errorf("names %v", got)
		}
		if v, ok := name.Take(s); !ok || v != "x" {
			t.Errorf("take: %q, %t", v, ok)
		}
		if _, ok := name.Take(s); ok {
			t.Error("taken twice")
		}
		count.Delete(s)
		if got := slices.Collect(s.Names()); !slices.Equal(got, []string{"tags"}) {
			t.Errorf("names %v", got)
		}
	})
	if _, ok := get(t, c, n.Manager, name); ok {
		t.Error("taken value is still there")
	}
	if _, ok := get(t, c, n.Manager, count); ok { // F9
		t.Error("deleted value is still there")
	}
	before := c.version
	c.do(t, n.Manager, func(s *sessionstore.Session) { tags.Set(s, map[string]int{"a": 1}) })
	want(t, "version after setting what was set", c.version, before) // L5: no change, no write
}

// Functions that wait for their commit are replayed on what Refresh and Save bring.
func TestUpdateBesideRefreshAndSave_P2(t *testing.T) {
	n1, n2 := twoNodes(t)
	c := &client{}
	c.do(t, n1.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	other := *c
	c.do(t, n1.Manager, func(s *sessionstore.Session) {
		count.Update(s, func(n int) int { return n + 10 })
		other.do(t, n2.Manager, func(s *sessionstore.Session) { count.Set(s, 2) })
		if err := s.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if v, _ := count.Get(s); v != 12 {
			t.Errorf("count is %d after Refresh, want 12", v)
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 200 {
					count.Update(s, func(n int) int { return n + 1 })
					if err := s.Save(t.Context()); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	})
	if v, _ := get(t, c, n1.Manager, count); v != 812 {
		t.Errorf("count is %d, want 812", v)
	}
}

// The cost of an Update does not grow with the number of those before it.
func TestManyUpdatesInOneRequest_P2(t *testing.T) {
	n1, n2 := twoNodes(t)
	c := &client{}
	c.do(t, n1.Manager, func(s *sessionstore.Session) { count.Set(s, 0) })
	other := *c
	const many = 20_000
	c.do(t, n1.Manager, func(s *sessionstore.Session) {
		other.do(t, n2.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
		for range many {
			count.Update(s, func(n int) int { return n + 1 })
		}
	})
	if v, _ := get(t, c, n1.Manager, count); v != many+1 {
		t.Errorf("count is %d, want %d", v, many+1)
	}
}

// A message that is set while another one is taken is not taken unseen.
func TestTakeLeavesWhatIsSetMeanwhile(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", nil)
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { name.Set(s, "first") })
	tab := *c
	c.do(t, n.Manager, func(s *sessionstore.Session) {
		v, _ := name.Take(s)
		want(t, "taken", v, "first")
		_, ok := name.Get(s)
		want(t, "there after it was taken", ok, false)
		tab.do(t, n.Manager, func(s *sessionstore.Session) { name.Set(s, "second") })
	})
	v, _ := get(t, c, n.Manager, name)
	want(t, "left", v, "second")
}

func TestNewAttrPanicsOnBadNames(t *testing.T) {
	for _, name := range []string{"", strings.Repeat("x", 256), "\xff", "a\x00"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("NewAttr(%q) did not panic", name)
				}
			}()
			sessionstore.NewAttr[int](name)
		}()
	}
}

package idmanager_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-sessions/holdfast/idmanager"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
)

// A token keeps the route of a node that serves, wherever requests land: a response that
// sends the token again could overtake that of a login. It gets another one when that node
// is gone.
func TestRoutesOfNodesThatServe_P7(t *testing.T) {
	for what, end := range map[string]func(*host, *registryLine){
		"drains":                             func(h *host, _ *registryLine) { h.ids.Drain() },
		"ends":                               func(h *host, _ *registryLine) { h.ids.Shutdown(context.Background()) },
		"is cut off for longer than its TTL": func(_ *host, line *registryLine) { line.set(context.Canceled, nil) },
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				memory := membackend.New()
				var hosts []*host
				var lines []*registryLine
				for _, name := range []string{"n1", "n2"} {
					line := &registryLine{Backend: memory}
					h := &host{ids: newManager(t, line, idmanager.Config{Node: name})}
					var err error
					if h.app, err = sessionstore.New(h.ids, "app", &sessionstore.Config{Logger: quiet}); err != nil {
						t.Fatal(err)
					}
					go h.ids.Run(context.Background())
					t.Cleanup(func() { h.ids.Shutdown(context.Background()) })
					hosts, lines = append(hosts, h), append(lines, line)
				}
				time.Sleep(time.Minute)
				one, two := hosts[0], hosts[1]
				v := &visitor{}
				v.visit(t, one, paint("red"))
				for _, h := range []*host{two, one, two} {
					v.visit(t, h, paint("blue"))
					if v.token.Route() != "n1" {
						t.Fatalf("while both serve, the route became %q", v.token.Route())
					}
				}
				end(one, lines[0])
				time.Sleep(2 * sessionstore.DefaultMaxStale) // also the copies have to be confirmed
				v.visit(t, two, nil)
				if v.token.Route() != "n2" {
					t.Errorf("after that, the route is %q", v.token.Route())
				}
			})
		})
	}
}

// A node that answers its last requests after Shutdown leaves the routes of those that serve
// alone: it does not draw clients to itself.
func TestRoutesAfterShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := membackend.New()
		var hosts []*host
		for _, name := range []string{"n1", "n2"} {
			h := &host{ids: newManager(t, memory, idmanager.Config{Node: name})}
			var err error
			if h.app, err = sessionstore.New(h.ids, "app", &sessionstore.Config{Logger: quiet}); err != nil {
				t.Fatal(err)
			}
			go h.ids.Run(context.Background())
			t.Cleanup(func() { h.ids.Shutdown(context.Background()) })
			hosts = append(hosts, h)
		}
		time.Sleep(time.Minute)
		v := &visitor{}
		v.visit(t, hosts[0], paint("red"))
		if err := hosts[1].ids.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		v.visit(t, hosts[1], nil)
		if v.token.Route() != "n1" {
			t.Errorf("the route became %q", v.token.Route())
		}
	})
}

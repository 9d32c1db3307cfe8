package sessionstore_test

import (
	"context"
	"testing"

	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
)

// Under http.TimeoutHandler inside the middleware, a slow handler goes on using
// its session after Release. It must not count as a request in flight for ever.
func TestUseAfterReleaseDoesNotCountAsARequestInFlight(t *testing.T) {
	n := newNode(t, membackend.New(), "", nil)
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { name.Set(s, "ann") })
	for what, use := range map[string]func(s *sessionstore.Session){
		"Save": func(s *sessionstore.Session) {
			count.Update(s, func(n int) int { return n + 1 })
			if err := s.Save(context.Background()); err != nil {
				t.Error(err)
			}
		},
		"Done": func(s *sessionstore.Session) { s.Done() },
	} {
		s, err := n.Begin(t.Context(), c.claim())
		if err != nil {
			t.Fatal(err)
		}
		n.Release(s)
		use(s)
		want(t, what+": requests in flight", n.Stats().ActiveRequests, 0)
	}
}

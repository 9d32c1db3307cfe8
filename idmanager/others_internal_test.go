package idmanager

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
)

// Whoever has a session may ask with any route. What is remembered of such names is
// bounded, and takes nothing from the names of nodes that have served.
func TestRoutesThatClientsMakeUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := membackend.New()
		cfg := &Config{Timeout: time.Second, Node: "n1"}
		r := newRegistration(memory, cfg, new(atomic.Bool))
		gone := sessionstore.Node{Name: "n2", TTL: time.Minute}
		if _, err := memory.RegisterNode(t.Context(), gone); err != nil {
			t.Fatal(err)
		}
		r.look(t.Context())
		for i := range 100 * maxMet {
			r.others.serves(fmt.Sprintf("madeup%d", i))
		}
		if err := memory.UnregisterNode(t.Context(), "n2", gone.Instance); err != nil {
			t.Fatal(err)
		}
		r.look(t.Context())
		if n := len(r.others.metOfLate()); n > maxMet+1 {
			t.Errorf("%d names are remembered", n)
		}
		if r.others.serves("n2") {
			t.Error("a node that has ended counts as one that serves")
		}
		time.Sleep(2 * goneFor)
		if n := len(r.others.metOfLate()); n != 0 {
			t.Errorf("%d names are remembered for ever", n)
		}
	})
}

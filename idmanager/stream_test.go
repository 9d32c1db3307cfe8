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

// A stream is told when its session's lifetime has passed, whichever node sweeps it.
func TestAStreamAndItsLifetime(t *testing.T) {
	for what, sweeps := range map[string]time.Duration{"another node sweeps": -1, "both nodes sweep": 0} {
		told, runs := 0, 8
		for range runs {
			synctest.Test(t, func(t *testing.T) {
				memory := membackend.New()
				var hosts []*host
				for _, interval := range []time.Duration{0, sweeps} {
					h := &host{ids: newManager(t, memory, idmanager.Config{SweepInterval: interval})}
					var err error
					if h.app, err = sessionstore.New(h.ids, "app", &sessionstore.Config{Logger: quiet, Lifetime: time.Hour}); err != nil {
						t.Fatal(err)
					}
					go h.ids.Run(context.Background())
					t.Cleanup(func() { h.ids.Shutdown(context.Background()) })
					hosts = append(hosts, h)
				}
				synctest.Wait()
				v := &visitor{}
				v.visit(t, hosts[0], login)
				b := hosts[1]
				stream, err := b.app.Begin(t.Context(), sessionstore.Claim{Token: v.token, Version: v.version})
				if err != nil {
					t.Fatal(err)
				}
				defer b.app.Release(stream)
				done := stream.Done()
				time.Sleep(90 * time.Minute)
				if _, isNew, _ := v.visit(t, hosts[0], nil); !isNew {
					t.Error("the session lives")
				}
				select {
				case <-done:
					told++
				default:
				}
			})
		}
		if told < runs {
			t.Errorf("%s: of %d streams whose sessions ended half an hour ago, %d were told", what, runs, told)
		}
	}
}

// A stream is told of an end that its node has missed for good.
func TestAStreamBesideAFeedThatIsCut_P6(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := newCluster(t, 2, idmanager.Config{})
		a, b := hosts[0], hosts[1]
		v := &visitor{}
		v.visit(t, a, login)
		stream, err := b.app.Begin(t.Context(), sessionstore.Claim{Token: v.token, Version: v.version})
		if err != nil {
			t.Fatal(err)
		}
		defer b.app.Release(stream)
		done := stream.Done()
		b.line.set(true, false)
		time.Sleep(time.Second)
		a.ids.Invalidate(t.Context(), v.token.ID())
		time.Sleep(time.Hour)
		b.line.set(false, false)
		time.Sleep(time.Hour)
		if !b.ids.Live() {
			t.Fatal("not live again")
		}
		select {
		case <-done:
		default:
			t.Error("two hours after the revocation, one after the feed came back, Done is not closed")
		}
	})
}

package integration_test

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/holdfast-sessions/holdfast/sqlbackend"
)

// An available backend tells about its circuit breaker.
type available interface {
	Availability() sqlbackend.Availability
}

// TestOutageFailsFast cuts the database off: after the first few, requests fail
// without waiting, and when it is back everything works again without a restart.
func TestOutageFailsFast(t *testing.T) {
	onEachServer(t, func(t *testing.T, db database) {
		t.Parallel() // it mostly waits for statements to time out
		wire := db.proxy()
		backend := db.open()
		p := start(t, backend, nil, newSite())
		b := newBrowser(t)
		b.expect(t, p, "/increment", `"done"`)
		b.expect(t, p, "/increment", `"done"`)

		wire.cut(true)
		state := backend.(available).Availability
		for begun := time.Now(); state().Breaker == sqlbackend.BreakerClosed; {
			if code, _ := b.get(t, p, "/increment"); code == 200 {
				t.Error("a request succeeded without a database")
			}
			if time.Since(begun) > 30*time.Second {
				t.Fatalf("the breaker stays closed: %+v", state())
			}
		}
		// Fast, but for trials, which the system refuses at once here.
		var slowest time.Duration
		begun := time.Now()
		for range 200 {
			start := time.Now()
			if code, _ := b.get(t, p, "/increment"); code == 200 || code == http.StatusConflict {
				t.Errorf("a request was answered %d without a database", code)
			}
			slowest = max(slowest, time.Since(start))
		}
		t.Logf("200 requests failed in %v, the slowest took %v; %+v", time.Since(begun), slowest, state())
		if refused := state().Refused; refused < 150 {
			t.Errorf("only %d calls failed at once", refused)
		}
		if err := state().Err; err == nil || errors.Is(err, sqlbackend.ErrUnavailable) {
			t.Errorf("the last failure is %v", err)
		}

		wire.cut(false)
		back := time.Now()
		for state().Breaker != sqlbackend.BreakerClosed { // without any request: polls are the trials
			<-time.After(time.Millisecond)
			if time.Since(back) > 30*time.Second {
				t.Fatal("the breaker stays open")
			}
		}
		t.Logf("closed %v after the database was back", time.Since(back))
		b.expect(t, p, "/increment", `"done"`)
		if _, n := b.get(t, p, "/counter"); n != "3" { // none of those that failed was stored
			t.Errorf("counter is %s", n)
		}
	})
}

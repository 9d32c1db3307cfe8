package integration_test

import (
	"os"
	"testing"
	"time"

	"github.com/holdfast-sessions/holdfast/internal/dbtest"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sqlbackend/postgres"
)

// TestFailoverThatLosesCommits promotes a standby that lagged behind. What it lacks
// is lost, and no client can mend that; but those who were told of it, and nodes with
// copies of it, go on with what there is.
func TestFailoverThatLosesCommits(t *testing.T) {
	if os.Getenv("HOLDFAST_TEST_CLUSTERS") != "1" {
		t.Skip("HOLDFAST_TEST_CLUSTERS is not 1")
	}
	r := dbtest.Replicated(t, true)
	open := func() backend {
		b, err := postgres.New(t.Context(), dbtest.Pool(t, r.URL), nil)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	cfg := &sessionstore.Config{}
	one, two := start(t, open(), cfg, newSite()), start(t, open(), cfg, newSite())
	b := newBrowser(t)
	for range 3 {
		b.expect(t, one, "/increment", `"done"`)
	}
	r.Part(t)
	for range 2 {
		b.expect(t, one, "/increment", `"done"`)
	}
	elsewhere := b.moved(t, one, two)
	elsewhere.expect(t, two, "/counter", "5")
	late := newBrowser(t) // its session is lost altogether
	late.expect(t, one, "/increment", `"done"`)

	r.Primary.Kill(t)
	r.Promote(t)
	// Node one changes the session, and finds that its copy is ahead of the database.
	saveSoon(t, b, one)
	b.expect(t, one, "/counter", "4")
	b.expect(t, one, "/increment", `"done"`)
	b.expect(t, one, "/counter", "5")
	loads := one.app.Stats().Loads
	b.expect(t, one, "/counter", "5")
	if more := one.app.Stats().Loads - loads; more != 0 {
		t.Errorf("the client still asks for the version it was once told of: %d loads", more)
	}
	// Node two has a copy of what was lost. Who was told of the new versions does not see it.
	there := b.moved(t, one, two)
	saveSoon(t, there, two)
	there.expect(t, two, "/counter", "6")

	if code, _ := late.get(t, one, "/increment"); code != 200 && code != 409 {
		t.Errorf("a request of a session that was lost: %d", code)
	}
	late.expect(t, one, "/increment", `"done"`) // on a session anew
	late.get(t, one, "/increment")
}

// saveSoon saves as soon as a node has found the new primary.
func saveSoon(t *testing.T, b browser, p *process) {
	t.Helper()
	for begun := time.Now(); ; {
		if code, _ := b.get(t, p, "/increment"); code == 200 {
			return
		}
		if time.Since(begun) > 30*time.Second {
			t.Fatal("no save succeeds after the failover")
		}
	}
}

package integration_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// TestServeCached cuts one process off from its database, on which another one goes
// on working.
func TestServeCached(t *testing.T) {
	onEachServer(t, func(t *testing.T, db database) {
		t.Parallel() // it mostly waits for statements to time out
		other := start(t, db.open(), nil, newSite())
		cable := db.proxy()
		// Each request asks, so that it is an outage from the first one on.
		cfg := &sessionstore.Config{Outage: sessionstore.ServeCached, MaxStale: time.Microsecond}
		p := start(t, db.open(), cfg, newSite())
		b, gone := newBrowser(t), newBrowser(t)
		b.expect(t, p, "/increment", `"done"`)
		gone.expect(t, p, "/login?user=bob", `"bob"`)
		token := b.token(t, p)
		elsewhere := gone.moved(t, p, other)

		cable.cut(true)
		for range 3 {
			b.expect(t, p, "/counter", "1")
			resp, err := b.Get(p.server.URL + "/increment")
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || len(resp.Cookies()) > 0 {
				t.Errorf("a write was answered %d, with %d cookies", resp.StatusCode, len(resp.Cookies()))
			}
		}
		if hits := p.app.Stats().OutageHits; hits < 6 {
			t.Errorf("copies stood in %d times", hits)
		}
		if b.token(t, p) != token {
			t.Error("an error cost the client its cookie")
		}
		newBrowser(t).expect(t, p, "/counter", "0") // P9
		if code, _ := newBrowser(t).get(t, p, "/increment"); code != http.StatusServiceUnavailable {
			t.Errorf("a new session was answered %d", code)
		}
		// What the policy weakens: this process cannot know.
		elsewhere.expect(t, other, "/logout", `"bye"`)
		gone.expect(t, p, "/whoami", `"bob"`)

		cable.cut(false)
		for deadline := time.Now().Add(time.Minute); ; {
			code, body := b.get(t, p, "/increment")
			if code == http.StatusOK && body == `"done"` {
				break
			}
			if time.Now().After(deadline) || code != http.StatusServiceUnavailable {
				t.Fatalf("after the outage: %d %q", code, body)
			}
		}
		hits := p.app.Stats().OutageHits
		b.expect(t, p, "/counter", "2") // what failed was not done, what was acknowledged is there
		gone.expect(t, p, "/whoami", `""`)
		b.moved(t, p, other).expect(t, other, "/counter", "2")
		if n := p.app.Stats().OutageHits - hits; n > 0 {
			t.Errorf("copies stood in %d times after the outage", n)
		}
	})
}

package integration_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-sessions/holdfast/idmanager"
	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// TestStatementsPerRequest is the cost model of docs/performance.md: how many
// statements a request of each kind causes, exactly. Those that time causes, polls
// apart, are far away.
func TestStatementsPerRequest_P9_P10(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		created, logout := int64(2), int64(5)
		if strings.HasSuffix(t.Name(), "/PostgreSQL") { // where one statement can do several things
			created, logout = 1, 3
		}
		idle := idmanager.Config{PollInterval: 10 * time.Minute, FeedTimeout: 30 * time.Minute, EventRetention: 4 * time.Hour, SweepInterval: -1}
		cfg := &sessionstore.Config{IdleTimeout: 10 * time.Hour, TouchInterval: time.Hour}
		strict := &sessionstore.Config{IdleTimeout: 10 * time.Hour, TouchInterval: time.Hour, Freshness: sessionstore.Strict}
		here := db.open()
		p := startWith(t, here, idle, cfg, newSite())
		there := db.open()
		other := startWith(t, there, idle, cfg, newSite())
		confirming := db.open()
		asks := startWith(t, confirming, idle, strict, newSite())
		b := newBrowser(t)
		malformed := newBrowser(t)
		malformed.Jar.SetCookies(p.url(t, "/"), []*http.Cookie{{Name: "session", Value: "no-token-ever-looked-like-this"}})
		get := func(b browser, p *process, path string) func() {
			return func() {
				if code, body := b.get(t, p, path); code != http.StatusOK {
					t.Errorf("GET %s: %d %s", path, code, body)
				}
			}
		}
		for _, step := range []struct {
			what    string
			counted backend
			want    int64
			request func()
		}{
			{"without cookie", here, 0, get(newBrowser(t), p, "/counter")},
			{"malformed cookie", here, 0, get(malformed, p, "/counter")},
			{"first change", here, created, get(b, p, "/increment")},
			{"read after it", here, 0, get(b, p, "/counter")},
			{"save", here, 1, get(b, p, "/increment")},
			{"cached read", here, 0, get(b, p, "/counter")},
			{"save of something else", here, 1, get(b, p, "/text?set=x")},
			{"save of what is stored already", here, 1, get(b, p, "/text?set=x")},
			{"1,000 reads at once of a session that is not cached", there, 1, func() { burst(t, b, other) }},
			{"cached read on another node", there, 0, get(b, other, "/counter")},
			{"first strict read", confirming, 1, get(b, asks, "/counter")},
			{"strict read", confirming, 1, get(b, asks, "/counter")},
			{"login", here, 4, get(b, p, "/login?user=bob")},
			{"read after the login", here, 0, get(b, p, "/whoami")},
			{"logout", here, logout, get(b, p, "/logout")},
			{"read after the logout", here, 0, get(b, p, "/whoami")},
		} {
			before := step.counted.Statements()
			step.request()
			if got := step.counted.Statements() - before; got != step.want {
				t.Errorf("%s: %d statements, want %d", step.what, got, step.want)
			}
		}
	})
}

// burst asks for one session in many tabs at once.
func burst(t *testing.T, b browser, p *process) {
	cookies := b.Jar.Cookies(p.url(t, "/"))
	begin := make(chan struct{})
	var wg sync.WaitGroup
	for range 1000 {
		r, err := http.NewRequest("GET", "/counter", nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range cookies {
			r.AddCookie(c)
		}
		w := &discard{header: make(http.Header)}
		wg.Go(func() {
			<-begin
			p.server.Config.Handler.ServeHTTP(w, r)
		})
	}
	close(begin)
	wg.Wait()
}

type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(int)             {}
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }

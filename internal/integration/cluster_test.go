package integration_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-sessions/holdfast/idmanager"
)

// TestOtherProcessesHear_P6 measures how long a process goes on honouring what
// another one has ended or renewed.
func TestOtherProcessesHear_P6(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		a, b := start(t, db.open(), nil, newSite()), start(t, db.open(), nil, newSite())
		const rounds, samples = 2, 8
		for what, end := range map[string]func(here browser){
			"logout":  func(here browser) { here.expect(t, a, "/logout", `"bye"`) },
			"renewal": func(here browser) { here.expect(t, a, "/login?user=alice", `"alice"`) },
		} {
			var mu sync.Mutex // guards delays
			var delays []time.Duration
			for range rounds {
				var here, there [samples]browser
				for i := range samples {
					here[i] = newBrowser(t)
					here[i].expect(t, a, "/login?user=bob", `"bob"`)
					there[i] = here[i].moved(t, a, b)
					there[i].expect(t, b, "/whoami", `"bob"`)
					hits := b.app.Stats().CacheHits
					there[i].expect(t, b, "/whoami", `"bob"`)
					if b.app.Stats().CacheHits == hits {
						t.Error("the other process has no copy to outdate")
					}
				}
				var wg sync.WaitGroup
				for i := range samples { // at once, because most of it is waiting for a poll
					wg.Go(func() {
						end(here[i])
						ended := time.Now()
						for {
							if _, who := there[i].get(t, b, "/whoami"); who == `""` {
								break
							}
							if time.Since(ended) > idmanager.DefaultFeedTimeout {
								t.Errorf("%s: still honoured after %v", what, time.Since(ended))
								break
							}
							<-time.After(time.Millisecond)
						}
						mu.Lock()
						defer mu.Unlock()
						delays = append(delays, time.Since(ended))
					})
				}
				wg.Wait()
			}
			slices.Sort(delays)
			t.Logf("%s: median %v, longest %v", what, delays[len(delays)/2], delays[len(delays)-1])
		}
	})
}

// TestRoundRobin_P4 sends one browser's requests to three processes in turn: it
// must never see less than it was told.
func TestRoundRobin_P4(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		var ps []*process
		for range 3 {
			ps = append(ps, start(t, db.open(), nil, newSite()))
		}
		jar := newBrowser(t)
		for i := range 100 {
			p := ps[i%3]
			jar.expect(t, p, "/increment", `"done"`)
			jar = jar.moved(t, p, ps[(i+1)%3])
			jar.expect(t, ps[(i+1)%3], "/counter", fmt.Sprint(i+1))
		}
	})
}

// TestLogoutElsewhereDuringASlowRequest_P3 ends a session on one process while a
// request changes it on another.
func TestLogoutElsewhereDuringASlowRequest_P3(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		site := newSite()
		a, b := start(t, db.open(), nil, newSite()), start(t, db.open(), nil, site)
		here := newBrowser(t)
		here.expect(t, a, "/login?user=bob", `"bob"`)
		there := here.moved(t, a, b)
		code, body := site.during(t, there, b, "text?set=late", func() { here.expect(t, a, "/logout", `"bye"`) })
		if code != http.StatusConflict || strings.Contains(body, "late") {
			t.Errorf("page: %d %q", code, body)
		}
		var rows int
		if err := db.raw.QueryRow("SELECT count(*) FROM holdfast_sessions").Scan(&rows); err != nil || rows != 0 {
			t.Errorf("rows: %d, %v", rows, err)
		}
	})
}

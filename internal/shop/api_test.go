package shop_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var apps = []string{"", "/office"}

// P9: no cookie, no statement; nothing stored, no statement and no cookie.
func TestP9AnonymousTrafficIsFree(t *testing.T) {
	onEach(t, func(t *testing.T, site *site) {
		c := site.client()
		before := c.stat("statements")
		for _, app := range apps {
			s := c.state(app)
			if s.ID != "" || !*s.New || *s.Principal != "" || *s.Version != 0 || s.Source != "new" || s.Node != "node1" ||
				s.CreatedAt != nil || s.AccessedAt != nil || s.ExpiresAt != nil || len(s.Attributes) != 0 {
				t.Errorf("session of nobody: %+v", s)
			}
			c.do("GET", app+"/api/attributes/a", "").fails(404, "not set")
			c.do("DELETE", app+"/api/attributes/a", "").wants(200)
			c.do("GET", app+"/api/counters/a", "").wants(200)
			c.do("POST", app+"/api/logout", "").wants(200)
			c.do("POST", app+"/api/renew", "").wants(200)
			c.do("GET", app+"/api/devices", "").fails(401, "log in")
			c.do("DELETE", app+"/api/devices/0198f6a4-7f3e-7c1b-9e58-3f0d8a6b2c11", "").fails(401)
			c.do("POST", app+"/api/logout-everywhere", "").fails(401)
			c.do("PUT", app+"/api/attributes/a", "nonsense").fails(400)
			c.do("GET", app+"/", "")
			c.do("GET", app+"/login", "")
		}
		c.do("GET", "/cart", "")
		for _, cookie := range []string{"session=", "session=x", "session=" + strings.Repeat("A", 43) + "!", "session=" + strings.Repeat("é", 40)} {
			c.do("GET", "/api/session", "", "Cookie", cookie).wants(200)
		}
		if after := c.stat("statements"); after != before {
			t.Errorf("%d statements were run", after-before)
		}
		if cookies := c.http.Jar.Cookies(must(http.NewRequest("GET", c.url, nil)).URL); len(cookies) != 0 {
			t.Errorf("cookies were set: %v", cookies)
		}
	})
}

func TestDelay(t *testing.T) {
	onEach(t, func(t *testing.T, site *site) {
		c := site.client()
		for _, path := range []string{"/api/session", "/office/api/session", "/api/stats", "/none", "/healthz"} {
			for _, delay := range []string{"x", "200", "-1ms", "10.001s", "1h", "9223372036854775807h", "%00"} {
				c.do("GET", path+"?delay="+delay, "").fails(400, "delay")
			}
			start := time.Now()
			c.do("GET", path+"?delay=30ms", "").wants(200)
			if d := time.Since(start); d < 30*time.Millisecond {
				t.Errorf("%s waited only %v", path, d)
			}
			c.do("GET", path+"?delay=0s", "").wants(200)
			c.do("GET", path+"?delay=", "").wants(200)
		}
		c.do("PUT", "/api/attributes/a?delay=x", "1").fails(400)
		if !*c.state("").New {
			t.Error("a request with a bad delay was carried out")
		}
	})
}

func TestNoSessionInvolved(t *testing.T) {
	onEach(t, func(t *testing.T, site *site) {
		c := site.client()
		c.do("POST", "/api/login", `{"user":"Bob"}`).wants(200)
		before := c.stat("statements")
		site.backend.down.Store(true)
		for _, path := range []string{"/none", "/healthz", "/api/stats", "/office/api/stats"} {
			if a := c.do("GET", path, "").wants(200); a.Header["Set-Cookie"] != nil {
				t.Errorf("%s set a cookie", path)
			}
			c.do("HEAD", path, "").wants(200)
		}
		if after := c.stat("statements"); after != before {
			t.Errorf("%d statements were run", after-before)
		}
	})
}

func TestStats(t *testing.T) {
	onEach(t, func(t *testing.T, site *site) {
		c := site.client()
		c.do("POST", "/api/counters/n", "").wants(200)
		c.do("GET", "/api/session", "").wants(200)
		stats := decode[struct {
			Node         string
			Statements   int64
			Created      int64
			CacheHits    int64 `json:"cache_hits"`
			Applications map[string]map[string]json.Number
		}](c.do("GET", "/api/stats", "").wants(200))
		if stats.Node != "node1" || stats.Statements == 0 || stats.Created != 1 || stats.CacheHits != 1 ||
			stats.Applications["shop"]["created"] != "1" || stats.Applications["office"]["created"] != "0" {
			t.Errorf("stats: %+v", stats)
		}
		// P10: reads of a cached session run no statement.
		before := c.stat("statements")
		for range 100 {
			c.do("GET", "/api/session", "").wants(200)
		}
		if after := c.stat("statements"); after != before {
			t.Errorf("100 reads ran %d statements", after-before)
		}
	})
}

func TestMethods(t *testing.T) {
	onEach(t, func(t *testing.T, site *site) {
		c := site.client()
		for path, allowed := range map[string]string{
			"/none": "GET", "/healthz": "GET", "/api/stats": "GET", "/api/session": "GET", "/api/login": "POST", "/api/logout": "POST",
			"/api/renew": "POST", "/api/attributes/a": "GET, PUT, DELETE", "/api/counters/a": "GET, POST", "/api/devices": "GET",
			"/api/devices/x": "DELETE", "/api/logout-everywhere": "POST", "/office/api/session": "GET", "/office/api/counters/a": "GET, POST",
		} {
			for _, method := range []string{"PUT", "POST", "DELETE", "PATCH", "OPTIONS"} {
				if slices.Contains(strings.Split(allowed, ", "), method) {
					continue
				}
				a := c.do(method, path, "")
				a.fails(405, method)
				if got := a.Header.Get("Allow"); got != allowed {
					t.Errorf("%s %s: allowed are %q, want %q", method, path, got, allowed)
				}
			}
		}
		if !*c.state("").New {
			t.Error("a refused method was carried out")
		}
		c.do("HEAD", "/api/session", "").wants(200)
		for _, path := range []string{"/api", "/api/", "/api/x", "/api/session/", "/office/api/x"} {
			c.do("GET", path, "").fails(404)
		}
	})
}

func TestOtherWebsitesCannotPost(t *testing.T) {
	onEach(t, func(t *testing.T, site *site) {
		c := site.client()
		for _, header := range [][]string{
			{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://evil.example"}, {"Origin", "null"},
		} {
			for _, app := range apps {
				c.do("POST", app+"/api/counters/n", "", header...).fails(403, "another website")
				a := c.do("POST", app+"/logout", "", header...)
				if a.StatusCode != 403 || !strings.Contains(string(a.body), "another website") {
					t.Errorf("%v: %d %s", header, a.StatusCode, a.body)
				}
			}
			c.do("GET", "/api/session", "", header...).wants(200)
		}
		c.do("POST", "/api/counters/n", "", "Sec-Fetch-Site", "same-origin").wants(200)
		c.do("POST", "/api/counters/n", "", "Origin", site.url).wants(200)
		if got := decode[map[string]int64](c.do("POST", "/api/counters/n", "").wants(200)); got["value"] != 3 {
			t.Errorf("counter: %v, want 3", got)
		}
	})
}

func TestDatabaseDown(t *testing.T) {
	onEach(t, func(t *testing.T, site *site) {
		c := site.client()
		c.do("POST", "/api/login", `{"user":"Bob"}`).wants(200)
		site.backend.down.Store(true)
		fails := func(a answer) {
			t.Helper()
			if a.StatusCode != 503 || a.Header.Get("Retry-After") == "" || a.Header["Set-Cookie"] != nil {
				t.Errorf("%s %s: status %d, header %v: %s", a.Request.Method, a.Request.URL, a.StatusCode, a.Header, a.body)
			}
			if strings.Contains(string(a.body), "hunter2") || strings.Contains(string(a.body), "10.1.2.3") {
				t.Errorf("the client was told %s", a.body)
			}
		}
		for _, a := range []answer{
			c.do("PUT", "/api/attributes/a", "1"), c.do("POST", "/api/counters/n", ""), c.do("POST", "/api/renew", ""),
			c.do("GET", "/api/devices", ""), c.do("POST", "/api/logout-everywhere", ""), c.do("POST", "/api/logout", ""),
			c.do("GET", "/office/api/session", ""),
		} {
			a.fails(503, "try again")
			fails(a)
		}
		for _, a := range []answer{
			c.do("GET", "/devices", ""), c.do("GET", "/office/", ""), c.post("/cart/rope/add", ""), c.post("/logout", ""), c.post("/login", "name=Eve"),
		} {
			fails(a)
			if !strings.Contains(string(a.body), "</html>") {
				t.Errorf("%s is no page: %s", a.Request.URL, a.body)
			}
		}
		site.client().do("GET", "/api/session", "").wants(200) // who has no session needs no database
		site.backend.down.Store(false)
		if s := c.state(""); *s.Principal != "Bob" || len(s.Attributes) != 0 {
			t.Errorf("afterwards: %+v", s)
		}
		c.do("POST", "/api/counters/"+strconv.Itoa(1), "").wants(200)
	})
}

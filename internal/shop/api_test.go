package shop_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
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

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestAttributes(t *testing.T) {
	onEach(t, func(t *testing.T, site *site) {
		for _, app := range apps {
			c := site.client()
			for i, value := range []string{
				`null`, `true`, `0`, `-0.5e-7`, `12345678901234567890123`, `""`, `"ü \u0000 \ud83d\ude00 <&>"`,
				`[]`, `{}`, ` [1, {"b": [null], "a": "x"}] `, "\n{\"a\":1}\r\n\t",
			} {
				put := decode[map[string]int64](c.do("PUT", app+"/api/attributes/v", value).wants(200))
				if put["version"] != int64(i)+1 {
					t.Errorf("PUT %s answered %v, want version %d", value, put, i+1)
				}
				got := decode[map[string]any](c.do("GET", app+"/api/attributes/v", "").wants(200))["value"]
				var want any
				d := json.NewDecoder(strings.NewReader(value))
				d.UseNumber()
				if err := d.Decode(&want); err != nil {
					t.Fatal(err)
				}
				if !reflect.DeepEqual(got, want) {
					t.Errorf("PUT %s, GET %#v", value, got)
				}
			}
			s := c.state(app)
			if *s.Version != 11 || *s.New || string(s.Attributes["v"]) != `{"a":1}` || s.Source != "cache" ||
				len(s.ID) != 36 || s.CreatedAt == nil || s.AccessedAt == nil || s.ExpiresAt == nil {
				t.Errorf("session: %+v", s)
			}
			if put := decode[map[string]int64](c.do("DELETE", app+"/api/attributes/v", "").wants(200)); put["version"] != 12 {
				t.Errorf("DELETE answered %v, want version 12", put)
			}
			c.do("GET", app+"/api/attributes/v", "").fails(404)
			if s := c.state(app); len(s.Attributes) != 0 {
				t.Errorf("attributes after DELETE: %v", s.Attributes)
			}
		}
	})
}

func TestAttributeNames(t *testing.T) {
	onEach(t, func(t *testing.T, site *site) {
		c := site.client()
		for _, kind := range []string{"attributes", "counters"} {
			for name, word := range map[string]string{
				"": "empty", strings.Repeat("n", 256): "256", "%00": "NUL", "a%ffb": "UTF-8",
			} {
				c.do("GET", "/api/"+kind+"/"+name, "").fails(400, word)
			}
			c.do("GET", "/api/"+kind+"/a/b", "").fails(404)
			c.do("GET", "/api/"+kind, "").fails(404)
		}
		for _, name := range []string{strings.Repeat("n", 255), "a%2Fb", "%2e%2E", "A", "%20", "a%20", "%C3%BC", "%F0%9F%98%80", "session"} {
			c.do("PUT", "/api/attributes/"+name, `"`+name+`"`).wants(200)
		}
		if got := decode[map[string]string](c.do("GET", "/api/attributes/a%2Fb", "").wants(200)); got["value"] != "a%2Fb" {
			t.Errorf("a/b is %v", got)
		}
		c.do("GET", "/api/attributes/a", "").fails(404) // nothing folds or trims
		if s := c.state(""); len(s.Attributes) != 9 || s.Attributes["ü"] == nil || s.Attributes["a/b"] == nil {
			t.Errorf("attributes: %v", s.Attributes)
		}
	})
}

func TestBadValuesLoseNothing(t *testing.T) {
	onEach(t, func(t *testing.T, site *site) {
		c := site.client()
		c.do("PUT", "/api/attributes/a", `"kept"`).wants(200)
		for body, word := range map[string]string{
			"": "empty", " \n": "empty", "nope": "byte 2", "{": "not JSON", "1 2": "after top-level",
			"[1,]": "byte 4", "'a'": "not JSON", "\"\xff\"": "UTF-8", "\x00": "not JSON", "NaN": "not JSON", "\ufeff1": "not JSON",
			strings.Repeat("[", 20000): "not JSON",
		} {
			c.do("PUT", "/api/attributes/a", body).fails(400, word)
		}
		c.do("PUT", "/api/attributes/a", `"`+strings.Repeat("x", 3<<20)+`"`).fails(413, "larger")
		c.do("PUT", "/api/attributes/a", `"`+strings.Repeat("x", 1<<20)+`"`).fails(413, "does not fit")
		c.do("PUT", "/api/attributes/b", `"`+strings.Repeat("x", 1<<19)+`"`).wants(200)
		c.do("PUT", "/api/attributes/c", `"`+strings.Repeat("x", 1<<19)+`"`).fails(413, "nothing was saved")
		s := c.state("")
		if *s.Version != 2 || string(s.Attributes["a"]) != `"kept"` || s.Attributes["c"] != nil {
			t.Errorf("version %d, a is %s", *s.Version, s.Attributes["a"])
		}
		// A new session that is too large at once is not begun.
		nobody := site.client()
		a := nobody.do("PUT", "/api/attributes/a", `"`+strings.Repeat("x", 1<<20)+`"`)
		a.fails(413)
		if a.Header["Set-Cookie"] != nil || !*nobody.state("").New {
			t.Error("a session was begun")
		}
	})
}

func TestCounters(t *testing.T) {
	onEach(t, func(t *testing.T, site *site) {
		c := site.client()
		if got := decode[map[string]int64](c.do("GET", "/api/counters/n", "").wants(200)); got["value"] != 0 {
			t.Errorf("unset counter: %v", got)
		}
		for want := int64(1); want <= 3; want++ {
			if got := decode[map[string]int64](c.do("POST", "/api/counters/n", "").wants(200)); got["value"] != want {
				t.Errorf("counter: %v, want %d", got, want)
			}
		}
		if s := c.state(""); string(s.Attributes["n"]) != "3" {
			t.Errorf("attribute n is %s", s.Attributes["n"])
		}
		c.do("PUT", "/api/attributes/n", "41").wants(200)
		if got := decode[map[string]int64](c.do("POST", "/api/counters/n", "").wants(200)); got["value"] != 42 {
			t.Errorf("counter after PUT 41: %v", got)
		}
		// P13: what is no number counts as not set, until it is overwritten.
		c.do("PUT", "/api/attributes/n", `"text"`).wants(200)
		if got := decode[map[string]int64](c.do("GET", "/api/counters/n", "").wants(200)); got["value"] != 0 {
			t.Errorf("counter of a text: %v", got)
		}
		if s := c.state(""); string(s.Attributes["n"]) != `"text"` {
			t.Errorf("reading it as a counter changed it to %s", s.Attributes["n"])
		}
	})
}

// P2: every increment counts, and each request is answered with its own.
func TestP2ConcurrentCounters(t *testing.T) {
	const clients, times = 16, 20
	onEach(t, func(t *testing.T, site *site) {
		c := site.client()
		c.do("PUT", "/api/attributes/other", "1").wants(200)
		values, errs := make(chan int64, clients*times), make(chan error, clients)
		var wg sync.WaitGroup
		for range clients {
			wg.Go(func() {
				for range times {
					a, err := c.try("POST", "/api/counters/n", "")
					var got struct{ Value int64 }
					if err == nil {
						err = json.Unmarshal(a.body, &got)
					}
					if err != nil || a.StatusCode != 200 {
						errs <- fmt.Errorf("%d %s: %w", a.StatusCode, a.body, err)
						return
					}
					values <- got.Value
				}
			})
		}
		wg.Wait()
		close(values)
		close(errs)
		for err := range errs {
			t.Error(err)
		}
		seen := make(map[int64]bool)
		for v := range values {
			if seen[v] {
				t.Errorf("two requests were answered %d", v)
			}
			seen[v] = true
		}
		if got := decode[map[string]int64](c.do("GET", "/api/counters/n", "").wants(200)); got["value"] != clients*times {
			t.Errorf("counter is %v, want %d", got, clients*times)
		}
	})
}

func TestLoginKeepsSessionAndChangesSecret(t *testing.T) {
	onEach(t, func(t *testing.T, site *site) {
		c := site.client()
		c.do("PUT", "/api/attributes/a", "1").wants(200)
		before, old := c.state(""), c.token()
		login := decode[map[string]any](c.do("POST", "/api/login", `{"user":"Bob"}`).wants(200))
		after := c.state("")
		if *after.Principal != "Bob" || after.ID != before.ID || string(after.Attributes["a"]) != "1" || c.token() == old {
			t.Errorf("before %+v, after %+v", before, after)
		}
		if login["principal"] != "Bob" || login["id"] != after.ID || login["version"] != json.Number("2") {
			t.Errorf("login answered %v", login)
		}
		// P7: the token from before the login opens nothing.
		thief := site.client()
		if s := decode[state](thief.do("GET", "/api/session", "", "Cookie", "session="+old).wants(200)); !*s.New {
			t.Errorf("the old token opens %+v", s)
		}
		old = c.token()
		c.do("POST", "/api/renew", "").wants(200)
		if s := c.state(""); c.token() == old || s.ID != before.ID || *s.Principal != "Bob" {
			t.Errorf("after renewal: %+v", s)
		}
		c.do("POST", "/api/logout", "").wants(200)
		if s := c.state(""); !*s.New || c.token() != "" {
			t.Errorf("after logout: %+v", s)
		}
	})
}

// token returns the value of the client's token cookie.
func (c *client) token() string {
	for _, cookie := range c.http.Jar.Cookies(must(http.NewRequest("GET", c.url, nil)).URL) {
		if cookie.Name == "session" {
			return cookie.Value
		}
	}
	return ""
}

func TestBadLogins(t *testing.T) {
	onEach(t, func(t *testing.T, site *site) {
		c := site.client()
		for _, body := range []string{
			``, `{}`, `[]`, `null`, `"Bob"`, `{"user":""}`, `{"user":null}`, `{"user":7}`, `{"user":"Bob"`, `{"user":"Bob"} x`,
			`{"user":"` + strings.Repeat("x", 256) + `"}`, `{"user":"a\u0000"}`,
		} {
			a := c.do("POST", "/api/login", body)
			a.fails(400)
			if a.Header["Set-Cookie"] != nil {
				t.Errorf("%s set a cookie", body)
			}
		}
		c.do("POST", "/api/login", `{"user":"`+strings.Repeat("x", 255)+`"}`).wants(200)
	})
}

type device struct {
	ID, Principal, Node string
	Current             bool
	CreatedAt           time.Time  `json:"created_at"`
	AccessedAt          time.Time  `json:"accessed_at"`
	ExpiresAt           *time.Time `json:"expires_at"`
}

func (c *client) devices(app string) []device {
	c.t.Helper()
	return decode[[]device](c.do("GET", app+"/api/devices", "").wants(200))
}

func TestDevices(t *testing.T) {
	onEach(t, func(t *testing.T, site *site) {
		for _, app := range apps {
			// Byte by byte: these are three people.
			visitors := map[string][]*client{}
			for _, name := range []string{"Bob", "Bob", "Bob", "bob", "Bob "} {
				c := site.client()
				c.do("POST", app+"/api/login", `{"user":"`+name+`"}`).wants(200)
				visitors[name] = append(visitors[name], c)
			}
			first, second, third := visitors["Bob"][0], visitors["Bob"][1], visitors["Bob"][2]
			stranger := visitors["bob"][0]
			devices := first.devices(app)
			if len(devices) != 3 {
				t.Fatalf("Bob has %d devices, want 3: %+v", len(devices), devices)
			}
			for _, d := range devices {
				if d.Principal != "Bob" || d.Node != "node1" || d.Current != (d.ID == first.state(app).ID) || d.CreatedAt.IsZero() || d.AccessedAt.IsZero() || d.ExpiresAt == nil {
					t.Errorf("device: %+v", d)
				}
			}

			id := second.state(app).ID
			for _, text := range []string{stranger.state(app).ID, "0198f6a4-7f3e-7c1b-9e58-3f0d8a6b2c11", "x", strings.ToUpper(id), id + "0"} {
				first.do("DELETE", app+"/api/devices/"+text, "").fails(404)
			}
			stranger.do("DELETE", app+"/api/devices/"+id, "").fails(404)
			first.do("DELETE", app+"/api/devices/"+id, "").wants(200)
			if s := second.state(app); !*s.New {
				t.Errorf("ended device still has %+v", s)
			}
			first.do("DELETE", app+"/api/devices/"+id, "").fails(404)

			ended := decode[map[string]int](first.do("POST", app+"/api/logout-everywhere", "").wants(200))
			if ended["ended"] != 1 || !*third.state(app).New || *first.state(app).New {
				t.Errorf("log out everywhere: %v", ended)
			}
			if *stranger.state(app).New || len(visitors["Bob "][0].devices(app)) != 1 {
				t.Error("somebody else was logged out")
			}
			// An ended device can end nothing itself.
			second.do("POST", app+"/api/logout-everywhere", "").fails(401)

			id = first.state(app).ID
			first.do("DELETE", app+"/api/devices/"+id, "").wants(200)
			if s := first.state(app); !*s.New || first.token() != "" {
				t.Errorf("after ending this device: %+v", s)
			}
		}
	})
}

func TestApplicationsShareFateOnly(t *testing.T) {
	onEach(t, func(t *testing.T, site *site) {
		c := site.client()
		c.do("PUT", "/api/attributes/a", `"shop"`).wants(200)
		c.do("POST", "/api/login", `{"user":"Ada"}`).wants(200)
		c.do("PUT", "/office/api/attributes/a", `"office"`).wants(200)
		c.do("POST", "/office/api/login", `{"user":"Grace"}`).wants(200)
		shop, office := c.state(""), c.state("/office")
		if shop.ID != office.ID || *shop.Principal != "Ada" || *office.Principal != "Grace" ||
			string(shop.Attributes["a"]) != `"shop"` || string(office.Attributes["a"]) != `"office"` {
			t.Errorf("shop %+v, office %+v", shop, office)
		}
		// The same name in the other application is somebody else.
		clerk := site.client()
		clerk.do("POST", "/office/api/login", `{"user":"Ada"}`).wants(200)
		if n := len(c.devices("")); n != 1 {
			t.Errorf("Ada has %d devices in the shop, want 1", n)
		}
		c.do("DELETE", "/api/devices/"+clerk.state("/office").ID, "").fails(404)
		c.do("POST", "/api/logout-everywhere", "").wants(200)
		if *clerk.state("/office").New {
			t.Error("logging out everywhere in the shop ended a session of the office")
		}
		c.do("POST", "/office/api/logout", "").wants(200)
		if !*c.state("").New || !*c.state("/office").New || c.token() != "" {
			t.Error("the shop's session survived the office's logout")
		}
	})
}

// P3: a logout during a slow request stays a logout, and the slow one is told.
func TestP3SlowRequestRevivesNothing(t *testing.T) {
	onEach(t, func(t *testing.T, site *site) {
		c := site.client()
		c.do("PUT", "/api/attributes/a", "1").wants(200)
		slow := make(chan answer, 1)
		go func() {
			a, err := c.try("PUT", "/api/attributes/a?delay=3s", "2")
			if err != nil {
				t.Error(err)
			}
			slow <- a
		}()
		for c.stat("active_requests") == 0 {
			select {
			case a := <-slow:
				t.Fatalf("the slow request ended before it was seen in flight: %+v", a)
			case <-time.After(time.Millisecond):
			}
		}
		c.do("POST", "/api/logout", "").wants(200)
		(<-slow).fails(409, "ended")
		if s := c.state(""); !*s.New || c.token() != "" {
			t.Errorf("the session is back: %+v", s)
		}
	})
}

// P1 and its reverse: who hangs up is told nothing and loses nothing.
func TestHangUpLosesNothing(t *testing.T) {
	onEach(t, func(t *testing.T, site *site) {
		c := site.client()
		c.do("PUT", "/api/attributes/a", "1").wants(200)
		ctx, hangUp := context.WithCancel(t.Context())
		defer hangUp()
		req := must(http.NewRequestWithContext(ctx, "PUT", c.url+"/api/attributes/a?delay=3s", strings.NewReader("2")))
		hungUp := make(chan error, 1)
		go func() {
			resp, err := c.http.Do(req)
			if err == nil {
				resp.Body.Close()
			}
			hungUp <- err
		}()
		for c.stat("active_requests") == 0 {
			select {
			case err := <-hungUp:
				t.Fatalf("the slow request ended before it was seen in flight: %v", err)
			case <-time.After(time.Millisecond):
			}
		}
		hangUp()
		if err := <-hungUp; !errors.Is(err, context.Canceled) {
			t.Fatalf("the request was answered: %v", err)
		}
		for deadline := time.After(time.Minute); c.stat("active_requests") > 0; {
			select {
			case <-deadline:
				t.Fatal("the request is in flight for ever")
			case <-time.After(time.Millisecond):
			}
		}
		if s := c.state(""); string(s.Attributes["a"]) != "2" || *s.Version != 2 {
			t.Errorf("a is %s in version %d", s.Attributes["a"], *s.Version)
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

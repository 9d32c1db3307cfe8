package shop_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
)

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

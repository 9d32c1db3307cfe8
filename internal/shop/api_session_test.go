package shop_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"
)

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

// P3: a logout during a slow request stays a logout, and the slow one is told.
func TestP3SlowRequestRevivesNothing(t *testing.T) {
	t.Parallel() // it mostly waits
	onEach(t, func(t *testing.T, site *site) {
		t.Parallel()
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
	t.Parallel() // it mostly waits
	onEach(t, func(t *testing.T, site *site) {
		t.Parallel()
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

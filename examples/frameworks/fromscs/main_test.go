package main

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/alexedwards/scs/v2"
	"github.com/holdfast-sessions/holdfast/examples/frameworks/hello"
)

// Whoever was logged in before stays so, with another cookie, and the old session is
// over.
func TestCarryOver(t *testing.T) {
	sessions, err := hello.Sessions()
	if err != nil {
		t.Fatal(err)
	}
	old := scs.New()
	old.Cookie.Name = "old"
	mux := http.NewServeMux()
	mux.Handle("/", handler(old, sessions))
	mux.Handle("POST /old-login", old.LoadAndSave(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		old.Put(r.Context(), "userID", "ann")
		old.Put(r.Context(), "theme", "dark")
	})))
	server := httptest.NewServer(mux)
	defer server.Close()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Jar: jar}
	do := func(method, path string) string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s %s: %s %s %v", method, path, resp.Status, body, err)
		}
		return string(body)
	}
	want := func(want string) {
		t.Helper()
		if got := do("GET", "/"); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	want(`user "", theme ""`)
	do("POST", "/old-login")
	want(`user "ann", theme "dark"`)
	u := server.Listener.Addr().String()
	names := map[string]bool{}
	for _, cookie := range jar.Cookies(&url.URL{Scheme: "http", Host: u, Path: "/"}) {
		names[cookie.Name] = true
	}
	if names["old"] || !names["session"] {
		t.Errorf("cookies %v", names)
	}
	want(`user "ann", theme "dark"`)
	do("POST", "/logout")
	want(`user "", theme ""`)
}

// Package walk drives the same small site through whichever framework serves it.
package walk

import (
	"context"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"testing"

	"github.com/holdfast-sessions/holdfast/examples/frameworks/hello"
	"github.com/holdfast-sessions/holdfast/middleware"
)

// Walk visits a site built by handler: "/" counts visits, POST "/login" logs ann
// in, "/account" needs a login, "/fail" changes the session and then panics.
func Walk(t *testing.T, handler func(*middleware.Sessions) http.Handler) {
	t.Helper()
	sessions, err := hello.Sessions()
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler(sessions))
	defer server.Close()
	client := server.Client()
	client.Jar, _ = cookiejar.New(nil)
	for i, step := range []struct {
		method, path string
		status       int
		body         string
	}{
		{"GET", "/", 200, "visit 1"},
		{"GET", "/", 200, "visit 2"},
		{"GET", "/account", 401, "Please log in.\n"},
		{"GET", "/fail", 500, ""},
		{"POST", "/login", 200, "welcome"},
		{"GET", "/account", 200, "ann"},
		{"GET", "/", 200, "visit 3"},
		{"GET", "/nowhere", 404, ""},
	} {
		req, err := http.NewRequestWithContext(context.Background(), step.method, server.URL+step.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatalf("step %d, %s %s: %v", i, step.method, step.path, err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != step.status || step.body != "" && string(body) != step.body {
			t.Errorf("step %d, %s %s: %s %q, want %d %q", i, step.method, step.path, resp.Status, body, step.status, step.body)
		}
	}
}

package middleware_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"

	"github.com/holdfast-sessions/holdfast/idmanager"
	"github.com/holdfast-sessions/holdfast/middleware"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
)

// A counter of visits. Programs keep their sessions in one of the packages below
// sqlbackend instead, call ids.Run, and serve TLS without InsecureCookie.
func Example() {
	visits := sessionstore.NewAttr[int]("visits")
	ids, err := idmanager.New(membackend.New(), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer ids.Shutdown(context.Background())
	app, err := sessionstore.New(ids, "hello", nil)
	if err != nil {
		log.Fatal(err)
	}
	sessions, err := middleware.New(app, &middleware.Config{InsecureCookie: true})
	if err != nil {
		log.Fatal(err)
	}
	server := httptest.NewServer(sessions.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := sessionstore.FromContext(r.Context())
		visits.Update(s, func(n int) int { return n + 1 })
		n, _ := visits.Get(s)
		fmt.Fprintf(w, "Visit %d.\n", n)
	})))
	defer server.Close()

	client := server.Client()
	client.Jar, _ = cookiejar.New(nil)
	for range 3 {
		resp, err := client.Get(server.URL)
		if err != nil {
			log.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		fmt.Print(string(body))
	}
	// Output:
	// Visit 1.
	// Visit 2.
	// Visit 3.
}

// Pages behind a login, one of which never shows a stale session.
func ExampleSessions_RequirePrincipal() {
	ids, _ := idmanager.New(membackend.New(), nil)
	shop, _ := sessionstore.New(ids, "shop", nil)
	sessions, err := middleware.New(shop, &middleware.Config{
		Unauthorized: http.RedirectHandler("/login", http.StatusSeeOther),
	})
	if err != nil {
		log.Fatal(err)
	}
	account := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "Hello,", sessionstore.FromContext(r.Context()).Principal())
	})
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		// After checking the password. This also renews the session.
		sessionstore.FromContext(r.Context()).SetPrincipal(r.FormValue("user"))
	})
	mux.Handle("GET /account", sessions.RequirePrincipal(account))
	mux.Handle("GET /payment", sessions.RequireFresh(sessions.RequirePrincipal(account)))
	handler := sessions.Handler(mux)

	rec := httptest.NewRecorder()
	handler.ServeHTTP(rec, httptest.NewRequest("GET", "/account", nil))
	fmt.Println(rec.Code, rec.Header().Get("Location"))
	// Output: 303 /login
}

// Command chi serves sessions through a chi router.
package main

import (
	"fmt"
	"log"
	"net/http"

	"github.com/go-chi/chi/v5"
	chimiddleware "github.com/go-chi/chi/v5/middleware"
	"github.com/holdfast-sessions/holdfast/examples/frameworks/hello"
	"github.com/holdfast-sessions/holdfast/middleware"
	"github.com/holdfast-sessions/holdfast/sessionstore"
)

var visits = sessionstore.NewAttr[int]("visits")

func handler(sessions *middleware.Sessions) http.Handler {
	r := chi.NewRouter()
	r.Use(chimiddleware.Recoverer) // outside: a handler that panics commits nothing
	r.Use(sessions.Handler)
	r.Get("/", func(w http.ResponseWriter, r *http.Request) {
		s := sessionstore.FromContext(r.Context())
		visits.Update(s, func(n int) int { return n + 1 })
		n, _ := visits.Get(s)
		fmt.Fprintf(w, "visit %d", n)
	})
	r.Post("/login", func(w http.ResponseWriter, r *http.Request) {
		sessionstore.FromContext(r.Context()).SetPrincipal("ann")
		fmt.Fprint(w, "welcome")
	})
	r.With(sessions.RequirePrincipal).Get("/account", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, sessionstore.FromContext(r.Context()).Principal())
	})
	r.Get("/fail", func(_ http.ResponseWriter, r *http.Request) {
		visits.Set(sessionstore.FromContext(r.Context()), 1000)
		panic("oops")
	})
	return r
}

func main() {
	sessions, err := hello.Sessions()
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe("localhost:8080", handler(sessions)))
}

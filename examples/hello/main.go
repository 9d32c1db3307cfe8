// Command hello counts its visitor's visits, in sessions that outlive it.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"

	"github.com/holdfast-sessions/holdfast/idmanager"
	"github.com/holdfast-sessions/holdfast/middleware"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sqlbackend/sqlite"
)

var visits = sessionstore.NewAttr[int]("visits")

func main() {
	ctx := context.Background()
	backend := must(sqlite.Open(ctx, "sessions.db", nil))
	ids := must(idmanager.New(backend, nil))
	go ids.Run(ctx) // until ids.Shutdown, which writes back the last access times
	app := must(sessionstore.New(ids, "hello", nil))
	sessions := must(middleware.New(app, &middleware.Config{InsecureCookie: true})) // no TLS here
	http.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		s := sessionstore.FromContext(r.Context())
		visits.Update(s, func(n int) int { return n + 1 })
		n, _ := visits.Get(s)
		fmt.Fprintf(w, "Visit %d.\n", n)
	})
	log.Fatal(http.ListenAndServe("localhost:8080", sessions.Handler(http.DefaultServeMux)))
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}

// Command fromscs is an application that has moved from alexedwards/scs: whoever was
// logged in there still is. See docs/moving.md.
package main

import (
	"fmt"
	"log"
	"net/http"

	"github.com/alexedwards/scs/v2"
	"github.com/holdfast-sessions/holdfast/examples/frameworks/hello"
	"github.com/holdfast-sessions/holdfast/middleware"
	"github.com/holdfast-sessions/holdfast/sessionstore"
)

var theme = sessionstore.NewAttr[string]("theme")

// handler serves with the new sessions, and takes over the old ones. It is to be deployed
// for as long as an old session can live; then old and carryOver can go.
func handler(old *scs.SessionManager, sessions *middleware.Sessions) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		s := sessionstore.FromContext(r.Context())
		color, _ := theme.Get(s)
		fmt.Fprintf(w, "user %q, theme %q", s.Principal(), color)
	})
	mux.HandleFunc("POST /logout", func(_ http.ResponseWriter, r *http.Request) {
		sessionstore.FromContext(r.Context()).Invalidate()
	})
	return old.LoadAndSave(sessions.Handler(carryOver(old, mux)))
}

// carryOver gives a request that has an old session and no new one what the old one
// holds, and ends that. From then on the browser has the new one.
func carryOver(old *scs.SessionManager, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, s := r.Context(), sessionstore.FromContext(r.Context())
		user := old.GetString(ctx, "userID")
		if user != "" && s.IsNew() {
			s.SetPrincipal(user)
			theme.Set(s, old.GetString(ctx, "theme"))
			if err := s.Save(ctx); err != nil { // before the old one goes
				log.Print("old session not carried over: ", err)
				http.Error(w, http.StatusText(http.StatusServiceUnavailable), http.StatusServiceUnavailable)
				return
			}
		}
		if user != "" { // again if that failed before, or it would outlive the logout
			if err := old.Destroy(ctx); err != nil {
				log.Print("old session not ended: ", err)
			}
		}
		next.ServeHTTP(w, r)
	})
}

func main() {
	sessions, err := hello.Sessions()
	if err != nil {
		log.Fatal(err)
	}
	old := scs.New()
	old.Cookie.Name = "old_session" // the new one's is "session" too, without TLS
	log.Fatal(http.ListenAndServe("localhost:8080", handler(old, sessions)))
}

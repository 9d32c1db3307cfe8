// Command twoapps serves two applications of one process, a shop at / and an
// office at /office/. Each has attributes, a login and timeouts of its own; they
// share the session's ID and its end. Logging out everywhere ends a user's
// sessions in all browsers but this one, in both.
//
//	curl -c jar -b jar -d user=ann localhost:8080/login
//	curl -c jar -b jar -d item=rope localhost:8080/cart
//	curl -c jar -b jar -d user=ann localhost:8080/office/login
//	curl -c jar -b jar localhost:8080/devices
//	curl -c jar -b jar -X POST localhost:8080/logout-everywhere
//	curl -c jar -b jar -X POST localhost:8080/office/logout
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/holdfast-sessions/holdfast/idmanager"
	"github.com/holdfast-sessions/holdfast/middleware"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sqlbackend/sqlite"
)

var cart = sessionstore.NewAttr[[]string]("cart")

func main() {
	if err := serve(); err != nil {
		log.Fatal(err)
	}
}

func serve() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	backend, err := sqlite.Open(ctx, "twoapps.db", nil)
	if err != nil {
		return err
	}
	defer backend.Close()
	ids, err := idmanager.New(backend, nil)
	if err != nil {
		return err
	}
	go ids.Run(context.Background()) // until Shutdown, after the last request

	// A month in the shop, ten idle minutes in the office.
	shop, err := sessions(ids, "shop", &sessionstore.Config{IdleTimeout: -1, Lifetime: 30 * 24 * time.Hour})
	if err != nil {
		return err
	}
	office, err := sessions(ids, "office", &sessionstore.Config{IdleTimeout: 10 * time.Minute})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/", shop.Handler(shopPages(ids, shop)))
	mux.Handle("/office/", office.Handler(officePages(office)))

	server := &http.Server{Addr: "localhost:8080", Handler: mux}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	// Shutdown returns after the last response. ListenAndServe does so at once.
	if err := server.Shutdown(context.Background()); err != nil {
		return err
	}
	return ids.Shutdown(context.Background())
}

func sessions(ids *idmanager.Manager, app string, cfg *sessionstore.Config) (*middleware.Sessions, error) {
	manager, err := sessionstore.New(ids, app, cfg)
	if err != nil {
		return nil, err
	}
	return middleware.New(manager, &middleware.Config{InsecureCookie: true}) // no TLS here
}

func shopPages(ids *idmanager.Manager, shop *middleware.Sessions) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", login)
	mux.HandleFunc("POST /cart", func(w http.ResponseWriter, r *http.Request) {
		s := sessionstore.FromContext(r.Context())
		cart.Update(s, func(items []string) []string { return append(items, r.PostFormValue("item")) })
		items, _ := cart.Get(s)
		fmt.Fprintln(w, "In your cart:", items)
	})
	mux.Handle("GET /devices", shop.RequirePrincipal(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := sessionstore.FromContext(r.Context())
		for info, err := range ids.Sessions(r.Context(), s.Principal()) {
			if err != nil {
				http.Error(w, "The list could not be read.", http.StatusServiceUnavailable)
				return
			}
			fmt.Fprintln(w, info.Key.ID, "last used in the", info.Key.App, "at", info.AccessedAt.Format(time.DateTime))
		}
	})))
	mux.Handle("POST /logout-everywhere", shop.RequirePrincipal(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := sessionstore.FromContext(r.Context())
		n, err := ids.InvalidatePrincipal(r.Context(), s.Principal(), s.ID())
		if err != nil {
			http.Error(w, "Not all sessions could be ended.", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintf(w, "Logged out of %d other sessions.\n", n)
	})))
	return mux
}

func officePages(office *middleware.Sessions) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /office/login", login)
	mux.Handle("POST /office/logout", office.RequirePrincipal(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sessionstore.FromContext(r.Context()).Invalidate()
		fmt.Fprintln(w, "Logged out, of the shop too.")
	})))
	return mux
}

// login believes everybody. It also renews the session's secret, in both.
func login(w http.ResponseWriter, r *http.Request) {
	s := sessionstore.FromContext(r.Context())
	s.SetPrincipal(r.PostFormValue("user"))
	fmt.Fprintln(w, "Hello,", s.Principal())
}

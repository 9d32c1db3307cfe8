package idmanager_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"

	"github.com/holdfast-sessions/holdfast/idmanager"
	"github.com/holdfast-sessions/holdfast/middleware"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
)

// Two applications under one ID manager: one session for the client, two sets of
// attributes, one end.
func Example() {
	ids, err := idmanager.New(membackend.New(), &idmanager.Config{Node: "node1"})
	if err != nil {
		log.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- ids.Run(context.Background()) }()

	shop, office := application(ids, "shop"), application(ids, "office")
	mux := http.NewServeMux()
	mux.Handle("/", shop.Handler(http.HandlerFunc(page)))
	mux.Handle("/office/", office.Handler(http.HandlerFunc(page)))
	server := httptest.NewServer(mux)
	client := server.Client()
	client.Jar, _ = cookiejar.New(nil)
	for _, path := range []string{"/count", "/count", "/office/count", "/office/logout", "/count"} {
		fmt.Println(path, get(client, server.URL+path))
	}

	server.Close()                                             // first the requests,
	if err := ids.Shutdown(context.Background()); err != nil { // then what they left
		log.Fatal(err)
	}
	fmt.Println("Run returned", <-done)
	// Output:
	// /count 1
	// /count 2
	// /office/count 1
	// /office/logout bye
	// /count 1
	// Run returned <nil>
}

// Log out everywhere else.
func ExampleManager_InvalidatePrincipal() {
	ctx := context.Background()
	ids, err := idmanager.New(membackend.New(), nil)
	if err != nil {
		log.Fatal(err)
	}
	server := httptest.NewServer(application(ids, "shop").Handler(http.HandlerFunc(page)))
	defer server.Close()
	for range 3 { // devices
		client := server.Client()
		client.Jar, _ = cookiejar.New(nil)
		get(client, server.URL+"/login")
	}

	var this sessionstore.ID
	for info, err := range ids.Sessions(ctx, "ann") {
		if err != nil {
			log.Fatal(err)
		}
		this = info.Key.ID
	}
	n, err := ids.InvalidatePrincipal(ctx, "ann", this)
	if err != nil {
		log.Fatal(err)
	}
	left := 0
	for _, err := range ids.Sessions(ctx, "ann") {
		if err != nil {
			log.Fatal(err)
		}
		left++
	}
	fmt.Println(n, "ended,", left, "left")
	// Output: 2 ended, 1 left
}

func application(ids *idmanager.Manager, name string) *middleware.Sessions {
	manager, err := sessionstore.New(ids, name, nil)
	if err != nil {
		log.Fatal(err)
	}
	sessions, err := middleware.New(manager, &middleware.Config{InsecureCookie: true})
	if err != nil {
		log.Fatal(err)
	}
	return sessions
}

var visits = sessionstore.NewAttr[int]("visits")

// page counts, logs in or logs out, as the end of the path says.
func page(w http.ResponseWriter, r *http.Request) {
	s := sessionstore.FromContext(r.Context())
	switch {
	case strings.HasSuffix(r.URL.Path, "/login"):
		s.SetPrincipal("ann")
	case strings.HasSuffix(r.URL.Path, "/logout"):
		s.Invalidate()
		fmt.Fprint(w, "bye")
	default:
		visits.Update(s, func(n int) int { return n + 1 })
		n, _ := visits.Get(s)
		fmt.Fprint(w, n)
	}
}

func get(client *http.Client, url string) (body string) {
	resp, err := client.Get(url)
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	fmt.Fscan(resp.Body, &body)
	return body
}

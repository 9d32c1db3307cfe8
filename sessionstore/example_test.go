package sessionstore_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"time"

	"github.com/holdfast-sessions/holdfast/idmanager"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
)

// What package middleware does for each request: begin, let the handler work, and
// commit before the response's first byte leaves.
func Example() {
	ctx := context.Background()
	visits := sessionstore.NewAttr[int]("visits")
	ids, err := idmanager.New(membackend.New(), nil)
	if err != nil {
		log.Fatal(err)
	}
	app, err := sessionstore.New(ids, "hello", nil)
	if err != nil {
		log.Fatal(err)
	}

	var cookies sessionstore.Claim // what the client holds
	for range 3 {
		s, err := app.Begin(ctx, cookies)
		if err != nil {
			log.Fatal(err)
		}
		visits.Update(s, func(n int) int { return n + 1 })
		n, _ := visits.Get(s)
		told, err := app.Commit(ctx, s)
		app.Release(s)
		if err != nil {
			log.Fatal(err)
		}
		if !told.Token.IsZero() {
			cookies.Token = told.Token
		}
		cookies.Version = told.Version
		fmt.Printf("visit %d, version %d\n", n, told.Version)
	}
	// Output:
	// visit 1, version 1
	// visit 2, version 2
	// visit 3, version 3
}

// onSession runs f as a request of a new client's would, and commits.
func onSession(cfg *sessionstore.Config, f func(*sessionstore.Session)) error {
	ctx := context.Background()
	ids, err := idmanager.New(membackend.New(), nil)
	if err != nil {
		return err
	}
	app, err := sessionstore.New(ids, "shop", cfg)
	if err != nil {
		return err
	}
	s, err := app.Begin(ctx, sessionstore.Claim{})
	if err != nil {
		return err
	}
	defer app.Release(s)
	f(s)
	_, err = app.Commit(ctx, s)
	return err
}

// A test of a handler alone, without middleware: the session is begun by hand, and what
// the handler has changed is read from it. Package middleware's example is a test with
// cookies and commits.
func ExampleNewContext() {
	visits := sessionstore.NewAttr[int]("visits")
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := sessionstore.FromContext(r.Context())
		visits.Update(s, func(n int) int { return n + 1 })
		fmt.Fprintf(w, "Hello, %s.", s.Principal())
	})

	ids, err := idmanager.New(membackend.New(), nil)
	if err != nil {
		log.Fatal(err)
	}
	app, err := sessionstore.New(ids, "shop", nil)
	if err != nil {
		log.Fatal(err)
	}
	s, err := app.Begin(context.Background(), sessionstore.Claim{})
	if err != nil {
		log.Fatal(err)
	}
	defer app.Release(s)
	s.SetPrincipal("ann") // logged in before
	visits.Set(s, 1)

	r := httptest.NewRequest("GET", "/", nil)
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r.WithContext(sessionstore.NewContext(r.Context(), s)))
	n, _ := visits.Get(s)
	fmt.Println(w.Body, n)
	// Output: Hello, ann. 2
}

// A cart, changed so that nothing is lost when two tabs add to it at once.
func ExampleAttr_Update() {
	type Cart struct{ Items []string }
	cart := sessionstore.NewAttr[Cart]("cart")
	add := func(s *sessionstore.Session, item string) {
		cart.Update(s, func(c Cart) Cart {
			c.Items = append(c.Items, item)
			return c
		})
	}
	err := onSession(nil, func(s *sessionstore.Session) {
		add(s, "rope")
		add(s, "lantern")
		c, _ := cart.Get(s)
		fmt.Println(c.Items)
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output: [rope lantern]
}

// A message that the next page shows, once.
func ExampleAttr_Take() {
	flash := sessionstore.NewAttr[string]("flash")
	err := onSession(nil, func(s *sessionstore.Session) {
		flash.Set(s, "Saved.")
		for range 2 {
			message, ok := flash.Take(s)
			fmt.Printf("%q %t\n", message, ok)
		}
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// "Saved." true
	// "" false
}

// A value that no longer decodes as its type counts as not set.
func ExampleAttr_Get() {
	count := sessionstore.NewAttr[int]("count")
	countAsText := sessionstore.NewAttr[string]("count") // a type it had once
	quiet := slog.New(slog.DiscardHandler)               // it would be logged
	err := onSession(&sessionstore.Config{Logger: quiet}, func(s *sessionstore.Session) {
		countAsText.Set(s, "three")
		_, ok := count.Get(s)
		fmt.Println(ok)
		text, ok := countAsText.Get(s)
		fmt.Println(text, ok)
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// false
	// three true
}

// Logging in renews the session's secret; its ID stays.
func ExampleSession_SetPrincipal() {
	err := onSession(nil, func(s *sessionstore.Session) {
		before := s.ID()
		s.SetPrincipal("ann")
		fmt.Println(s.Principal(), s.ID() == before)
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output: ann true
}

// A session beyond its limit is refused when it is committed.
func ExampleConfig_maxDataBytes() {
	note := sessionstore.NewAttr[string]("note")
	err := onSession(&sessionstore.Config{MaxDataBytes: 16}, func(s *sessionstore.Session) {
		note.Set(s, "longer than that, certainly")
	})
	fmt.Println(errors.Is(err, sessionstore.ErrTooLarge))
	// Output: true
}

// To rotate keys, put the new one in front and keep the old one for as long as
// sessions sealed under it live.
func ExampleEncrypted() {
	newKey, oldKey := make([]byte, sessionstore.EncryptionKeyBytes), make([]byte, sessionstore.EncryptionKeyBytes)
	rand.Read(newKey) // from a secret store, in a program
	rand.Read(oldKey)
	codec, err := sessionstore.Encrypted(sessionstore.JSON{}, newKey, oldKey)
	if err != nil {
		log.Fatal(err)
	}
	card := sessionstore.NewAttr[string]("card")
	err = onSession(&sessionstore.Config{Codec: codec}, func(s *sessionstore.Session) {
		card.Set(s, "1234")
		fmt.Println(card.Get(s))
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output: 1234 true
}

// Listeners are called after the database has changed.
func ExampleListener() {
	visits := sessionstore.NewAttr[int]("visits")
	err := onSession(&sessionstore.Config{
		Lifetime: 8 * time.Hour,
		Listeners: []sessionstore.Listener{{
			Created: func(_ context.Context, e sessionstore.SessionEvent) {
				fmt.Println("created in", e.Info.Key.App, "for", e.Info.Lifetime)
			},
			AttributeChanged: func(_ context.Context, e sessionstore.AttributeEvent) {
				before, _ := visits.Get(e.Before)
				after, _ := visits.Get(e.After)
				fmt.Println(e.Name, "from", before, "to", after)
			},
		}},
	}, func(s *sessionstore.Session) { visits.Set(s, 1) })
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// created in shop for 8h0m0s
	// visits from 0 to 1
}

// A token keeps its secret to itself, whoever prints it.
func ExampleToken() {
	id, err := sessionstore.ParseID("0198f6a4-7f3e-7c1b-9e58-3f0d8a6b2c11")
	if err != nil {
		log.Fatal(err)
	}
	token := sessionstore.NewToken(id, "node1")
	fmt.Println(token)
	fmt.Printf("%+v\n", struct{ Token sessionstore.Token }{token})
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	logger.Info("request", "token", token, "id", token.ID())
	fmt.Println(len(token.Reveal()), token.Route())
	// Output:
	// REDACTED
	// {Token:REDACTED}
	// level=INFO msg=request token=REDACTED id=0198f6a4-7f3e-7c1b-9e58-3f0d8a6b2c11
	// 49 node1
}

// Command fromscs is a shop that has moved from alexedwards/scs: whoever was logged in
// there still is, and keeps the cart. To try it, log in on http://localhost:8080/old/,
// which is the shop as a node of the old version serves it, and go on at
// http://localhost:8080/. See docs/moving.md.
package main

import (
	"context"
	"encoding/gob"
	"html/template"
	"log"
	"net/http"

	"github.com/alexedwards/scs/v2"
	"github.com/holdfast-sessions/holdfast/examples/frameworks/hello"
	"github.com/holdfast-sessions/holdfast/middleware"
	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// A Cart says how many there are of each item.
type Cart map[string]int

var cart = sessionstore.NewAttr[Cart]("cart")

// carryOver gives a request that has an old session and no new one what the old one
// holds, and ends the old one only when a request presents the new one. Until then the
// answer that brings it may be lost, and requests be under way that know the old one only.
func carryOver(old *scs.SessionManager, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, s := r.Context(), sessionstore.FromContext(r.Context())
		user := old.GetString(ctx, "userID")
		switch {
		case len(old.Keys(ctx)) == 0: // there is none
		case !s.IsNew() && (user == "" || user == s.Principal()): // the browser holds the new one
			if err := old.Destroy(ctx); err != nil {
				log.Print("old session not ended, the next request tries again: ", err)
			}
		default:
			if !s.IsNew() { // somebody else's: the old login is the later one, on a node of the old version
				s.Invalidate()
			}
			if user != "" {
				s.SetPrincipal(user)
			}
			if c, ok := old.Get(ctx, "cart").(Cart); ok {
				cart.Set(s, c)
			}
		}
		next.ServeHTTP(w, r)
	})
}

// endOld ends all old sessions of a user.
func endOld(ctx context.Context, old *scs.SessionManager, user string) error {
	return old.Iterate(ctx, func(ctx context.Context) error {
		if old.GetString(ctx, "userID") != user {
			return nil
		}
		return old.Destroy(ctx)
	})
}

// shop serves with the new sessions. What logs in or out ends the old session first: it
// would be carried over again.
func shop(old *scs.SessionManager, app *sessionstore.Manager) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		s := sessionstore.FromContext(r.Context())
		c, _ := cart.Get(s)
		render(w, "new", s.Principal(), c)
	})
	mux.HandleFunc("POST /cart", func(w http.ResponseWriter, r *http.Request) {
		cart.Update(sessionstore.FromContext(r.Context()), func(c Cart) Cart { return c.with(r.FormValue("item")) })
		back(w, r, nil)
	})
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		s, user := sessionstore.FromContext(r.Context()), r.FormValue("user")
		err := old.Destroy(r.Context())
		if err == nil {
			if p := s.Principal(); p != "" && p != user {
				s.Invalidate() // a guest's cart is his, another user's is not
			}
			s.SetPrincipal(user)
		}
		back(w, r, err)
	})
	mux.HandleFunc("POST /logout", func(w http.ResponseWriter, r *http.Request) {
		err := old.Destroy(r.Context())
		sessionstore.FromContext(r.Context()).Invalidate()
		back(w, r, err)
	})
	mux.HandleFunc("POST /logout-everywhere", func(w http.ResponseWriter, r *http.Request) {
		s := sessionstore.FromContext(r.Context())
		user := s.Principal()
		if user == "" {
			back(w, r, nil)
			return
		}
		err := endOld(r.Context(), old, user) // first: from then on none is carried over
		if err == nil {
			_, err = app.InvalidatePrincipal(r.Context(), user)
		}
		s.Invalidate() // or its changes would be refused
		back(w, r, err)
	})
	return mux
}

// oldShop serves below /old/ as the shop did before.
func oldShop(old *scs.SessionManager) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /old/{$}", func(w http.ResponseWriter, r *http.Request) {
		c, _ := old.Get(r.Context(), "cart").(Cart)
		render(w, "old", old.GetString(r.Context(), "userID"), c)
	})
	mux.HandleFunc("POST /old/cart", func(w http.ResponseWriter, r *http.Request) {
		c, _ := old.Get(r.Context(), "cart").(Cart)
		old.Put(r.Context(), "cart", c.with(r.FormValue("item")))
		back(w, r, nil)
	})
	mux.HandleFunc("POST /old/login", func(w http.ResponseWriter, r *http.Request) {
		err := old.RenewToken(r.Context())
		old.Put(r.Context(), "userID", r.FormValue("user"))
		back(w, r, err)
	})
	mux.HandleFunc("POST /old/logout", func(w http.ResponseWriter, r *http.Request) {
		back(w, r, old.Destroy(r.Context()))
	})
	return old.LoadAndSave(mux)
}

func (c Cart) with(item string) Cart {
	if c == nil {
		c = Cart{}
	}
	c[item]++
	return c
}

// back ends a request that changes something.
func back(w http.ResponseWriter, r *http.Request, err error) {
	if err != nil {
		log.Print(r.URL.Path, ": ", err)
		http.Error(w, http.StatusText(http.StatusServiceUnavailable), http.StatusServiceUnavailable)
		return
	}
	http.Redirect(w, r, "./", http.StatusSeeOther)
}

var page = template.Must(template.New("").Parse(`<!DOCTYPE html>
<p>{{.Library}}: user {{.User}}, cart {{.Cart}}</p>
<form method="post">
<button formaction="cart" name="item" value="rope">add a rope</button>
<button formaction="login" name="user" value="ann">log in as ann</button>
<button formaction="login" name="user" value="bob">log in as bob</button>
<button formaction="logout">log out</button>
{{if eq .Library "new"}}<button formaction="logout-everywhere">log out everywhere</button>{{end}}
</form>
<p><a href="/">new</a> <a href="/old/">old</a></p>
`))

func render(w http.ResponseWriter, library, user string, c Cart) {
	if user == "" {
		user = "nobody"
	}
	if err := page.Execute(w, map[string]any{"Library": library, "User": user, "Cart": c}); err != nil {
		log.Print(err)
	}
}

// oldSessions is the old library's manager.
func oldSessions() *scs.SessionManager {
	gob.Register(Cart{})
	old := scs.New()
	old.Cookie.Name = "old_session" // what the old version calls it; without TLS the new one's is "session" too
	old.IdleTimeout = 0             // whatever it was before: now nothing prolongs an old session, or revives it
	return old
}

func main() {
	app, err := hello.App()
	if err != nil {
		log.Fatal(err)
	}
	sessions, err := middleware.New(app, &middleware.Config{InsecureCookie: true}) // no TLS here
	if err != nil {
		log.Fatal(err)
	}
	old := oldSessions()
	http.Handle("/old/", oldShop(old))
	http.Handle("/", old.LoadAndSave(sessions.Handler(carryOver(old, shop(old, app)))))
	log.Fatal(http.ListenAndServe("localhost:8080", nil))
}

package main

import (
	"encoding/gob"
	"net/http"

	"github.com/gorilla/sessions"
)

type gorillaVisit struct {
	s *sessions.Session
	w http.ResponseWriter
	r *http.Request
	// changed says that the session must be saved before the body: gorilla leaves
	// that to the handler.
	changed bool
}

func (v *gorillaVisit) start(c Content) {
	v.s.Values["user"], v.s.Values["count"], v.s.Values["cart"] = c.User, c.Count, c.Cart
	v.changed = true
}
func (v *gorillaVisit) user() string { s, _ := v.s.Values["user"].(string); return s }
func (v *gorillaVisit) count() int   { n, _ := v.s.Values["count"].(int); return n }
func (v *gorillaVisit) cart() Cart   { c, _ := v.s.Values["cart"].(Cart); return c }
func (v *gorillaVisit) increment()   { v.s.Values["count"], v.changed = v.count()+1, true }

func (v *gorillaVisit) store() error {
	if !v.changed {
		return nil
	}
	return v.s.Save(v.r, v.w)
}

// newGorilla returns the shop on gorilla/sessions with its FilesystemStore: the
// one of its two stores that keeps the data on the server. Nothing is synced to
// the disk.
func newGorilla(dir string) http.Handler {
	gob.Register(Cart{})
	store := sessions.NewFilesystemStore(dir, []byte("0123456789abcdef0123456789abcdef"))
	store.MaxLength(1 << 16)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s, err := store.Get(r, "session")
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		shop(w, r.URL.Path, &gorillaVisit{s: s, w: w, r: r})
	})
}

package shop

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"strings"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

//go:embed pages static
var files embed.FS

// templates holds one set per page: the layout with that page's "content".
var templates = parseTemplates()

func parseTemplates() map[string]*template.Template {
	funcs := template.FuncMap{"asset": asset, "clock": clock, "euros": euros}
	layout := template.Must(template.New("layout.html").Funcs(funcs).ParseFS(files, "pages/layout.html"))
	names, err := fs.Glob(files, "pages/*.html")
	if err != nil {
		panic(err)
	}
	set := make(map[string]*template.Template)
	for _, name := range names {
		page := strings.TrimSuffix(strings.TrimPrefix(name, "pages/"), ".html")
		if page != "layout" {
			set[page] = template.Must(template.Must(layout.Clone()).ParseFS(files, name))
		}
	}
	return set
}

// assetVersion changes whenever an embedded file does, so that browsers may keep
// what they have for good.
var assetVersion = func() string {
	h := sha256.New()
	err := fs.WalkDir(files, "static", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := files.ReadFile(path)
		fmt.Fprintf(h, "%s %d\n%s", path, len(b), b)
		return err
	})
	if err != nil {
		panic(err)
	}
	return hex.EncodeToString(h.Sum(nil)[:6])
}()

// asset returns the URL of a file in static.
func asset(name string) string { return "/static/" + name + "?v=" + assetVersion }

func serveStatic(w http.ResponseWriter, r *http.Request) {
	if strings.HasSuffix(r.URL.Path, "/") { // no listings
		http.NotFound(w, r)
		return
	}
	if r.URL.Query().Get("v") == assetVersion {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	http.FileServerFS(files).ServeHTTP(w, r)
}

// A clock renders a time for people; the machine's form stands beside it in the page.
func clock(t time.Time) string { return t.UTC().Format("2 Jan 2006, 15:04:05 UTC") }

func euros(cents int) string { return fmt.Sprintf("€ %d.%02d", cents/100, cents%100) }

// A page is what a handler gives to render.
type page struct {
	name    string // of the template
	title   string
	section string // the entry of the navigation it belongs to
	status  int    // 0 means 200
	content any
}

// A view is what the layout is given.
type view struct {
	Title, Section string
	Office         bool
	Principal      string
	CartItems      int
	Flash          string
	Inspector      *inspector  // nil on pages without a session
	Panel          *nodesPanel // nil without a cluster
	Content        any
}

// An inspector is the panel that shows how this page came about.
type inspector struct {
	Node       string
	ID         string // "" if nothing is stored
	Version    sessionstore.Version
	Source     string
	Statements int64
	API        string // prefix of the JSON interface
}

// flash is a message to be shown once, on the page after the redirect.
var flash = sessionstore.NewAttr[string]("flash")

// render answers with a page of the session's own.
func (a *application) render(w http.ResponseWriter, r *http.Request, p page) {
	s := sessionstore.FromContext(r.Context())
	message, _ := flash.Take(s)
	items := 0
	if a == a.site.shop {
		contents, _ := cart.Get(s)
		items = contents.items()
	}
	// The middleware would commit the taken message anyway; committing here lets
	// the page show the version that this very request has stored.
	if err := s.Save(r.Context()); err != nil {
		s.Discard()
		a.refuse(w, r, err)
		return
	}
	v := view{
		Title: p.title, Section: p.section, Office: a == a.site.office,
		Principal: s.Principal(), CartItems: items, Flash: message,
		Inspector: &inspector{
			Node: a.sessions.Node(), Version: s.Version(), Source: s.Source().String(),
			Statements: a.site.cfg.Statements(), API: a.base + "/api",
		},
		Panel:   panel(r, a.site.cfg.Cluster, a.sessions.Node(), a.site.cfg.Logger),
		Content: p.content,
	}
	if !s.IsNew() {
		v.Inspector.ID = s.ID().String()
	}
	write(w, p.name, p.status, v)
}

// errorPage answers with a page that needs no session.
func (a *application) errorPage(w http.ResponseWriter, status int, message string) {
	write(w, "error", status, view{
		Title: http.StatusText(status), Office: a == a.site.office,
		Content: errorContent(status, message),
	})
}

func errorContent(status int, message string) any {
	return map[string]any{"Status": status, "Message": strings.ToUpper(message[:1]) + message[1:] + "."}
}

func write(w http.ResponseWriter, name string, status int, v view) {
	var buf bytes.Buffer
	if err := templates[name].ExecuteTemplate(&buf, "layout.html", v); err != nil {
		panic(err) // a mistake in a template; net/http contains it
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store") // somebody's own, and not to come back after a logout
	if status != 0 {
		w.WriteHeader(status)
	}
	w.Write(buf.Bytes())
}

// back redirects a browser after a POST, with a message for the page it gets.
func back(w http.ResponseWriter, r *http.Request, path, message string) {
	if message != "" {
		flash.Set(sessionstore.FromContext(r.Context()), message)
	}
	http.Redirect(w, r, path, http.StatusSeeOther)
}

package shop

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

const (
	maxNotes     = 20
	maxNoteBytes = 500
)

// The office's attributes. The shop has a session of the same ID and cannot see
// them, nor can the office see the cart.
var (
	packed  = sessionstore.NewAttr[[]string]("packed")       // numbers of orders
	clicks  = sessionstore.NewAttr[int64]("packed_in_total") // counts also what was unpacked again
	remarks = sessionstore.NewAttr[[]string]("notes")
)

// An order waits to be packed. The orders are as real as the shop.
type order struct {
	Number, Customer, Content string
	Packed                    bool
}

var orders = []order{
	{Number: "1042", Customer: "Ines Moreau", Content: "2 × Hemp rope, 1 × Pocket anchor"},
	{Number: "1043", Customer: "Jonas Albrecht", Content: "1 × Storm lantern"},
	{Number: "1044", Customer: "Mira Okafor", Content: "4 × Enamel mug, 1 × Signal pennant"},
	{Number: "1045", Customer: "Leif Dahl", Content: "1 × Spyglass"},
}

// officeRoutes are the paths of the office that have its session.
func (site *Site) officeRoutes() http.Handler {
	a := site.office
	mux := http.NewServeMux()
	a.addAPI(mux)
	mux.HandleFunc("GET /office/login", a.showLogin)
	mux.HandleFunc("POST /office/login", a.postLogin)
	mux.HandleFunc("POST /office/logout", site.postOfficeLogout)
	mux.Handle("GET /office/{$}", a.loggedIn(site.showOffice))
	mux.Handle("POST /office/orders/{number}", a.loggedIn(site.postPacked))
	mux.Handle("POST /office/notes", a.loggedIn(site.postNote))
	mux.Handle("POST /office/notes/clear", a.loggedIn(site.postClearNotes))
	mux.HandleFunc("/", a.notFound)
	return mux
}

func (site *Site) showOffice(w http.ResponseWriter, r *http.Request) {
	s := sessionstore.FromContext(r.Context())
	done, _ := packed.Get(s)
	list := slices.Clone(orders)
	for i := range list {
		list[i].Packed = slices.Contains(done, list[i].Number)
	}
	total, _ := clicks.Get(s)
	notes, _ := remarks.Get(s)
	site.office.render(w, r, page{name: "office", title: "Orders to pack", section: "office", content: map[string]any{
		"Orders": list, "Total": total, "Notes": notes, "MaxNoteBytes": maxNoteBytes,
	}})
}

// postPacked packs an order, or unpacks it again.
func (site *Site) postPacked(w http.ResponseWriter, r *http.Request) {
	number := r.PathValue("number")
	if !slices.ContainsFunc(orders, func(o order) bool { return o.Number == number }) {
		site.office.deny(w, r, http.StatusNotFound, "there is no such order")
		return
	}
	pack := formValue(w, r, "packed") == "yes"
	s := sessionstore.FromContext(r.Context())
	packed.Update(s, func(done []string) []string {
		done = slices.DeleteFunc(done, func(n string) bool { return n == number })
		if pack {
			done = append(done, number)
		}
		return done
	})
	message := "Order " + number + " is back on the list."
	if pack {
		clicks.Update(s, func(n int64) int64 { return n + 1 })
		message = "Order " + number + " is packed."
	}
	back(w, r, "/office/", message)
}

func (site *Site) postNote(w http.ResponseWriter, r *http.Request) {
	note := strings.TrimSpace(strings.ToValidUTF8(formValue(w, r, "note"), ""))
	if note == "" || len(note) > maxNoteBytes {
		site.office.deny(w, r, http.StatusUnprocessableEntity, fmt.Sprintf("a note has some text, but not more than %d bytes", maxNoteBytes))
		return
	}
	remarks.Update(sessionstore.FromContext(r.Context()), func(notes []string) []string {
		notes = append(notes, note)
		return notes[max(0, len(notes)-maxNotes):]
	})
	back(w, r, "/office/", "Noted.")
}

func (site *Site) postClearNotes(w http.ResponseWriter, r *http.Request) {
	remarks.Delete(sessionstore.FromContext(r.Context()))
	back(w, r, "/office/", "The notes are gone.")
}

// postOfficeLogout ends the session in both applications: they share its fate.
func (site *Site) postOfficeLogout(w http.ResponseWriter, r *http.Request) {
	sessionstore.FromContext(r.Context()).Invalidate()
	back(w, r, "/office/login", "You are logged out of the back office, and your shop session has ended with it.")
}

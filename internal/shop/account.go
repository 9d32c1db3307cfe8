package shop

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// shopRoutes are the paths of the shop that have its session.
func (site *Site) shopRoutes() http.Handler {
	a := site.shop
	mux := http.NewServeMux()
	a.addAPI(mux)
	mux.HandleFunc("GET /{$}", site.showCatalog)
	mux.HandleFunc("GET /cart", site.showCart)
	mux.HandleFunc("POST /cart/{product}/add", site.addToCart)
	mux.HandleFunc("POST /cart/{product}", site.setQuantity)
	mux.HandleFunc("POST /cart/empty", site.emptyCart)
	mux.HandleFunc("GET /login", a.showLogin)
	mux.HandleFunc("POST /login", a.postLogin)
	mux.HandleFunc("POST /logout", site.postLogout)
	mux.Handle("GET /devices", a.wrap.RequireFresh(a.loggedIn(site.showDevices)))
	mux.Handle("POST /devices/{id}/end", a.wrap.RequireFresh(a.loggedIn(site.postEndDevice)))
	mux.Handle("POST /logout-everywhere", a.wrap.RequireFresh(a.loggedIn(site.postLogoutEverywhere)))
	mux.HandleFunc("/", a.notFound)
	return mux
}

func (a *application) notFound(w http.ResponseWriter, r *http.Request) {
	a.deny(w, r, http.StatusNotFound, "there is nothing at this address")
}

// loggedIn sends whoever is not logged in to the login page.
func (a *application) loggedIn(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if sessionstore.FromContext(r.Context()).Principal() == "" {
			http.Redirect(w, r, a.base+"/login", http.StatusSeeOther)
			return
		}
		next(w, r)
	})
}

func (a *application) showLogin(w http.ResponseWriter, r *http.Request) {
	a.render(w, r, a.loginPage(http.StatusOK, "", ""))
}

func (a *application) loginPage(status int, name, problem string) page {
	title := "Log in"
	if a == a.site.office {
		title = "Log in to the back office"
	}
	return page{name: "login", title: title, section: "account", status: status, content: map[string]any{
		"Action": a.base + "/login", "Name": name, "Problem": problem, "MaxBytes": sessionstore.MaxNameBytes,
	}}
}

// postLogin binds the principal. That replaces the session's secret, so that a
// token planted before the login is worth nothing after it (P7); ID and cart stay.
func (a *application) postLogin(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimSpace(formValue(w, r, "name"))
	problem := ""
	if name == "" {
		problem = "Please enter a name."
	} else if err := sessionstore.ValidatePrincipal(name); err != nil {
		problem = "Please choose another name: this one is too long or has characters that no name has."
	}
	if problem != "" {
		a.render(w, r, a.loginPage(http.StatusUnprocessableEntity, name, problem))
		return
	}
	sessionstore.FromContext(r.Context()).SetPrincipal(name)
	back(w, r, a.base+"/", "Welcome, "+name+".")
}

func (site *Site) postLogout(w http.ResponseWriter, r *http.Request) {
	sessionstore.FromContext(r.Context()).Invalidate()
	back(w, r, "/", "You are logged out. Your session has ended, in the back office too.")
}

func (site *Site) showDevices(w http.ResponseWriter, r *http.Request) {
	devices, err := site.shop.listDevices(r.Context(), sessionstore.FromContext(r.Context()))
	if err != nil {
		site.shop.refuse(w, r, err)
		return
	}
	slices.SortStableFunc(devices, func(a, b device) int { // this one first
		switch {
		case a.Current:
			return -1
		case b.Current:
			return 1
		}
		return 0
	})
	site.shop.render(w, r, page{name: "devices", title: "Your devices", section: "devices", content: devices})
}

func (site *Site) postEndDevice(w http.ResponseWriter, r *http.Request) {
	s := sessionstore.FromContext(r.Context())
	if r.PathValue("id") == s.ID().String() { // not offered on the page, but it can be posted
		site.postLogout(w, r)
		return
	}
	if err := site.shop.end(r.Context(), s, r.PathValue("id")); err != nil {
		site.shop.refuse(w, r, err)
		return
	}
	back(w, r, "/devices", "That device is logged out.")
}

func (site *Site) postLogoutEverywhere(w http.ResponseWriter, r *http.Request) {
	n, err := site.shop.endOthers(r.Context(), sessionstore.FromContext(r.Context()))
	if err != nil {
		site.shop.refuse(w, r, err)
		return
	}
	message := "There was no other device to log out."
	switch {
	case n == 1:
		message = "One other device is logged out."
	case n > 1:
		message = strconv.Itoa(n) + " other devices are logged out."
	}
	back(w, r, "/devices", message)
}

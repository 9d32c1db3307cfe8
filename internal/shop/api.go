package shop

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// maxDelay bounds ?delay, and so how long a shutdown waits for requests.
const maxDelay = 10 * time.Second

// An action reads an API request and changes the session in memory. What finish
// it returns runs after the commit and says what to answer. Between the two the
// request waits for its ?delay.
type action func(r *http.Request, s *sessionstore.Session) (finish, error)

type finish func(ctx context.Context) (answer any, err error)

// addAPI adds the JSON interface to an application's routes. Scripts rely on it:
//
//	GET    session            see sessionAnswer
//	GET    attributes/{name}  {"value"}, 404 if it is not set
//	PUT    attributes/{name}  any JSON value; {"version"}
//	DELETE attributes/{name}  {"version"}
//	GET    counters/{name}    {"value"}, 0 if it is not set
//	POST   counters/{name}    adds 1; {"value"}
//	POST   login              {"user"}; {"id", "principal", "version"}
//	POST   logout, renew      {"id", "principal", "version"}
//	GET    devices            a list, see device
//	DELETE devices/{id}       {"ended": id}, 404 if it is not a device of the caller's
//	POST   logout-everywhere  {"ended": number}, without this one
//	GET    stats              see statsAnswer; without a session
//
// Versions and values are the committed ones. Errors are {"error": text}.
func (a *application) addAPI(mux *http.ServeMux) {
	api := a.base + "/api/"
	mux.Handle(api+"session", methods{http.MethodGet: a.api(a.session)})
	mux.Handle(api+"login", methods{http.MethodPost: a.api(a.login)})
	mux.Handle(api+"logout", methods{http.MethodPost: a.api(a.logout)})
	mux.Handle(api+"renew", methods{http.MethodPost: a.api(a.renew)})

	attributes := methods{
		http.MethodGet:    a.api(a.attribute),
		http.MethodPut:    a.api(a.putAttribute),
		http.MethodDelete: a.api(a.deleteAttribute),
	}
	mux.Handle(api+"attributes/{name}", attributes)
	mux.Handle(api+"attributes/{$}", attributes) // the empty name, which is refused
	counters := methods{
		http.MethodGet:  a.api(a.counter),
		http.MethodPost: a.api(a.addToCounter),
	}
	mux.Handle(api+"counters/{name}", counters)
	mux.Handle(api+"counters/{$}", counters)

	// A device that was logged out elsewhere must not log out others, so these
	// confirm with the database first.
	mux.Handle(api+"devices", methods{http.MethodGet: a.wrap.RequireFresh(a.api(a.devices))})
	mux.Handle(api+"devices/{id}", methods{http.MethodDelete: a.wrap.RequireFresh(a.api(a.endDevice))})
	mux.Handle(api+"logout-everywhere", methods{http.MethodPost: a.wrap.RequireFresh(a.api(a.logoutEverywhere))})

	nothing := func(w http.ResponseWriter, r *http.Request) {
		writeError(w, http.StatusNotFound, "no such endpoint")
	}
	// The last three because the mux would redirect them to a path with a slash.
	for _, path := range []string{api, a.base + "/api", api + "attributes", api + "counters"} {
		mux.HandleFunc(path, nothing)
	}
}

// api serves an action. It commits itself, where a page would leave that to the
// middleware, because the answer tells what was committed.
func (a *application) api(act action) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := sessionstore.FromContext(r.Context())
		answer, err := perform(r, s, act)
		if err != nil {
			s.Discard()
			a.refuse(w, r, err)
			return
		}
		writeJSON(w, http.StatusOK, answer)
	})
}

func perform(r *http.Request, s *sessionstore.Session, act action) (any, error) {
	delay, err := parseDelay(r)
	if err != nil {
		return nil, err
	}
	finish, err := act(r, s)
	if err != nil {
		return nil, err
	}
	wait(delay)
	if err := s.Save(r.Context()); err != nil {
		return nil, err
	}
	return finish(r.Context())
}

// plain serves an answer that needs no session.
func plain(answer func(context.Context) any) http.Handler {
	return delayed(func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, http.StatusOK, answer(r.Context()))
	})
}

// delayed serves next after its ?delay.
func delayed(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		delay, err := parseDelay(r)
		if err != nil {
			writeError(w, http.StatusBadRequest, err.Error())
			return
		}
		wait(delay)
		next(w, r)
	})
}

func parseDelay(r *http.Request) (time.Duration, error) {
	text := r.URL.Query().Get("delay")
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > maxDelay {
		return 0, statusError{http.StatusBadRequest, fmt.Sprintf("delay: want a duration such as 200ms, at most %v", maxDelay)}
	}
	return d, nil
}

// wait is not cut short by a client that hangs up: a race made visible must come
// out as if the handler had been at work all the time.
func wait(d time.Duration) {
	if d > 0 {
		<-time.After(d)
	}
}

// methods serves each method with its own handler, and says 405 in JSON to others.
type methods map[string]http.Handler

func (m methods) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if h, ok := m[method]; ok {
		h.ServeHTTP(w, r)
		return
	}
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodPost, http.MethodDelete} {
		if _, ok := m[method]; ok {
			allowed = append(allowed, method)
		}
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	writeError(w, http.StatusMethodNotAllowed, "method "+r.Method+" is not allowed here, only "+strings.Join(allowed, ", "))
}

// isBelow reports whether path is prefix or below it.
func isBelow(path, prefix string) bool {
	rest, ok := strings.CutPrefix(path, prefix)
	return ok && (rest == "" || rest[0] == '/')
}

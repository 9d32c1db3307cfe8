package middleware

import (
	"errors"
	"net/http"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// RequirePrincipal wraps next so that only requests of a session with a principal
// in this application reach it; the others are answered by [Config.Unauthorized].
// It belongs inside [Sessions.Handler] of the same manager, and panics on requests
// that did not come through it.
func (s *Sessions) RequirePrincipal(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.mustWriter(r).session.Principal() == "" {
			s.cfg.Unauthorized.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// RequireFresh wraps next so that each request confirms its session with the
// database first, whatever the manager's freshness: what other nodes committed
// before is seen, and a session that has ended elsewhere is a new, empty one here.
// If the database does not answer, [Config.ErrorHandler] does and next is not
// called. It belongs inside [Sessions.Handler] of the same manager and outside of
// RequirePrincipal, and panics on requests that did not come through Handler.
func (s *Sessions) RequireFresh(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rw := s.mustWriter(r)
		if err := rw.session.Refresh(r.Context()); err != nil && !errors.Is(err, sessionstore.ErrNotFound) {
			if r.Context().Value(answeringKey{}) != nil { // the error handler itself goes this way
				DefaultErrorHandler(w, r, err)
				return
			}
			rw.refuse(err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Sessions) mustWriter(r *http.Request) *responseWriter {
	w := s.writer(r.Context())
	if w == nil {
		panic("middleware: request has no session of application " + s.manager.App() + ": wrap the handler with Sessions.Handler")
	}
	return w
}

func unauthorized(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Cache-Control", "no-store") // it depends on who asks
	http.Error(w, "Please log in.", http.StatusUnauthorized)
}

package shop

import (
	"errors"
	"log/slog"
	"net/http"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// retryAfter is how many seconds a client is asked to wait while the database
// does not answer.
const retryAfter = "5"

// A statusError is an answer that the client's own request called for.
type statusError struct {
	status  int
	message string // for the client
}

func (e statusError) Error() string { return e.message }

// describe returns the status that err is answered with, the same as
// middleware.DefaultErrorHandler chooses, and what the client is told of it.
func describe(err error) (int, string) {
	if e, ok := errors.AsType[statusError](err); ok {
		return e.status, e.message
	}
	switch {
	case errors.Is(err, sessionstore.ErrNotFound):
		return http.StatusConflict, "the session ended while this request ran; nothing was saved"
	case errors.Is(err, sessionstore.ErrConflict):
		return http.StatusConflict, "other requests changed the session meanwhile; nothing was saved, try again"
	case errors.Is(err, sessionstore.ErrLimit):
		return http.StatusConflict, "this account has too many sessions; end one of them first"
	case errors.Is(err, sessionstore.ErrTooLarge):
		return http.StatusRequestEntityTooLarge, "this does not fit into the session; nothing was saved"
	case errors.Is(err, sessionstore.ErrUnstorable), errors.Is(err, sessionstore.ErrCorrupt), errors.Is(err, sessionstore.ErrTooLate):
		return http.StatusInternalServerError, "internal server error"
	}
	return http.StatusServiceUnavailable, "the session database does not answer; try again in a few seconds"
}

// fail answers a request that err has ended, in JSON or as a page. It is also the
// middleware's error handler, which has logged err already.
func (a *application) fail(w http.ResponseWriter, r *http.Request, err error) {
	status, message := describe(err)
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", retryAfter)
	}
	a.deny(w, r, status, message)
}

// refuse is fail for a handler of ours. It logs err if operators must look into it.
func (a *application) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if status, _ := describe(err); status >= http.StatusInternalServerError {
		a.site.cfg.Logger.LogAttrs(r.Context(), slog.LevelError, "request failed",
			slog.String("app", a.sessions.App()), slog.Any("error", err))
	}
	a.fail(w, r, err)
}

// deny answers without touching the session.
func (a *application) deny(w http.ResponseWriter, r *http.Request, status int, message string) {
	if isBelow(r.URL.Path, a.base+"/api") {
		writeError(w, status, message)
		return
	}
	a.errorPage(w, status, message)
}

package middleware

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// ErrNotCommitted is what a handler's writes return after its session could not
// be committed: the response is the error handler's, and nothing was written. It
// wraps the cause.
var ErrNotCommitted = errors.New("middleware: session not committed, response is the error handler's")

// errAbandoned is the cause after a handler has panicked.
var errAbandoned = errors.New("handler panicked")

// retryAfter is how many seconds a client is asked to wait while the database
// does not answer: about what a failover takes.
const retryAfter = "5"

// DefaultErrorHandler answers with a line of text that tells clients nothing of
// err, never to be cached, and one of these codes:
//
//	409 Conflict               [sessionstore.ErrNotFound]: the session ended while the request ran
//	                           [sessionstore.ErrConflict]: other requests changed it again and again
//	                           [sessionstore.ErrLimit]: too many sessions for this principal
//	413 Content Too Large      [sessionstore.ErrTooLarge]
//	500 Internal Server Error  the application's mistake: a value that cannot be stored, unreadable data
//	503 Service Unavailable    anything else: the database did not answer; with Retry-After
//
// The client's cookies are left alone: they may be as valid as ever. It is told only what
// the handler has stored before, with [sessionstore.Session.Save].
func DefaultErrorHandler(w http.ResponseWriter, _ *http.Request, err error) {
	status, text := describe(err)
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	if status == http.StatusServiceUnavailable {
		h.Set("Retry-After", retryAfter)
	}
	http.Error(w, text, status)
}

// describe returns the status and the text that an error is answered with.
func describe(err error) (status int, text string) {
	switch {
	case errors.Is(err, sessionstore.ErrNotFound):
		return http.StatusConflict, "Your session ended while this request ran. Nothing was saved."
	case errors.Is(err, sessionstore.ErrConflict):
		return http.StatusConflict, "Your session was changed by other requests meanwhile. Please try again."
	case errors.Is(err, sessionstore.ErrLimit):
		return http.StatusConflict, "There are too many open sessions of this account. End one of them first."
	case errors.Is(err, sessionstore.ErrTooLarge):
		return http.StatusRequestEntityTooLarge, "This does not fit into your session and was not saved."
	case errors.Is(err, sessionstore.ErrUnstorable), errors.Is(err, sessionstore.ErrCorrupt), errors.Is(err, sessionstore.ErrTooLate):
		return http.StatusInternalServerError, "Internal server error"
	}
	return http.StatusServiceUnavailable, "Sessions are unavailable at the moment. Please try again."
}

// isOutage reports whether err does not say what is wrong with this one request: then
// the database has failed, and does so for others too.
func isOutage(err error) bool {
	status, _ := describe(err)
	return status == http.StatusServiceUnavailable
}

// levelOf tells what operators must look into from what users do.
func levelOf(ctx context.Context, err error) slog.Level {
	switch {
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return slog.LevelDebug // the client has hung up
	case errors.Is(err, sessionstore.ErrNotFound), errors.Is(err, sessionstore.ErrConflict),
		errors.Is(err, sessionstore.ErrLimit), errors.Is(err, sessionstore.ErrTooLarge):
		return slog.LevelWarn
	default:
		return slog.LevelError
	}
}

package middleware

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// A state is how far a response has come.
type state int

const (
	open      state = iota // nothing has left, nothing is committed
	committed              // the handler's response is under way or may be
	failed                 // the error handler has answered, or nobody may any more
)

// A responseWriter commits the session before the first byte of a response leaves
// (P1). Everything that sends such a byte, or lets one be sent, asks commit first.
type responseWriter struct {
	w        http.ResponseWriter
	r        *http.Request  // as the wrapped handler got it
	ctx      requestContext // r's
	sessions *Sessions
	session  *sessionstore.Session
	token    sessionstore.Token // the client's, zero if it has none that is valid
	before   http.Header        // headers before the handler ran, nil if there were none

	mu       sync.Mutex // guards what follows, also against the handler's goroutines
	state    state
	err      error // what writes return, once failed
	answered bool  // the error handler has
}

var (
	_ http.Flusher    = (*responseWriter)(nil)
	_ http.Hijacker   = (*responseWriter)(nil)
	_ io.ReaderFrom   = (*responseWriter)(nil)
	_ io.StringWriter = (*responseWriter)(nil)
)

// Unwrap lets http.ResponseController reach what commits nothing: deadlines, full duplex.
func (w *responseWriter) Unwrap() http.ResponseWriter { return w.w }

// CloseNotify is [http.CloseNotifier], which nobody should use any more and gin's
// Context.Stream does.
func (w *responseWriter) CloseNotify() <-chan bool {
	gone := make(chan bool, 1)
	context.AfterFunc(w.r.Context(), func() { gone <- true })
	return gone
}

func (w *responseWriter) Header() http.Header { return w.w.Header() }

func (w *responseWriter) WriteHeader(status int) {
	informational := status < 200 && status != http.StatusSwitchingProtocols
	if informational || status > 999 { // or about to panic, which commits nothing
		if w.mayInform() {
			w.w.WriteHeader(status)
		}
		return
	}
	if _, err := w.commit(); err == nil {
		w.w.WriteHeader(status)
	}
}

func (w *responseWriter) Write(p []byte) (int, error) {
	if _, err := w.commit(); err != nil {
		return 0, err
	}
	return w.w.Write(p)
}

func (w *responseWriter) WriteString(s string) (int, error) {
	if _, err := w.commit(); err != nil {
		return 0, err
	}
	return io.WriteString(w.w, s)
}

// ReadFrom keeps sendfile working for files, which io.Copy reaches through it.
func (w *responseWriter) ReadFrom(src io.Reader) (int64, error) {
	if _, err := w.commit(); err != nil {
		return 0, err
	}
	// Not through Unwrap: a writer in between may have to see these bytes.
	if rf, ok := w.w.(io.ReaderFrom); ok {
		return rf.ReadFrom(src)
	}
	return io.Copy(struct{ io.Writer }{w.w}, src)
}

func (w *responseWriter) Flush() { _ = w.FlushError() }

func (w *responseWriter) FlushError() error {
	if _, err := w.commit(); err != nil {
		if w.hasAnswered() { // a stream's handler may not return for long
			_ = http.NewResponseController(w.w).Flush()
		}
		return err
	}
	return http.NewResponseController(w.w).Flush()
}

func (w *responseWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	receipt, err := w.commit()
	if err != nil {
		return nil, nil, err
	}
	conn, rw, err := http.NewResponseController(w.w).Hijack()
	if err == nil {
		w.reportLost(receipt)
	}
	return conn, rw, err
}

// mayInform reports whether an informational response may go out.
func (w *responseWriter) mayInform() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state != failed
}

// hasAnswered reports whether the error handler has answered.
func (w *responseWriter) hasAnswered() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.answered
}

// commit commits the session if that was not done yet, and returns what it put
// into the header. After an error, nothing of the handler's may be sent.
func (w *responseWriter) commit() (sessionstore.Receipt, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.commitLocked()
}

func (w *responseWriter) commitLocked() (sessionstore.Receipt, error) {
	if w.state != open {
		return sessionstore.Receipt{}, w.err
	}
	receipt, err := w.sessions.manager.Commit(w.r.Context(), w.session)
	if err != nil {
		w.session.Discard() // the error handler sees what is stored
		w.refuseLocked(receipt, err)
		return receipt, w.err
	}
	w.state = committed
	w.sessions.tell(w.w.Header(), receipt)
	return receipt, nil
}

// refuse lets the error handler answer instead of the wrapped one.
func (w *responseWriter) refuse(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.state == open:
		w.refuseLocked(w.sessions.manager.Abandon(w.session), err)
	case w.state == committed:
		// Whatever has left is not ours to take back.
		w.sessions.log(w.r.Context(), slog.LevelError, "session not confirmed after the response had begun", err)
	}
}

// answeringKey marks the context of the request that the error handler is given.
type answeringKey struct{}

// refuseLocked lets the error handler answer. The client is told what earlier saves of the
// request have stored. Everybody else waits until it has answered.
func (w *responseWriter) refuseLocked(receipt sessionstore.Receipt, err error) {
	// Before the error handler runs: it may panic.
	w.state, w.err = failed, fmt.Errorf("%w: %w", ErrNotCommitted, err)
	h := w.w.Header()
	clear(h)
	maps.Copy(h, w.before)
	w.sessions.tell(h, receipt)
	w.sessions.answer(w.w, w.r.WithContext(context.WithValue(w.r.Context(), answeringKey{}, true)), err)
	w.answered = true
}

// finish is called when the handler has returned.
func (w *responseWriter) finish() {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch w.state {
	case open:
		_, _ = w.commitLocked() // net/http sends the header after this
	case committed:
		if _, err := w.sessions.manager.Commit(w.r.Context(), w.session); err != nil {
			w.sessions.lateErrors.Add(1)
			w.sessions.log(w.r.Context(), slog.LevelError, "session changes made after the response had begun were not stored", err)
		}
	case failed:
		// The handler may have set trailers on the map it still held.
		for name := range w.w.Header() {
			if strings.HasPrefix(name, http.TrailerPrefix) {
				delete(w.w.Header(), name)
			}
		}
	}
}

// abandon is called when the handler has panicked: nothing more is committed. Whoever
// recovers and answers tells the client what was saved before.
func (w *responseWriter) abandon() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.state == open {
		w.state, w.err = failed, fmt.Errorf("%w: %w", ErrNotCommitted, errAbandoned)
		w.sessions.tell(w.w.Header(), w.sessions.manager.Abandon(w.session))
	}
}

// reportLost says that the hijacked connection kept a cookie from the client: the
// handler wrote no header before, and whatever it writes now bypasses ours.
func (w *responseWriter) reportLost(receipt sessionstore.Receipt) {
	moved := !receipt.Token.IsZero() && !w.token.IsZero() && receipt.Token.SecretHash() == w.token.SecretHash()
	if !receipt.Clear && (receipt.Token.IsZero() || moved) {
		return
	}
	w.sessions.lostTokens.Add(1)
	w.sessions.cfg.Logger.LogAttrs(w.r.Context(), slog.LevelError,
		"connection hijacked before the client was told of its new or ended session",
		slog.String("app", w.sessions.manager.App()), slog.Any("session", w.session))
}

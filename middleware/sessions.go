package middleware

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// Sessions gives the requests of one application their sessions. It is immutable
// and safe for concurrent use; use [New].
type Sessions struct {
	manager *sessionstore.Manager
	cfg     Config
	names   cookieNames

	versionCookie cookieTemplate

	outages, clashLog sparseLog

	clashes, errors, lateErrors, lostTokens atomic.Int64
}

// New returns the middleware for the sessions of m. A nil cfg means the defaults;
// cfg is copied. Its errors name the field and what contradicts it.
func New(m *sessionstore.Manager, cfg *Config) (*Sessions, error) {
	if m == nil {
		return nil, errors.New("middleware: session manager is nil")
	}
	c, err := cfg.resolved(m.Node())
	if err != nil {
		return nil, err
	}
	names := cookieNames{token: c.CookieName, version: versionCookieName(c.CookieName, m.App())}
	return &Sessions{manager: m, cfg: c, names: names, versionCookie: template(c.cookie(names.version))}, nil
}

// Stats are counters since the Sessions were made.
type Stats struct {
	CookieClashes int64 `json:"cookie_clashes"` // requests with different cookies of the token's name
	Errors        int64 `json:"errors"`         // requests that the error handler answered
	LateErrors    int64 `json:"late_errors"`    // commits after the response had begun that failed
	LostTokens    int64 `json:"lost_tokens"`    // new or ended sessions a hijacked connection kept from the client
}

// Stats returns the counters.
func (s *Sessions) Stats() Stats {
	return Stats{
		CookieClashes: s.clashes.Load(),
		Errors:        s.errors.Load(),
		LateErrors:    s.lateErrors.Load(),
		LostTokens:    s.lostTokens.Load(),
	}
}

// Handler wraps next so that its requests carry their session, which
// [sessionstore.FromContext] returns, and commits what next changed before the
// response's first byte leaves. Around a handler that is wrapped already, for the
// same manager, it changes nothing: both see the same session.
//
// Applications that share an ID manager belong side by side, each around handlers of
// its own, and not one around the other: in one request of a browser without cookies
// both would begin a session, and the browser keeps only one token.
func (s *Sessions) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serve(next, w, r) })
}

// managerKey finds a manager's response writer, and with it the session, in a
// request's context.
type managerKey struct{ manager *sessionstore.Manager }

// A requestContext carries the response writer that it is a part of.
type requestContext struct {
	context.Context
	rw *responseWriter
}

func (c *requestContext) Value(key any) any {
	if k, ok := key.(managerKey); ok && k.manager == c.rw.sessions.manager {
		return c.rw
	}
	return c.Context.Value(key)
}

// writer returns the response writer that Handler made for this request, nil if none.
func (s *Sessions) writer(ctx context.Context) *responseWriter {
	w, _ := ctx.Value(managerKey{s.manager}).(*responseWriter)
	return w
}

func (s *Sessions) serve(next http.Handler, w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	if outer := s.writer(ctx); outer != nil {
		if current, _ := sessionstore.LookupContext(ctx); current != outer.session {
			// A sibling application's handler stands between the two.
			r = r.WithContext(sessionstore.NewContext(ctx, outer.session))
		}
		next.ServeHTTP(w, r)
		return
	}

	var claims presented
	claims.read(r.Header["Cookie"], s.names)
	session, token, err := s.begin(ctx, &claims)
	if err != nil {
		s.answer(w, r, err)
		return
	}
	rw := &responseWriter{w: w, sessions: s, session: session, token: token}
	if h := w.Header(); len(h) > 0 {
		rw.before = h.Clone()
	}
	rw.ctx = requestContext{sessionstore.NewContext(ctx, session), rw}
	r = r.WithContext(&rw.ctx)
	rw.r = r
	returned := false
	defer func() {
		if !returned {
			rw.abandon()
		}
		s.manager.Release(session)
	}()
	next.ServeHTTP(rw, r)
	returned = true
	rw.finish()
}

// begin returns the session of the first claim that the database accepts, or a
// new one, and the token that was presented for it. The new one knows if any claim was
// outdated.
func (s *Sessions) begin(ctx context.Context, claims *presented) (session *sessionstore.Session, token sessionstore.Token, err error) {
	if claims.clash {
		s.clashes.Add(1)
		if omitted, ok := s.clashLog.admit(); ok {
			s.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "request has several session cookies, the first valid one is used",
				slog.String("app", s.manager.App()), slog.String("cookie", s.names.token), slog.Int("well_formed", claims.n),
				slog.Int("lines_omitted_before", omitted))
		}
	}
	if claims.n == 0 {
		session, err = s.manager.Begin(ctx, sessionstore.Claim{}) // P9
		return session, token, err
	}
	for _, token := range claims.tokens[:claims.n] {
		claimed, err := s.manager.Begin(ctx, sessionstore.Claim{Token: token, Version: claims.version(token.ID())})
		if err != nil {
			return nil, token, err
		}
		if claimed.Claimed() {
			return claimed, token, nil
		}
		if session == nil || claimed.Superseded() {
			session = claimed
		}
	}
	return session, sessionstore.Token{}, nil
}

// answer lets the error handler answer the request.
func (s *Sessions) answer(w http.ResponseWriter, r *http.Request, err error) {
	s.errors.Add(1)
	s.logAnswer(r.Context(), err)
	s.cfg.ErrorHandler(w, r, err)
}

func (s *Sessions) logAnswer(ctx context.Context, err error) {
	level := levelOf(ctx, err)
	var omitted []slog.Attr
	if level >= slog.LevelError && isOutage(err) { // of which every request says the same
		n, ok := s.outages.admit()
		if !ok {
			return
		}
		omitted = []slog.Attr{slog.Int("lines_omitted_before", n)}
	}
	s.log(ctx, level, "request answered by the session error handler", err, omitted...)
}

func (s *Sessions) log(ctx context.Context, level slog.Level, message string, err error, more ...slog.Attr) {
	s.cfg.Logger.LogAttrs(ctx, level, message,
		append([]slog.Attr{slog.String("app", s.manager.App()), slog.Any("error", err)}, more...)...)
}

package sessionstore

import "context"

type contextKey struct{}

// NewContext returns a context that carries s; middleware calls it.
func NewContext(ctx context.Context, s *Session) context.Context {
	return context.WithValue(ctx, contextKey{}, s)
}

// FromContext returns the request's session. It panics if ctx carries none: the
// handler was not wrapped by a session middleware.
func FromContext(ctx context.Context) *Session {
	s, ok := LookupContext(ctx)
	if !ok {
		panic("sessionstore: no session in this context: wrap the handler with middleware.New(...).Handler")
	}
	return s
}

// LookupContext returns the request's session, if ctx carries one.
func LookupContext(ctx context.Context) (*Session, bool) {
	s, ok := ctx.Value(contextKey{}).(*Session)
	return s, ok
}

package sessionstore

import "context"

type contextKey struct{}

// A sessionContext is what context.WithValue would return, in half the memory.
type sessionContext struct {
	context.Context
	s *Session
}

func (c *sessionContext) Value(key any) any {
	if _, ok := key.(contextKey); ok {
		return c.s
	}
	return c.Context.Value(key)
}

// NewContext returns a context that carries s; middleware calls it.
func NewContext(ctx context.Context, s *Session) context.Context {
	return &sessionContext{ctx, s}
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

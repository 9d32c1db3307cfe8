package shop

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// A device is one of a principal's sessions.
type device struct {
	ID         string               `json:"id"`
	Current    bool                 `json:"current"` // the one that asks
	Principal  string               `json:"principal"`
	Node       string               `json:"node"` // that stored it last
	Version    sessionstore.Version `json:"version"`
	CreatedAt  time.Time            `json:"created_at"`
	AccessedAt time.Time            `json:"accessed_at"`
	ExpiresAt  *time.Time           `json:"expires_at"`
}

var errAnonymous = statusError{http.StatusUnauthorized, "log in first"}

// listDevices returns the sessions of the principal that s belongs to in this
// application, the most recently used first.
func (a *application) listDevices(ctx context.Context, s *sessionstore.Session) ([]device, error) {
	devices := []device{}
	for info, err := range a.sessions.Sessions(ctx, s.Principal()) {
		if err != nil {
			return nil, err
		}
		d := device{
			ID: info.Key.ID.String(), Current: info.Key.ID == s.ID(), Principal: info.Principal,
			Node: info.Node, Version: info.Version,
			CreatedAt: info.CreatedAt, AccessedAt: info.AccessedAt,
		}
		if !info.ExpiresAt.IsZero() {
			d.ExpiresAt = &info.ExpiresAt
		}
		devices = append(devices, d)
	}
	return devices, nil
}

// end ends one session of the principal that s belongs to in this application.
// Any other ID, known or not, is not found.
func (a *application) end(ctx context.Context, s *sessionstore.Session, text string) error {
	notFound := statusError{http.StatusNotFound, "you have no such device"}
	id, err := sessionstore.ParseID(text)
	if err != nil {
		return notFound
	}
	devices, err := a.listDevices(ctx, s)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(devices, func(d device) bool { return d.ID == text }) {
		return notFound
	}
	return a.sessions.Invalidate(ctx, id)
}

// endOthers ends all sessions but s in which this application holds the
// principal of s, and returns how many. A principal of the same name in the other
// application is somebody else.
func (a *application) endOthers(ctx context.Context, s *sessionstore.Session) (int, error) {
	return a.sessions.InvalidatePrincipal(ctx, s.Principal(), s.ID())
}

func (a *application) devices(_ *http.Request, s *sessionstore.Session) (finish, error) {
	if s.Principal() == "" {
		return nil, errAnonymous
	}
	return func(ctx context.Context) (any, error) {
		return a.listDevices(ctx, s)
	}, nil
}

func (a *application) endDevice(r *http.Request, s *sessionstore.Session) (finish, error) {
	if s.Principal() == "" {
		return nil, errAnonymous
	}
	id := r.PathValue("id")
	return func(ctx context.Context) (any, error) {
		if id == s.ID().String() {
			// Through the session, so that this client's cookie is cleared too.
			s.Invalidate()
			return map[string]any{"ended": id}, s.Save(ctx)
		}
		return map[string]any{"ended": id}, a.end(ctx, s, id)
	}, nil
}

func (a *application) logoutEverywhere(_ *http.Request, s *sessionstore.Session) (finish, error) {
	if s.Principal() == "" {
		return nil, errAnonymous
	}
	return func(ctx context.Context) (any, error) {
		n, err := a.endOthers(ctx, s)
		return map[string]any{"ended": n}, err
	}, nil
}

package shop

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// sessionAnswer is what GET /api/session says. Of a session that is not stored,
// ID is "" and the times are null: asking must reserve and store nothing (P9).
type sessionAnswer struct {
	Node       string                     `json:"node"`
	ID         string                     `json:"id"`
	New        bool                       `json:"new"`
	Principal  string                     `json:"principal"`
	Version    sessionstore.Version       `json:"version"`
	Source     string                     `json:"source"`
	CreatedAt  *time.Time                 `json:"created_at"`
	AccessedAt *time.Time                 `json:"accessed_at"`
	ExpiresAt  *time.Time                 `json:"expires_at"`
	Attributes map[string]json.RawMessage `json:"attributes"`
}

func (a *application) session(_ *http.Request, s *sessionstore.Session) (finish, error) {
	return func(context.Context) (any, error) {
		answer := sessionAnswer{
			Node:       a.sessions.Node(),
			New:        s.IsNew(),
			Principal:  s.Principal(),
			Version:    s.Version(),
			Source:     s.Source().String(),
			Attributes: map[string]json.RawMessage{},
		}
		for name := range s.Names() {
			if value, ok := sessionstore.NewAttr[json.RawMessage](name).Get(s); ok {
				answer.Attributes[name] = value
			}
		}
		if answer.New {
			return answer, nil
		}
		info := s.Info()
		answer.ID = info.Key.ID.String()
		answer.CreatedAt, answer.AccessedAt = &info.CreatedAt, &info.AccessedAt
		if !info.ExpiresAt.IsZero() {
			answer.ExpiresAt = &info.ExpiresAt
		}
		return answer, nil
	}, nil
}

// identity is what login, logout and renew answer: what the session is now.
func identity(s *sessionstore.Session) finish {
	return func(context.Context) (any, error) {
		id := ""
		if !s.IsNew() {
			id = s.ID().String()
		}
		return map[string]any{"id": id, "principal": s.Principal(), "version": s.Version()}, nil
	}
}

func (a *application) login(r *http.Request, s *sessionstore.Session) (finish, error) {
	body, err := readJSON(r)
	if err != nil {
		return nil, err
	}
	var login struct {
		User *string `json:"user"`
	}
	if err := json.Unmarshal(body, &login); err != nil || login.User == nil || *login.User == "" {
		return nil, statusError{http.StatusBadRequest, `want {"user": "a name"}`}
	}
	if err := sessionstore.ValidatePrincipal(*login.User); err != nil {
		return nil, statusError{http.StatusBadRequest, "user: " + err.Error()}
	}
	s.SetPrincipal(*login.User)
	return identity(s), nil
}

func (a *application) logout(_ *http.Request, s *sessionstore.Session) (finish, error) {
	s.Invalidate()
	return identity(s), nil
}

func (a *application) renew(_ *http.Request, s *sessionstore.Session) (finish, error) {
	s.Renew()
	return identity(s), nil
}

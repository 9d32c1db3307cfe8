package shop

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// Attributes and counters share one namespace, which is the session's own: a
// counter is an attribute that holds an integer, and the shop's cart is one too.

// attributeNamed returns the attribute that the path names.
func attributeNamed[T any](r *http.Request) (attr sessionstore.Attr[T], err error) {
	name := r.PathValue("name")
	if err := sessionstore.ValidateName(name); err != nil {
		return attr, statusError{http.StatusBadRequest, err.Error()}
	}
	return sessionstore.NewAttr[T](name), nil
}

func (a *application) attribute(r *http.Request, s *sessionstore.Session) (finish, error) {
	attr, err := attributeNamed[json.RawMessage](r)
	if err != nil {
		return nil, err
	}
	return func(context.Context) (any, error) {
		value, ok := attr.Get(s)
		if !ok {
			return nil, statusError{http.StatusNotFound, "attribute is not set"}
		}
		return map[string]any{"value": value}, nil
	}, nil
}

func (a *application) putAttribute(r *http.Request, s *sessionstore.Session) (finish, error) {
	attr, err := attributeNamed[json.RawMessage](r)
	if err != nil {
		return nil, err
	}
	value, err := readJSON(r)
	if err != nil {
		return nil, err
	}
	attr.Set(s, value)
	return version(s), nil
}

func (a *application) deleteAttribute(r *http.Request, s *sessionstore.Session) (finish, error) {
	attr, err := attributeNamed[json.RawMessage](r)
	if err != nil {
		return nil, err
	}
	attr.Delete(s)
	return version(s), nil
}

// version answers the version that was committed.
func version(s *sessionstore.Session) finish {
	return func(context.Context) (any, error) {
		return map[string]any{"version": s.Version()}, nil
	}
}

func (a *application) counter(r *http.Request, s *sessionstore.Session) (finish, error) {
	attr, err := attributeNamed[int64](r)
	if err != nil {
		return nil, err
	}
	return count(s, attr), nil
}

func (a *application) addToCounter(r *http.Request, s *sessionstore.Session) (finish, error) {
	attr, err := attributeNamed[int64](r)
	if err != nil {
		return nil, err
	}
	attr.Update(s, func(n int64) int64 { return n + 1 }) // P2
	return count(s, attr), nil
}

// count answers the counter's committed value, 0 if it is not set.
func count(s *sessionstore.Session, attr sessionstore.Attr[int64]) finish {
	return func(context.Context) (any, error) {
		n, _ := attr.Get(s)
		return map[string]any{"value": n}, nil
	}
}

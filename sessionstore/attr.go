package sessionstore

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"time"
)

// An Attr is a typed attribute of sessions, declared once as a package variable:
//
//	var cart = sessionstore.NewAttr[Cart]("cart")
//
// What the codec does not find in T is gone once the value is stored again: where old
// and new servers run side by side, the old ones lose the fields that T has gained. New
// data in an attribute of its own are safe from them.
//
// Its methods do no I/O. An Attr is immutable and safe for concurrent use. The
// zero Attr is never set, and setting it fails the commit.
type Attr[T any] struct {
	name string
	// shared: values of T may be handed to several callers, because nothing in
	// them can be modified through a copy.
	shared bool
}

// NewAttr returns the attribute with this name. Two attributes of one name are
// the same attribute, whatever their types. It panics if [ValidateName] refuses
// the name.
func NewAttr[T any](name string) Attr[T] {
	if err := ValidateName(name); err != nil {
		panic(err)
	}
	return Attr[T]{name: name, shared: isShareable(reflect.TypeFor[T]())}
}

// Name returns the attribute's name.
func (a Attr[T]) Name() string { return a.name }

// Get returns the value as this request sees it, its own changes included, and
// whether it is set. The value is the caller's to modify, which changes nothing
// stored until it is Set. A stored value that does not decode as a T counts as
// not set (P13).
func (a Attr[T]) Get(s *Session) (v T, ok bool) {
	data, present, stored, _ := s.lookup(a.name)
	if !present {
		return v, false
	}
	if stored != nil && a.shared {
		if p := stored.decoded.Load(); p != nil {
			if v, ok := (*p).(T); ok {
				return v, true
			}
		}
	}
	if v, ok = a.decode(s.m, s.place(a.name), data); !ok {
		return v, false
	}
	if stored != nil && a.shared && len(data) <= decodedBytes {
		boxed := any(v)
		stored.decoded.Store(&boxed)
	}
	return v, true
}

// Set stores v, which is encoded at once: later changes to what v refers to are
// not stored. If it does not encode, the commit fails.
func (a Attr[T]) Set(s *Session, v T) {
	data, err := a.encode(s.m, s.place(a.name), v)
	a.put(s, &attributeChange{absolute: true, data: data, present: true}, err)
}

// Delete removes the attribute.
func (a Attr[T]) Delete(s *Session) { a.put(s, &attributeChange{absolute: true}, nil) }

// Take returns the value and removes it: a message to be shown once. Requests at the
// same time may all get it; another value that one sets meanwhile stays.
func (a Attr[T]) Take(s *Session) (v T, ok bool) {
	for {
		taken, present, _, edits := s.lookup(a.name)
		if !present {
			return v, false
		}
		if v, ok = a.decode(s.m, s.place(a.name), taken); !ok {
			return v, false
		}
		remove := func(old []byte, present bool) ([]byte, bool, error) {
			if bytes.Equal(old, taken) {
				return nil, false, nil
			}
			return old, present, nil
		}
		if a.putIf(s, &attributeChange{updates: &updateList{last: remove}}, nil, edits) {
			return v, true
		}
	}
}

// Update sets the attribute to f of its value, or of the zero T if it is not set.
// If another request commits a change first, f is called again with the newer
// value, so no update is lost (P2): what f computed last counts, and [Session.Save]
// leaves it to be read with Get. So f may run several times, on another goroutine
// while this request waits for its commit, and must depend on nothing but its
// argument; it must not use the session.
func (a Attr[T]) Update(s *Session, f func(T) T) {
	place := s.place(a.name) // here, since update may run under the session's lock
	update := func(old []byte, present bool) ([]byte, bool, error) {
		var v T
		if present {
			v, _ = a.decode(s.m, place, old)
		}
		data, err := a.encode(s.m, place, f(v))
		return data, true, err
	}
	for {
		old, present, _, edits := s.lookup(a.name)
		data, present, err := update(old, present)
		c := &attributeChange{updates: &updateList{last: update}, data: data, present: present}
		if a.putIf(s, c, err, edits) {
			return
		}
	}
}

func (a Attr[T]) put(s *Session, c *attributeChange, err error) {
	s.change(func(p *pending) { a.putPending(p, c, err) })
}

// putIf is put unless the session was changed since edits.
func (a Attr[T]) putIf(s *Session, c *attributeChange, err error, edits uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.detached {
		return true
	}
	if s.edits != edits {
		return false
	}
	s.edits++
	a.putPending(&s.pending, c, err)
	return true
}

func (a Attr[T]) putPending(p *pending, c *attributeChange, err error) {
	if err == nil && a.name == "" {
		err = ValidateName(a.name)
	}
	if err != nil {
		p.fail(err)
		return
	}
	p.set(a.name, c)
}

// encode contains what a codec may do with values that it does not expect.
func (a Attr[T]) encode(m *Manager, place Place, v T) (data []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			data, err = nil, fmt.Errorf("encode attribute %s: panic: %v", a.name, p)
		}
	}()
	data, err = m.cfg.Codec.Encode(place, v)
	if err != nil {
		return nil, fmt.Errorf("encode attribute %s: %w", a.name, err)
	}
	return data, nil
}

// decode contains what a codec may do with bytes it does not expect (P13).
func (a Attr[T]) decode(m *Manager, place Place, data []byte) (v T, ok bool) {
	failed := func(err error) {
		var zero T
		v, ok = zero, false
		m.stats.decodeErrors.Add(1)
		m.cfg.Logger.Warn("session attribute does not decode, treated as not set",
			slog.String("app", place.Key.App), slog.String("session", place.Key.ID.String()),
			slog.String("attribute", a.name), slog.String("type", reflect.TypeFor[T]().String()),
			slog.String("error", reason(err)))
	}
	defer func() {
		if p := recover(); p != nil {
			failed(fmt.Errorf("panic: %v", p))
		}
	}()
	if err := m.cfg.Codec.Decode(place, data, &v); err != nil {
		failed(err)
		return v, false
	}
	return v, true
}

// reason says why a value did not decode without the error's text, which may quote it.
func reason(err error) string {
	if errors.Is(err, ErrUndecryptable) {
		return ErrUndecryptable.Error()
	}
	return fmt.Sprintf("%T", err)
}

// isShareable reports whether a copy of a value of type t shares nothing with it
// that can be modified.
func isShareable(t reflect.Type) bool {
	if t == reflect.TypeFor[time.Time]() {
		return true // its pointer is to an immutable Location
	}
	switch t.Kind() {
	case reflect.Bool, reflect.String,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64,
		reflect.Float32, reflect.Float64, reflect.Complex64, reflect.Complex128:
		return true
	case reflect.Array:
		return isShareable(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			if !isShareable(t.Field(i).Type) {
				return false
			}
		}
		return true
	default:
		return false
	}
}

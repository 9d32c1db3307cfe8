package sessionstore

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// pending is what a request wants changed: its change list. The zero value
// changes nothing.
type pending struct {
	attrs          map[string]*attributeChange
	principal      *string
	idle, lifetime *time.Duration // 0 means without limit, as in a Record
	renew          bool           // give the session a new secret
	start          bool           // store it even if empty
	ends           []ending       // sessions to end, before anything else
	err            error          // the first thing that cannot be stored
}

// An ending is a session that its request has invalidated, as the request saw it.
type ending struct {
	id        ID
	hash      SecretHash
	principal string
	outdated  bool // the request had an outdated secret of it
}

// fail keeps the first error, which the commit will return.
func (p *pending) fail(err error) {
	if p.err == nil {
		p.err = fmt.Errorf("%w: %w", ErrUnstorable, err)
	}
}

// limit turns what a handler may say about a timeout into what a Record says.
func (p *pending) limit(what string, d, fallback time.Duration) *time.Duration {
	if d == 0 {
		return &fallback
	}
	d, err := resolveLimit(what, d)
	if err != nil {
		p.fail(err)
		return nil
	}
	return &d
}

// isEmpty reports whether there is nothing to commit.
func (p *pending) isEmpty() bool {
	return len(p.attrs) == 0 && len(p.ends) == 0 && p.err == nil && !p.mustWrite()
}

// isIdempotent reports whether storing the changes twice is storing them once.
func (p *pending) isIdempotent() bool {
	for _, c := range p.attrs {
		if !c.absolute {
			return false
		}
	}
	return true
}

// mustWrite reports whether something other than an attribute asks for a write.
func (p *pending) mustWrite() bool {
	return p.principal != nil || p.idle != nil || p.lifetime != nil || p.renew || p.start
}

// before returns p followed by the later changes.
func (p pending) before(later pending) pending {
	for name, c := range later.attrs {
		p.set(name, c)
	}
	p.principal = cmp.Or(later.principal, p.principal)
	p.idle = cmp.Or(later.idle, p.idle)
	p.lifetime = cmp.Or(later.lifetime, p.lifetime)
	p.renew = p.renew || later.renew
	p.start = p.start || later.start
	p.ends = append(p.ends, later.ends...)
	p.err = cmp.Or(p.err, later.err)
	return p
}

// set adds a change to what is pending for the attribute.
func (p *pending) set(name string, c *attributeChange) {
	if p.attrs == nil {
		p.attrs = make(map[string]*attributeChange)
	}
	if old, ok := p.attrs[name]; ok {
		c = old.before(c)
	}
	p.attrs[name] = c
}

// An attributeChange is what a request does to one attribute. It is immutable.
type attributeChange struct {
	// absolute says that the outcome does not depend on the stored value: the
	// attribute was set or deleted. Otherwise updates are applied to it, in order.
	absolute bool
	updates  *updateList

	// data and present are the outcome on what the request has seen.
	data    []byte
	present bool
}

// An updateList is a list of functions, in the order in which they are to run. It is
// immutable, so that lists may share their beginnings. The nil list is empty.
type updateList struct {
	before *updateList
	last   updateFunc
}

// inOrder returns the functions.
func (l *updateList) inOrder() []updateFunc {
	var fs []updateFunc
	for ; l != nil; l = l.before {
		fs = append(fs, l.last)
	}
	slices.Reverse(fs)
	return fs
}

// followedBy returns the list that has those of later at its end.
func (l *updateList) followedBy(later *updateList) *updateList {
	for _, f := range later.inOrder() {
		l = &updateList{before: l, last: f}
	}
	return l
}

// An updateFunc computes an attribute's encoded value from the one before.
type updateFunc func(old []byte, present bool) (data []byte, stillPresent bool, err error)

// before returns the change that c followed by later amounts to.
func (c *attributeChange) before(later *attributeChange) *attributeChange {
	if later.absolute || c.absolute {
		return &attributeChange{absolute: true, data: later.data, present: later.present}
	}
	return &attributeChange{
		updates: c.updates.followedBy(later.updates),
		data:    later.data, present: later.present,
	}
}

// replay computes the outcome on another stored value (P2).
func (c *attributeChange) replay(data []byte, present bool) (_ []byte, _ bool, err error) {
	if c.absolute {
		return c.data, c.present, nil
	}
	// The functions are the application's, and this may run on the goroutine of
	// another request, which must survive them.
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("sessionstore: update function panicked when it was replayed: %v", p)
		}
	}()
	for _, update := range c.updates.inOrder() {
		if data, present, err = update(data, present); err != nil {
			return nil, false, err
		}
	}
	return data, present, nil
}

// apply returns attrs with the changes made. If replayed, the changes were made
// on other attributes and are computed anew.
func (p *pending) apply(attrs attributes, replayed bool) (attributes, error) {
	outcomes := make([]outcome, 0, len(p.attrs))
	for name, c := range p.attrs {
		data, present := c.data, c.present
		if replayed && !c.absolute {
			var old []byte
			a, found := attrs.find(name)
			if found {
				old = a.data
			}
			var err error
			if data, present, err = c.replay(old, found); err != nil {
				return nil, fmt.Errorf("%w: %w", ErrUnstorable, err)
			}
		}
		outcomes = append(outcomes, outcome{name, data, present})
	}
	return attrs.with(outcomes...), nil
}

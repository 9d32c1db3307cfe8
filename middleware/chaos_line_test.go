package middleware_test

import (
	"context"
	"errors"
	"iter"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
)

// A weather is how a node's line to the database is.
type weather int

const (
	calm  weather = iota // each call takes some milliseconds
	rough                // some calls take long, fail or hang, before they are carried out or after it
	deaf                 // events cannot be read
	away                 // nothing can
	dead                 // for ever, and nobody hears the answers to what is carried out already
)

var errLine = errors.New("line is down")

// A line is one node's line to the database.
type line struct {
	*membackend.Backend
	model  *model
	ghosts *sync.WaitGroup // statements that outlive their callers

	mu   sync.Mutex // guards what follows
	rand *rand.Rand
	now  weather
}

func (l *line) set(w weather) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now != dead {
		l.now = w
	}
}

// look returns the weather, and a random time below d.
func (l *line) look(d time.Duration) (weather, time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now, time.Duration(l.rand.Int64N(int64(d)))
}

// call carries f out, or not.
func call[T any](ctx context.Context, l *line, f func(context.Context) (T, error)) (none T, err error) {
	l.pause(3 * time.Millisecond)
	now, percent := l.look(100)
	if now >= away || now == rough && percent < 4 {
		return none, errLine
	}
	if now == rough && percent < 10 {
		switch {
		case percent < 7: // it is carried out at once, and the answer is lost
			_, _ = f(ctx)
			return none, errLine
		case percent < 9: // it is carried out when the caller has given up
			l.ghosts.Go(func() {
				<-ctx.Done()
				l.pause(2 * time.Second)
				_, _ = f(context.WithoutCancel(ctx))
			})
		}
		<-ctx.Done()
		return none, ctx.Err()
	}
	v, err := f(ctx)
	if now == rough && percent < 25 {
		l.pause(time.Second)
	}
	l.pause(3 * time.Millisecond)
	if now, _ := l.look(1); now == dead {
		return none, errLine
	}
	return v, err
}

// Load implements sessionstore.Backend, as the methods that follow.
func (l *line) Load(ctx context.Context, key sessionstore.Key, known sessionstore.Version) (*sessionstore.Record, error) {
	return call(ctx, l, func(ctx context.Context) (*sessionstore.Record, error) { return l.Backend.Load(ctx, key, known) })
}

func (l *line) Create(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) (time.Time, error) {
	return call(ctx, l, func(ctx context.Context) (created time.Time, err error) {
		err = l.model.stores(rec, cond, func() error { created, err = l.Backend.Create(ctx, rec, cond); return err })
		return created, err
	})
}

func (l *line) Update(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) error {
	_, err := call(ctx, l, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, l.model.stores(rec, cond, func() error { return l.Backend.Update(ctx, rec, cond) })
	})
	return err
}

func (l *line) Touch(ctx context.Context, touches []sessionstore.Touch) error {
	_, err := call(ctx, l, func(ctx context.Context) (struct{}, error) { return struct{}{}, l.Backend.Touch(ctx, touches) })
	return err
}

func (l *line) Delete(ctx context.Context, sel sessionstore.Selector) ([]*sessionstore.Record, error) {
	l.model.mu.Lock()
	for _, id := range sel.Only { // one too many
		l.model.session(id).mayEnd = true
	}
	l.model.mu.Unlock()
	removed, err := call(ctx, l, func(ctx context.Context) ([]*sessionstore.Record, error) {
		return l.model.removes(func() ([]*sessionstore.Record, error) { return l.Backend.Delete(ctx, sel) })
	})
	l.model.heard(removed)
	return removed, err
}

func (l *line) DeleteExpired(ctx context.Context, sweep sessionstore.Sweep) ([]*sessionstore.Record, bool, error) {
	removed, err := call(ctx, l, func(ctx context.Context) ([]*sessionstore.Record, error) {
		return l.model.removes(func() ([]*sessionstore.Record, error) {
			removed, _, err := l.Backend.DeleteExpired(ctx, sweep)
			return removed, err
		})
	})
	l.model.heard(removed)
	return removed, len(removed) == sweep.Limit, err
}

func (l *line) List(ctx context.Context, sel sessionstore.Selector) iter.Seq2[sessionstore.Info, error] {
	list, err := call(ctx, l, func(ctx context.Context) (iter.Seq2[sessionstore.Info, error], error) {
		return l.Backend.List(ctx, sel), nil
	})
	if err != nil {
		return func(yield func(sessionstore.Info, error) bool) { yield(sessionstore.Info{}, err) }
	}
	return list
}

func (l *line) Events(ctx context.Context, after sessionstore.Cursor) ([]sessionstore.Event, sessionstore.Cursor, error) {
	if now, _ := l.look(1); now == deaf {
		return nil, 0, errLine
	}
	type answer struct {
		events []sessionstore.Event
		next   sessionstore.Cursor
	}
	a, err := call(ctx, l, func(ctx context.Context) (a answer, err error) {
		a.events, a.next, err = l.Backend.Events(ctx, after)
		return a, err
	})
	return a.events, a.next, err
}

// RegisterNode is never carried out late: who is dead must not seem to be alive.
func (l *line) RegisterNode(ctx context.Context, node sessionstore.Node) (sessionstore.Node, error) {
	if now, _ := l.look(1); now >= away {
		return sessionstore.Node{}, errLine
	}
	return l.Backend.RegisterNode(ctx, node)
}

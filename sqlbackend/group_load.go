package sqlbackend

import (
	"context"
	"fmt"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// loadRows bounds the sessions of one question: their data come back, up to a
// megabyte each by default.
const loadRows = 64

// A question is a Load that may travel with others.
type question struct {
	asked sessionstore.Key
	known sessionstore.Version
	found *sessionstore.Record
	err   error
}

func (q *question) key() sessionstore.Key { return q.asked }
func (q *question) size() int             { return 0 }
func (q *question) keep()                 {}
func (q *question) fail(err error)        { q.found, q.err = nil, err }

// loadGroup answers questions for different keys.
func (b *Backend) loadGroup(ctx context.Context, questions []*question) {
	if q := questions[0]; len(questions) == 1 {
		q.found, q.err = b.loadAlone(ctx, q.asked, q.known)
		return
	}
	together(ctx, questions, func(some []*question) error { return b.loadMany(ctx, some) }, b.unfit)
}

func (b *Backend) loadMany(ctx context.Context, questions []*question) error {
	rows := make([]listedRow, len(questions))
	for i, q := range questions {
		rows[i] = listedRow{key: q.asked, version: q.known}
	}
	a := b.listRows(rows)
	reset := func() {
		for _, q := range questions {
			q.found = nil
		}
	}
	return b.read(ctx, &b.ran, b.sql.loadMany, a, reset, func(scan Scan) error {
		var place int
		r, err := scanRecord(scan, &place)
		if err != nil {
			return &unwritten{err} // one damaged row is not everyone's
		}
		if place < 1 || place > len(questions) {
			return fmt.Errorf("answered place %d of %d", place, len(questions))
		}
		questions[place-1].take(r)
		return nil
	})
}

// take keeps r if it is a better answer: the asker's own, or else the first sibling's.
func (q *question) take(r *sessionstore.Record) {
	own := r.Key.App == q.asked.App
	if q.found == nil || own || q.found.Key.App != q.asked.App && r.Key.App < q.found.Key.App {
		q.found = r
	}
}

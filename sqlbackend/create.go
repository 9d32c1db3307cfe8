package sqlbackend

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// Create implements [sessionstore.Backend]. It is the only method that inserts (P3).
func (b *Backend) Create(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) (time.Time, error) {
	created, err := b.create(ctx, rec, cond)
	if err != nil {
		return time.Time{}, fmt.Errorf("create session %s: %w", rec.Key.ID, err)
	}
	return fromMicros(created), nil
}

func (b *Backend) create(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) (created int64, err error) {
	if !cond.SecretHash.IsZero() { // it joins
		err = b.inTurn(ctx, func(ctx context.Context, lock *statement) error {
			created, err = b.createAlone(ctx, rec, cond, lock)
			return err
		})
		return created, err
	}
	if limits(rec, cond) {
		return b.createAlone(ctx, rec, cond, nil)
	}
	c := &creation{rec: rec}
	if err := b.creates.do(ctx, c); err != nil {
		return 0, err
	}
	return c.created, c.err
}

// createAlone is a Create that travels with no other. If it joins, it locks rows with lock.
func (b *Backend) createAlone(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition, lock *statement) (created int64, err error) {
	a, err := b.recordArgs(rec)
	if err != nil {
		return 0, err
	}
	joins := !cond.SecretHash.IsZero()
	var mutexes []string
	if !joins {
		// The primary key keeps one application from creating an ID twice. Rows that
		// do not exist cannot be locked, so it takes a mutex to keep two from it.
		mutexes = append(mutexes, b.mutex("id", rec.Key.ID.String()))
	}
	if !joins && !limits(rec, cond) && b.sql.createNew != nil {
		return b.createNew(ctx, mutexes, a)
	}

	err = b.inTx(ctx, mutexes, func(ctx context.Context, q runner) (err error) {
		if joins {
			if err := b.join(ctx, q, rec, cond, a, lock); err != nil {
				return err
			}
		}
		if created, err = b.insert(ctx, q, a, joins); err != nil {
			return err
		}
		if err := b.checkLimit(ctx, q, rec, cond, a); err != nil || !joins || rec.SecretHash == cond.SecretHash {
			return err
		}
		return b.storeChange(ctx, q, rec.Key, 1, true)
	})
	return created, err
}

// createNew creates a session that is new and need not be counted.
func (b *Backend) createNew(ctx context.Context, mutexes []string, a args) (created int64, err error) {
	err = b.atOnce(ctx, mutexes, []*statement{b.sql.createNew}, a, func() { created = 0 }, func(scan Scan) error {
		return scan(&created)
	})
	if err == nil && created == 0 || err != nil && b.dialect.Classify(err) == Duplicate {
		err = sessionstore.ErrExists // and not the driver's text, which may quote the row
	}
	return created, err
}

// join locks the rows under rec's ID, demands that one of them proves the claim,
// and renews them if rec brings a new secret.
func (b *Backend) join(ctx context.Context, q runner, rec *sessionstore.Record, cond sessionstore.Condition, a args, lock *statement) error {
	exists, proven := false, false
	err := b.lock(ctx, q, locking{by: lock}, args{"ids": b.listIDs(rec.Key.ID)}, func(scan Scan) error {
		var (
			app  string
			hash []byte
			live bool
		)
		if err := scan(&app, &hash, &live); err != nil {
			return err
		}
		if app == rec.Key.App {
			exists = true
		} else if live && string(hash) == string(cond.SecretHash[:]) {
			proven = true
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case !proven:
		return sessionstore.ErrNotFound
	case exists:
		return sessionstore.ErrExists
	case rec.SecretHash == cond.SecretHash && b.sql.collide == nil:
		return nil
	case rec.SecretHash == cond.SecretHash:
		_, err := q.exec(ctx, b.sql.collide, a)
		return err
	}
	_, err = q.exec(ctx, b.sql.renewSiblings, a)
	return err
}

// insert stores a new row and returns when, by the database's clock (P12). Only a
// row that joins others may find some under its ID.
func (b *Backend) insert(ctx context.Context, q runner, a args, joins bool) (created int64, err error) {
	var found bool
	if b.sql.createNew != nil && !joins {
		found, err = q.queryRow(ctx, b.sql.createNew, a, &created)
		if err == nil && !found {
			err = sessionstore.ErrExists
		}
	} else {
		var exists bool
		if found, err = q.queryRow(ctx, b.sql.clock, a, &created, &exists); err == nil && !found {
			err = fmt.Errorf("the database does not tell the time")
		}
		if err == nil && exists && !joins {
			err = sessionstore.ErrExists
		}
		if err == nil {
			a["now"] = created
			err = b.insertRows(ctx, q, []args{a})
		}
	}
	if err != nil && b.dialect.Classify(err) == Duplicate {
		err = sessionstore.ErrExists // and not the driver's text, which may quote the row
	}
	return created, err
}

// insertRows inserts rows that are new.
func (b *Backend) insertRows(ctx context.Context, q runner, rows []args) error {
	if b.sql.insert.row != "" {
		_, err := q.execRows(ctx, b.sql.insert, rows, nil)
		return err
	}
	for _, a := range rows {
		if _, err := q.exec(ctx, b.sql.insert, a); err != nil {
			return err
		}
	}
	return nil
}

// limits reports whether the sessions of rec's principal need be counted.
func limits(rec *sessionstore.Record, cond sessionstore.Condition) bool {
	return cond.MaxSessions > 0 && rec.Principal != ""
}

// mutex names a mutex. Names are hashes because MySQL's have at most 64 characters.
func (b *Backend) mutex(parts ...string) string {
	sum := sha256.Sum256([]byte(b.lockKey + "\x00" + strings.Join(parts, "\x00")))
	return "holdfast-" + hex.EncodeToString(sum[:16])
}

// checkLimit counts the sessions of rec's principal, if they need be, under a mutex. It
// runs after the write, so that a session that is gone or exists already is told from one
// too many.
//
// The mutex comes after whatever may wait for somebody's row, or one row that is kept
// locked would hold up all logins of the principal. The count is another statement, which
// sees what others have committed who had the mutex before. An event may follow: storing
// one waits for no row, and must not come before a refusal, which would leave a gap in its
// numbers.
func (b *Backend) checkLimit(ctx context.Context, q runner, rec *sessionstore.Record, cond sessionstore.Condition, a args) error {
	if !limits(rec, cond) {
		return nil
	}
	if err := q.take(ctx, []string{b.mutex("limit", rec.Key.App, rec.Principal)}); err != nil {
		return err
	}
	var others int64
	if _, err := q.queryRow(ctx, b.sql.countSessions, a, &others); err != nil {
		return err
	}
	if others >= int64(cond.MaxSessions) {
		return sessionstore.ErrLimit
	}
	return nil
}

package sqlbackend

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/holdfast-sessions/holdfast/migrations"
	"github.com/holdfast-sessions/holdfast/sessionstore"
)

const (
	// DefaultStatementTimeout bounds a statement unless a Config says otherwise: a
	// primary-key query that takes longer means that the database is in trouble,
	// and requests should not pile up behind it.
	DefaultStatementTimeout = 5 * time.Second

	// slotSlack is how far ahead of an expiry slot's coming due a write moves it.
	// Shorter than any sensible idle timeout, so that it happens once per timeout;
	// longer than a touch interval, so that the sweep seldom meets a live row.
	slotSlack = 2 * time.Minute

	// MaxStatementTimeout is the longest StatementTimeout of a Config. Together with
	// what it takes to roll back, it must stay well below eventWindow.
	MaxStatementTimeout = 30 * time.Second

	// batchRows bounds the rows of one statement, so that it stays short and its
	// locks are few.
	batchRows = 256
)

// A Config says where the tables are and how long statements may take. The zero
// Config is valid. Constructors copy it.
type Config struct {
	// TablePrefix begins the names of all tables, as it did for migrations.Up.
	// Defaults to migrations.DefaultTablePrefix.
	TablePrefix string

	// Schema is the PostgreSQL schema of the tables, as it was for migrations.Up;
	// it must be empty for other databases. Defaults to "", what the connection's
	// search_path finds.
	Schema string

	// StatementTimeout bounds each statement, and each transaction as a whole,
	// with its retries and its wait for a connection of the pool. It must be at least
	// 1ms and at most MaxStatementTimeout. Defaults to DefaultStatementTimeout.
	StatementTimeout time.Duration
}

// A Backend is a [sessionstore.Backend] on a SQL database. The packages below this
// one construct it; the zero Backend is not usable. It is safe for concurrent use,
// starts no goroutines and never closes the pool it was given.
type Backend struct {
	db      DB
	dialect *Dialect
	sql     *statements
	timeout time.Duration
	lockKey string // tells mutexes of different tables apart
	saves   grouper[*save]
	loads   grouper[*question]
	creates grouper[*creation]
	deletes grouper[*deletion]
	waiting chan struct{} // those that may wait for locked rows, see mayWait
	late    atomic.Int64  // bytes of the saves that were passed over and are under way again

	ran     atomic.Int64
	polled  atomic.Int64
	breaker breaker

	sweepPosition sweepPosition
}

var (
	_ sessionstore.Backend      = (*Backend)(nil)
	_ sessionstore.EventSource  = (*Backend)(nil)
	_ sessionstore.NodeRegistry = (*Backend)(nil)
)

// New returns a Backend for a database that speaks dialect, both of which are
// required. A nil cfg is the zero Config. New asks the database for the version of
// its schema, and returns an error if it does not answer, or one of
// [migrations.Check] if the schema is not the library's.
func New(ctx context.Context, db DB, dialect *Dialect, cfg *Config) (*Backend, error) {
	if cfg == nil {
		cfg = new(Config)
	}
	if t := cfg.StatementTimeout; t != 0 && t < time.Millisecond || t > MaxStatementTimeout {
		return nil, fmt.Errorf("sqlbackend: StatementTimeout is %v, want at least 1ms and at most %v", t, MaxStatementTimeout)
	}
	names, err := (&migrations.Config{TablePrefix: cfg.TablePrefix, Schema: cfg.Schema}).Names(dialect.Name)
	if err != nil {
		return nil, err
	}
	sts, err := dialect.compileAll(map[string]string{
		"prefix": names.Prefix, "sessions": names.Sessions, "events": names.Events, "nodes": names.Nodes, "migrations": names.Migrations, "columns": columns,
	})
	if err != nil {
		return nil, err
	}
	b := &Backend{
		db: db, dialect: dialect, sql: sts,
		timeout: cmp.Or(cfg.StatementTimeout, DefaultStatementTimeout),
		lockKey: names.Sessions,
		waiting: make(chan struct{}, maxWaiting),
	}
	sideBySide := dialect.SideBySide
	b.saves = grouper[*save]{rows: batchRows, sideBySide: sideBySide, timeout: b.timeout, run: b.saveGroup}
	b.loads = grouper[*question]{rows: loadRows, sideBySide: sideBySide, timeout: b.timeout, run: b.loadGroup}
	b.creates = grouper[*creation]{rows: batchRows, sideBySide: sideBySide, timeout: b.timeout, run: b.createGroup}
	// What a deletion has removed must be announced (P11).
	b.deletes = grouper[*deletion]{rows: deleteBatch, sideBySide: sideBySide, timeout: b.timeout, run: b.deleteGroup, stay: true}
	version, err := b.schemaVersion(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the version of the database's schema: %w", err)
	}
	if err := migrations.Check(version); err != nil {
		return nil, err
	}
	return b, nil
}

// Statements returns how many statements the Backend has run, without those that
// begin and end transactions and their mutexes, and those of [Backend.Polls].
func (b *Backend) Statements() int64 { return b.ran.Load() }

// Polls returns how many statements Events, PruneEvents and the registry of nodes
// have run. They are counted apart because time causes them, and no request: whoever compares
// Statements before and after some requests wants to see only what these cost.
func (b *Backend) Polls() int64 { return b.polled.Load() }

// Groups counts the calls that may share statements with others, by kind.
type Groups struct{ Updates, Loads, Creates, Deletes GroupCount }

// Groups returns how many groups of calls have run, and how many calls travelled in
// them. A call that met no other is a group of its own.
func (b *Backend) Groups() Groups {
	return Groups{b.saves.count(), b.loads.count(), b.creates.count(), b.deletes.count()}
}

func (b *Backend) schemaVersion(ctx context.Context) (int64, error) {
	var version *int64
	err := b.read(ctx, &b.ran, b.sql.schemaVersion, nil, func() { version = nil }, func(scan Scan) error {
		return scan(&version)
	})
	if err != nil && b.dialect.Classify(err) == NoTable || err == nil && version == nil {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return *version, nil
}

// unfit reports whether an error may be a value's fault, and nothing has happened.
func (b *Backend) unfit(err error) bool {
	_, ok := errors.AsType[*unwritten](err)
	return ok || b.dialect.Classify(err) == Unfit
}

// An unwritten error comes from something that did not get as far as to its COMMIT,
// and so has certainly not happened, even if the connection is lost: which is how some
// databases answer values that are too large.
type unwritten struct{ error }

func (e *unwritten) Unwrap() error { return e.error }

// inGroupTx is inTx for a group.
func (b *Backend) inGroupTx(ctx context.Context, mutexes []string, do func(context.Context, runner) error) error {
	done := false
	err := b.inTx(ctx, mutexes, func(ctx context.Context, q runner) error {
		err := do(ctx, q)
		done = done || err == nil
		return err
	})
	if err != nil && !done {
		return &unwritten{err}
	}
	return err
}

// read runs a statement that changes nothing, which ran counts, and calls row for each row
// that it answers. Reset is called before each attempt: one whose connection was lost is
// repeated on another, since nothing has happened.
func (b *Backend) read(ctx context.Context, ran *atomic.Int64, st *statement, a args, reset func(), row func(Scan) error) error {
	return b.retry(ctx, func(ctx context.Context) error {
		reset()
		err := runner{q: b.db, ran: ran}.query(ctx, st, a, row)
		if _, connecting := errors.AsType[*ConnectError](err); err != nil && !connecting && b.dialect.Classify(err) == Unreachable {
			return &lostAnswer{err}
		}
		return err
	})
}

// alone runs a unit of work that is one statement.
func (b *Backend) alone(ctx context.Context, do func(context.Context, runner) error) error {
	return b.retry(ctx, func(ctx context.Context) error { return do(ctx, runner{q: b.db, ran: &b.ran}) })
}

// inTx runs a unit of work that is a transaction, and begins with taking mutexes. What do
// has collected must not survive a retry: it starts anew each time.
func (b *Backend) inTx(ctx context.Context, mutexes []string, do func(context.Context, runner) error) error {
	return b.retry(ctx, func(ctx context.Context) error {
		return b.db.InTx(ctx, func(tx Tx) error {
			q := runner{tx, tx, &b.ran}
			if len(mutexes) > 0 {
				if err := q.take(ctx, mutexes); err != nil {
					return err
				}
			}
			return do(ctx, q)
		})
	})
}

// atOnce runs statements that need not wait for each other's answers as one
// transaction, and calls row for each row that the last one answers. Reset is called
// before each attempt.
func (b *Backend) atOnce(ctx context.Context, mutexes []string, sts []*statement, a args, reset func(), row func(Scan) error) error {
	pipe, ok := b.db.(Pipeliner)
	if !ok {
		return b.inTx(ctx, mutexes, func(ctx context.Context, q runner) error {
			reset()
			for _, st := range sts[:len(sts)-1] {
				if err := q.query(ctx, st, a, skipRow); err != nil {
					return b.passedOver(st, err)
				}
			}
			return q.query(ctx, sts[len(sts)-1], a, row)
		})
	}
	queries := make([]Query, len(sts))
	for i, st := range sts {
		values, err := st.values(a)
		if err != nil {
			return err
		}
		queries[i] = Query{st.text, values}
	}
	return b.retry(ctx, func(ctx context.Context) error {
		reset()
		b.ran.Add(int64(len(sts)))
		return b.passedOver(sts[0], pipe.Pipeline(ctx, mutexes, queries, row))
	})
}

// A runner runs and counts compiled statements, alone or in a transaction.
type runner struct {
	q   Querier
	tx  Tx // is q, nil outside of a transaction
	ran *atomic.Int64
}

// take waits for mutexes and takes them until the transaction is over.
func (s runner) take(ctx context.Context, mutexes []string) error {
	err := s.tx.Lock(ctx, mutexes)
	if err != nil && ctx.Err() != nil {
		return &lockWait{err}
	}
	return err
}

func (s runner) exec(ctx context.Context, st *statement, a args) (affected int64, err error) {
	text, values, err := st.with(a)
	if err != nil {
		return 0, err
	}
	s.ran.Add(1)
	return s.q.Exec(ctx, text, values)
}

// execRows runs a statement that takes rows, of which there must be at least one.
func (s runner) execRows(ctx context.Context, st *statement, rows []args, rest args) (affected int64, err error) {
	text, values, err := st.withRows(rows, rest)
	if err != nil {
		return 0, err
	}
	s.ran.Add(1)
	return s.q.Exec(ctx, text, values)
}

// execText runs a text that holds all its values.
func (s runner) execText(ctx context.Context, text string) (affected int64, err error) {
	s.ran.Add(1)
	return s.q.Exec(ctx, text, nil)
}

func (s runner) query(ctx context.Context, st *statement, a args, row func(Scan) error) error {
	text, values, err := st.with(a)
	if err != nil {
		return err
	}
	s.ran.Add(1)
	return s.q.Query(ctx, text, values, row)
}

// queryRow scans the only row of an answer and reports whether there was one.
func (s runner) queryRow(ctx context.Context, st *statement, a args, dest ...any) (found bool, err error) {
	err = s.query(ctx, st, a, func(scan Scan) error {
		found = true
		return scan(dest...)
	})
	return found, err
}

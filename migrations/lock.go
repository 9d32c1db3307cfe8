package migrations

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/pressly/goose/v3/lock"
)

const (
	// lockID is "holdfast" in ASCII: PostgreSQL's advisory locks are numbers.
	lockID = 0x686f6c6466617374

	// lockWait is how long a process waits for others to migrate.
	lockWait = 5 * time.Minute
)

func newLocker(dialect Dialect, store *versionStore) (lock.SessionLocker, error) {
	switch dialect {
	case Postgres:
		inner, err := lock.NewPostgresSessionLocker(lock.WithLockID(lockID), lock.WithLockTimeout(1, uint64(lockWait/time.Second)))
		if err != nil {
			return nil, fmt.Errorf("migrations: %w", err)
		}
		return preparingLocker{inner, store}, nil
	case MySQL:
		return preparingLocker{mysqlLocker{}, store}, nil
	default:
		return preparingLocker{sqliteLocker{}, store}, nil
	}
}

// A preparingLocker makes the version table as soon as it has the lock.
type preparingLocker struct {
	lock.SessionLocker
	store *versionStore
}

func (l preparingLocker) SessionLock(ctx context.Context, conn *sql.Conn) error {
	if err := l.SessionLocker.SessionLock(ctx, conn); err != nil {
		return err
	}
	err := l.store.prepare(ctx, conn)
	if err == nil && l.store.dialect == SQLite {
		_, err = conn.ExecContext(ctx, "SAVEPOINT holdfast_migration")
	}
	if err != nil { // goose unlocks only after a lock that succeeded
		return errors.Join(err, l.SessionLocker.SessionUnlock(context.WithoutCancel(ctx), conn))
	}
	return nil
}

// A mysqlLocker holds a named lock of the connection.
type mysqlLocker struct{}

// Names of locks are shared by all databases of a server.
const mysqlLockName = "SHA2(CONCAT('holdfast migrations ', DATABASE()), 224)"

func (mysqlLocker) SessionLock(ctx context.Context, conn *sql.Conn) error {
	var got sql.NullInt64
	err := conn.QueryRowContext(ctx, "SELECT GET_LOCK("+mysqlLockName+", ?)", int64(lockWait/time.Second)).Scan(&got)
	if err != nil {
		return fmt.Errorf("lock the database for migrations: %w", err)
	}
	if got.Int64 != 1 {
		return fmt.Errorf("lock the database for migrations: another process has held the lock for %s", lockWait)
	}
	return nil
}

func (mysqlLocker) SessionUnlock(ctx context.Context, conn *sql.Conn) error {
	var released sql.NullInt64
	return conn.QueryRowContext(ctx, "SELECT RELEASE_LOCK("+mysqlLockName+")").Scan(&released)
}

// A sqliteLocker runs everything between lock and unlock in one transaction that
// holds SQLite's only write lock from its beginning. [versionStore.keep] sets a
// savepoint after each migration, so that one that fails leaves nothing behind.
type sqliteLocker struct{}

func (sqliteLocker) SessionLock(ctx context.Context, conn *sql.Conn) error {
	err := whileLocked(ctx, func(ctx context.Context) error {
		_, err := conn.ExecContext(ctx, "BEGIN IMMEDIATE")
		return err
	})
	if err != nil {
		return fmt.Errorf("lock the database for migrations: %w", err)
	}
	return nil
}

// whileLocked repeats f while SQLite says that another process has the database.
// The driver's own wait, if it has one configured, is shorter than ours, and ends
// at once where it could be a deadlock.
func whileLocked(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	for {
		err := f(ctx)
		// SQLite's text, "database is locked", is all that drivers have in common.
		if err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), "locked") {
			return err
		}
		wait := time.NewTimer(time.Millisecond + rand.N(20*time.Millisecond))
		select {
		case <-ctx.Done():
			wait.Stop()
			return err
		case <-wait.C:
		}
	}
}

func (sqliteLocker) SessionUnlock(ctx context.Context, conn *sql.Conn) error {
	// Without effect if the last migration was kept. Fails if there is no savepoint,
	// that is, if preparing failed: then nothing is to be committed.
	if _, err := conn.ExecContext(ctx, "ROLLBACK TO holdfast_migration"); err != nil {
		_, rollbackErr := conn.ExecContext(ctx, "ROLLBACK")
		return rollbackErr
	}
	// While others read, the commit has to wait, and the transaction goes on.
	err := whileLocked(ctx, func(ctx context.Context) error {
		_, err := conn.ExecContext(ctx, "COMMIT")
		return err
	})
	if err != nil {
		_, rollbackErr := conn.ExecContext(ctx, "ROLLBACK")
		return errors.Join(fmt.Errorf("commit the migrations: %w", err), rollbackErr)
	}
	return nil
}

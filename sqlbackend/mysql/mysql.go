package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/holdfast-sessions/holdfast/migrations"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sqlbackend"
	"github.com/holdfast-sessions/holdfast/sqlbackend/internal/sqldb"
)

// Config is the configuration of [New]. Its Schema must be empty.
type Config = sqlbackend.Config

// New returns a Backend that stores sessions through db, which it never closes. A
// nil cfg is the zero Config. It returns an error if the database does not answer or
// a connection is not set up as it must be, and migrations.ErrSchemaMissing,
// ErrSchemaOlder or ErrSchemaNewer if the tables are not those of this version of the
// library.
func New(ctx context.Context, db *sql.DB, cfg *Config) (*sqlbackend.Backend, error) {
	if db == nil {
		return nil, errors.New("mysql: db is nil")
	}
	b, err := newBackend(ctx, db, cfg, statements)
	if err != nil {
		return nil, err
	}
	fit, err := fitting(ctx, db)
	if err != nil {
		return nil, err
	}
	if fit == statements {
		return b, nil
	}
	return newBackend(ctx, db, cfg, fit)
}

// fitting returns the statements for the kind of server that db leads to. It returns
// an error if the connections are set up in a way that none would fit.
func fitting(ctx context.Context, db *sql.DB) (sqlbackend.Statements, error) {
	ctx, cancel := context.WithTimeout(ctx, sqlbackend.DefaultStatementTimeout)
	defer cancel()
	s := statements
	if err := checkConnection(ctx, db); err != nil {
		return s, err
	}
	galera, err := isGalera(ctx, db)
	if err != nil {
		return s, err
	}
	if galera {
		s.Collide = collide
	}
	lists, err := knowsLists(ctx, db)
	if !lists {
		s.UpdateAll = ""
	}
	return s, err
}

// knowsLists reports whether the server knows lists of rows as MySQL has them since
// 8.0.19. MariaDB does not.
func knowsLists(ctx context.Context, db *sql.DB) (bool, error) {
	var n int
	err := db.QueryRowContext(ctx, "WITH r (n) AS (VALUES ROW(1)) SELECT n FROM r").Scan(&n)
	if _, answered := errors.AsType[*mysql.MySQLError](err); answered {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("mysql: list a row: %w", err)
	}
	return true, nil
}

func newBackend(ctx context.Context, db *sql.DB, cfg *Config, statements sqlbackend.Statements) (*sqlbackend.Backend, error) {
	return sqlbackend.New(ctx, &sqldb.DB{
		Write: db,
		Begin: []string{
			// For the next transaction only. Under REPEATABLE READ, InnoDB would lock
			// gaps between rows, in which other sessions are to be inserted.
			"SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
			"START TRANSACTION",
		},
		// Whatever completion_type is: it may begin the next one, or disconnect.
		Commit: "COMMIT AND NO CHAIN NO RELEASE", Rollback: "ROLLBACK AND NO CHAIN NO RELEASE",
		Lock: lock, Unlock: unlock,
		Refused: func(err error) bool { return classify(err) == sqlbackend.Refused },
		Lost:    func(err error) bool { return classify(err) == sqlbackend.Unreachable },
		Closing: isPacketTooLarge,
	}, &sqlbackend.Dialect{
		Name:         migrations.MySQL,
		Snippets:     snippets,
		Statements:   statements,
		Consecutive:  true,
		Literals:     true,
		SideBySide:   true,
		WriteAffects: 2, // ON DUPLICATE KEY UPDATE counts twice
		Classify:     classify,
		ID:           func(id sessionstore.ID) any { return id[:] },
		// As bytes, which no connection's character set applies to.
		Text: func(s string) any { return []byte(s) },
	}, cfg)
}

// InnoDB locks rows that exist, and a principal's first session or a new ID does not, so
// logins that are counted, and creations, take a lock of the server's that is only a
// name. It belongs to the connection, so that no COMMIT releases it.
func lock(ctx context.Context, conn *sql.Conn, mutexes []string) error {
	wait := time.Duration(1<<31-1) * time.Second
	if deadline, ok := ctx.Deadline(); ok {
		wait = time.Until(deadline)
	}
	var got sql.NullInt64
	err := conn.QueryRowContext(ctx, lockMutexes, int64(wait/time.Second)+1, listMutexes(mutexes)).Scan(&got)
	if err == nil && got.Int64 != int64(len(mutexes)) {
		err = errors.New("timed out waiting for another login of the same principal, or creation of the same session")
	}
	return err
}

func unlock(ctx context.Context, conn *sql.Conn, mutexes []string) error {
	var released sql.NullInt64
	return conn.QueryRowContext(ctx, unlockMutexes, listMutexes(mutexes)).Scan(&released)
}

// listMutexes makes a list in JSON of names that need no escaping.
func listMutexes(mutexes []string) string { return `["` + strings.Join(mutexes, `","`) + `"]` }

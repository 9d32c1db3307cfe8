package migrations

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/pressly/goose/v3/database"
)

// A versionStore is goose's store with two differences. Its table is made under
// the lock, by [versionStore.prepare], where goose would have processes that start
// at once race for it; and until then it answers as if the table were there and
// the version 0.
type versionStore struct {
	database.Store
	dialect Dialect
	names   Names
}

func newVersionStore(dialect Dialect, names Names) (*versionStore, error) {
	gooseDialect := map[Dialect]database.Dialect{
		Postgres: database.DialectPostgres, MySQL: database.DialectMySQL, SQLite: database.DialectSQLite3,
	}[dialect]
	store, err := database.NewStore(gooseDialect, names.Migrations)
	if err != nil {
		return nil, fmt.Errorf("migrations: %w", err)
	}
	return &versionStore{Store: store, dialect: dialect, names: names}, nil
}

// TableExists keeps goose from making the table.
func (s *versionStore) TableExists(context.Context, database.DBTxConn) (bool, error) {
	return true, nil
}

func (s *versionStore) ListMigrations(ctx context.Context, db database.DBTxConn) (list []*database.ListMigrationsResult, err error) {
	if exists, err := s.exists(ctx, db); err != nil {
		return nil, err
	} else if !exists {
		return []*database.ListMigrationsResult{{Version: 0, IsApplied: true}}, nil
	}
	err = s.read(ctx, func(ctx context.Context) (err error) {
		list, err = s.Store.ListMigrations(ctx, db)
		return err
	})
	return list, err
}

// current is the schema's version, 0 if there is none. It wants two statements, not
// one connection: a pooler may run them on different ones.
func (s *versionStore) current(ctx context.Context, db database.DBTxConn) (int64, error) {
	if exists, err := s.exists(ctx, db); err != nil || !exists {
		return 0, err
	}
	var version sql.NullInt64 // the table may be empty
	err := s.read(ctx, func(ctx context.Context) error {
		return db.QueryRowContext(ctx, "SELECT max(version_id) FROM "+s.names.Migrations+" WHERE is_applied").Scan(&version)
	})
	return version.Int64, err
}

// read runs a query that may come outside of the lock: goose looks first whether
// there is anything to do. SQLite then may refuse it while another process writes.
func (s *versionStore) read(ctx context.Context, query func(context.Context) error) error {
	if s.dialect == SQLite {
		return whileLocked(ctx, query)
	}
	return query(ctx)
}

func (s *versionStore) Insert(ctx context.Context, db database.DBTxConn, req database.InsertRequest) error {
	if err := s.Store.Insert(ctx, db, req); err != nil {
		return err
	}
	return s.keep(ctx, db)
}

func (s *versionStore) Delete(ctx context.Context, db database.DBTxConn, version int64) error {
	if err := s.Store.Delete(ctx, db, version); err != nil {
		return err
	}
	return s.keep(ctx, db)
}

// keep ends the savepoint behind which sqliteLocker would undo a migration that
// failed halfway, and sets the next.
func (s *versionStore) keep(ctx context.Context, db database.DBTxConn) error {
	if s.dialect != SQLite {
		return nil
	}
	for _, q := range []string{"RELEASE holdfast_migration", "SAVEPOINT holdfast_migration"} {
		if _, err := db.ExecContext(ctx, q); err != nil {
			return err
		}
	}
	return nil
}

// prepare makes the schema and the version table, if need be. It must be called
// under the lock.
func (s *versionStore) prepare(ctx context.Context, conn *sql.Conn) error {
	if s.names.Schema != "" {
		// Not CREATE IF NOT EXISTS, which wants the right to create even if it exists.
		if exists, err := ask(ctx, conn, "SELECT count(*) FROM pg_catalog.pg_namespace WHERE nspname = $1", s.names.Schema); err != nil {
			return fmt.Errorf("look for schema %s: %w", s.names.Schema, err)
		} else if !exists {
			if _, err := conn.ExecContext(ctx, `CREATE SCHEMA "`+s.names.Schema+`"`); err != nil {
				return fmt.Errorf("create schema %s: %w", s.names.Schema, err)
			}
		}
	}
	exists, err := s.exists(ctx, conn)
	if err != nil {
		return err
	}
	if !exists {
		if err := s.CreateVersionTable(ctx, conn); err != nil {
			return err
		}
	}
	// On its own, because MySQL may have lost its connection between the two.
	if recorded, err := ask(ctx, conn, "SELECT count(*) FROM "+s.names.Migrations); err != nil || recorded {
		return err
	}
	return s.Store.Insert(ctx, conn, database.InsertRequest{Version: 0})
}

func (s *versionStore) exists(ctx context.Context, db database.DBTxConn) (exists bool, err error) {
	table := s.names.Prefix + "migrations"
	switch s.dialect {
	case Postgres: // to_regclass goes by the search_path, as the statements will
		exists, err = ask(ctx, db, "SELECT count(*) FROM (SELECT to_regclass($1) AS t) AS found WHERE t IS NOT NULL", s.names.Migrations)
	case MySQL:
		exists, err = ask(ctx, db, "SELECT count(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ?", table)
		if err == nil && !exists {
			// MySQL shows nobody tables that he has no rights to. This reads nothing, and
			// fails if one could not be read, but not if there is none.
			_, err = db.ExecContext(ctx, "CHECKSUM TABLE "+s.names.Migrations+" QUICK")
		}
	case SQLite:
		err = s.read(ctx, func(ctx context.Context) (err error) {
			exists, err = ask(ctx, db, "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?", table)
			return err
		})
	}
	if err != nil {
		return false, fmt.Errorf("look for table %s: %w", table, err)
	}
	return exists, nil
}

// ask reports whether a query for a number answers more than 0.
func ask(ctx context.Context, db database.DBTxConn, query string, args ...any) (bool, error) {
	var n int64
	err := db.QueryRowContext(ctx, query, args...).Scan(&n)
	return n > 0, err
}

// Package migrations creates and changes the tables that package sqlbackend
// stores sessions in: numbered SQL files, embedded, one set per dialect, run by
// [github.com/pressly/goose/v3].
//
//	err := migrations.Up(ctx, db, migrations.Postgres, nil)
//
// Up is safe to call from many processes at once and costs two statements when
// there is nothing to do, so programs may call it at every start.
//
// It needs the right to create and alter tables. Programs that only use them need
// SELECT, INSERT, UPDATE and DELETE on these, SELECT alone on the one that records the
// version, and on PostgreSQL USAGE on their schema; the command "holdfast migrate" makes
// the tables for them.
//
// It wants a [database/sql.DB] and imports no driver. Who has a pgxpool.Pool makes
// one of it with pgx's own adapter, and closes the adapter, which leaves the pool
// open:
//
//	db := stdlib.OpenDBFromPool(pool) // github.com/jackc/pgx/v5/stdlib
//	defer db.Close()
//
// On PostgreSQL and MySQL the lock between processes belongs to a connection, so
// migrate over a direct one, not through a pooler in transaction mode. [Version] needs no
// lock.
//
// Errors say which migration failed; those of [Check] are sentinels.
package migrations

// Package sqlbackend keeps sessions in SQL databases: the part that all of them
// share. Programs use one of the packages below it,
//
//	backend, err := postgres.New(ctx, pool, nil) // sqlbackend/postgres
//	backend, err := mysql.New(ctx, db, nil)      // sqlbackend/mysql, MariaDB too
//	backend, err := sqlite.Open(ctx, path, nil)  // sqlbackend/sqlite
//
// and importing one of them compiles no other database's driver.
//
// # Storage
//
// One table holds one row per session and application. Package migrations makes
// it and documents its columns. Times are integers, microseconds by the database's
// clock (P12), so that nothing depends on a time zone or a driver's parameters.
//
// Expired rows are found through the column expiry_slot, a lower bound of
// expires_at. A save or touch moves expires_at, but the slot only where it must:
// if the session now ends earlier, or if the slot comes due within two minutes. So
// most writes leave every indexed column alone, which PostgreSQL rewards with HOT
// updates, and a sweep that meets a row before its time moves the slot instead of
// deleting.
//
// # Races
//
// A write that depends on one row is one conditional statement, judged by the rows
// it affected. A write that concerns all rows under an ID (joining, renewing,
// deleting) first locks them in order of application, and acts in a second
// statement of the same transaction. The second statement sees what was committed
// while the first one waited, because transactions are READ COMMITTED whatever the
// connection's default. So a row that joins the ID is inserted either before the
// others are locked, and then is renewed or deleted with them, or after they were
// renewed or deleted, and then its proof fails (P3).
//
// What cannot be locked because it does not exist yet, a new ID or a principal's
// first session, is guarded by a named mutex of the database, which is held until after
// the commit. A transaction takes that of a new ID first, then locks rows, and takes that
// under which a principal's sessions are counted last: nobody who has it waits for a row.
//
// # Events
//
// A second table holds what nodes tell each other. Each event is stored in the
// transaction of the change it tells of, as its last statement or, on PostgreSQL,
// within the one statement that an announced Update, a group of them, or a deletion is.
// A poll is one statement.
//
// Events get their numbers in another order than their transactions commit, so a
// reader that only remembered the last number would miss some. Cursors are places
// before which nothing can appear any more:
//
//   - PostgreSQL: events carry the number of their transaction. The cursor is the
//     smallest number that was under way in the snapshot of the statement that read
//     the events. This is exact: no transaction is missed, however long it takes. One
//     of another program that writes for an hour delays nothing; events that came
//     after it began are read again at each poll meanwhile.
//   - MySQL, MariaDB: numbers without a gap are settled. A gap is a transaction under
//     way, or one that was rolled back, and nobody can tell which; it is settled when
//     an event of a higher number is a minute old, because transactions take no longer
//     than MaxStatementTimeout. What follows a gap is read again at each poll until then.
//   - SQLite: writers take turns, so the last number is the cursor.
//
// A database that loses its last transactions, because a copy that lagged behind
// took its place, may use their numbers again, and a reader then misses events of the
// first moments after the change. So may one of a program that was stopped inside
// a transaction of MySQL for more than a minute and then commits. What a node holds is
// stale for sessionstore's MaxStale then, as without events.
//
// # Errors
//
// Deadlocks, serialization failures and busy databases, after which a database has
// undone everything, are retried with jitter. So is what the server refused because it
// shuts down or only reads, what met somebody's lock, what only reads and lost its
// connection, and once a transaction whose connection was lost before its COMMIT: none of
// these has happened. After any other error a write may or may not have happened. Errors
// carry a session's ID and never its secret's hash or data (P8).
package sqlbackend

// Package mysql keeps sessions in MySQL, 8.0.19 or later, or MariaDB, 10.6 or
// later, through go-sql-driver/mysql.
//
//	db, err := sql.Open("mysql", dsn)
//	…
//	defer db.Close()
//	backend, err := mysql.New(ctx, db, nil)
//
// It asks nothing of the DSN, but for Galera: parseTime, loc, time_zone, charset,
// clientFoundRows, multiStatements and the default isolation may be anything. Only
// autocommit must be on, as it is by default. interpolateParams=true saves a round trip
// for each statement of more than 256 KiB.
//
// Package migrations makes the tables.
//
// Transactions are READ COMMITTED, so binary logs must have binlog_format=ROW, the
// default, or MIXED.
//
// # Several servers
//
// A [Connector] follows a primary that changes, or the nodes of a Galera cluster. A
// server that became read-only under its connections is left at the first write that
// notices, which is tried again on a new connection as long as its StatementTimeout
// lasts.
//
// # Galera
//
// Connections to a node of a Galera cluster must wait until it has applied what others
// committed before they read, and must not prepare statements, because a server loses
// some conflicts between nodes there: wsrep_sync_wait=1&interpolateParams=true in the
// DSN. [New] returns an error without it. Commits that lose against those of other
// nodes are retried. The locks behind Config.MaxSessions of package sessionstore hold
// on one node only: logins at the same moment on two of them may exceed it by one.
package mysql

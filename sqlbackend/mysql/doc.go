// Package mysql keeps sessions in MySQL, 8.0.19 or later, or MariaDB, 10.6 or
// later, through go-sql-driver/mysql.
//
//	db, err := sql.Open("mysql", dsn)
//	…
//	defer db.Close()
//	backend, err := mysql.New(ctx, db, nil)
//
// It asks little of the DSN, but for Galera: parseTime, loc, time_zone, clientFoundRows,
// multiStatements and completion_type may be anything. [New] returns an error that says
// what to change if autocommit is off, if sql_safe_updates is on, if the default
// isolation is READ UNCOMMITTED, if MariaDB's sql_mode has EMPTY_STRING_IS_NULL, or if
// the character set is big5, cp932, gb18030, gb2312, gbk, sjis, binary or swe7; none of
// that is a server's default. interpolateParams=true saves a round trip for each
// statement of more than 256 KiB.
//
// Package migrations makes the tables.
//
// Transactions are READ COMMITTED, so binary logs must have binlog_format=ROW, the
// default, or MIXED.
//
// A session's data must fit into max_allowed_packet, which is 64 MB, or 16 MB on MariaDB,
// unless somebody has made it smaller. A save that does not fit fails; the server hangs up on it.
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

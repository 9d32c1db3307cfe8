package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
)

// collide is Statements.Collide for Galera, whose nodes hold their locks each for
// itself. When transactions of two nodes have changed one row, the later one to commit
// is undone. The slot is a lower bound, which a microsecond less leaves it.
const collide = `
UPDATE {sessions} AS s
SET s.expiry_slot = s.expiry_slot - 1
WHERE {is_sibling}`

// isGalera reports whether db is a node of a Galera cluster. It returns an error if
// its connections read what is older than commits that were acknowledged on other
// nodes: they would refuse sessions that were just created there (P4, P5). It returns
// one too if they prepare statements on the server. Measured on MariaDB 11: if another
// node's commit undoes a transaction between two statements of it, and the next one is
// prepared, the error is lost, and what follows is executed outside of any
// transaction. Of 4,000 joins beside a renewal or an end on another node, 29 outlived
// it that way, and none without preparing (P3, P7).
func isGalera(ctx context.Context, db *sql.DB) (bool, error) {
	is, err := variables(ctx, db, "wsrep_on", "wsrep_sync_wait")
	if err != nil {
		return false, fmt.Errorf("mysql: read the variables of a cluster: %w", err)
	}
	if is["wsrep_on"] != "ON" {
		return false, nil
	}
	wait := is["wsrep_sync_wait"]
	if mask, err := strconv.Atoi(wait); err != nil || mask&1 == 0 {
		return false, fmt.Errorf("mysql: the server is a node of a Galera cluster and wsrep_sync_wait is %s: add wsrep_sync_wait=1 to the DSN, so that nodes see each other's sessions", wait)
	}
	prepares, err := isPreparing(ctx, db)
	if err != nil {
		return false, err
	}
	if prepares {
		return false, errors.New("mysql: the server is a node of a Galera cluster and statements are prepared: add interpolateParams=true to the DSN, so that no conflict with another node is missed")
	}
	return true, nil
}

// isPreparing reports whether statements with parameters are prepared on the server.
func isPreparing(ctx context.Context, db *sql.DB) (bool, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return false, fmt.Errorf("mysql: connect: %w", err)
	}
	defer conn.Close()
	const count = `SHOW SESSION STATUS LIKE 'Com_stmt_prepare'`
	var name string
	var before, after, one int
	if err := conn.QueryRowContext(ctx, count).Scan(&name, &before); err != nil {
		return false, fmt.Errorf("mysql: count prepared statements: %w", err)
	}
	if err := conn.QueryRowContext(ctx, "SELECT ?", 1).Scan(&one); err != nil {
		return false, fmt.Errorf("mysql: select a parameter: %w", err)
	}
	if err := conn.QueryRowContext(ctx, count).Scan(&name, &after); err != nil {
		return false, fmt.Errorf("mysql: count prepared statements: %w", err)
	}
	return after > before, nil
}

package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/holdfast-sessions/holdfast/sqlbackend"
)

// checkConnection returns an error if the connections are set up in a way that makes
// statements fail, or changes what they store. It asks one of them.
func checkConnection(ctx context.Context, pool *pgxpool.Pool) error {
	ctx, cancel := context.WithTimeout(ctx, sqlbackend.DefaultStatementTimeout)
	defer cancel()
	var readOnly, escape, converts bool
	var encoding string
	err := pool.QueryRow(ctx, `
SELECT current_setting('default_transaction_read_only') = 'on' AND NOT pg_is_in_recovery(),
	current_setting('bytea_output') = 'escape',
	pg_client_encoding() NOT IN ('UTF8', 'SQL_ASCII', current_setting('server_encoding')),
	pg_client_encoding()`).Scan(&readOnly, &escape, &converts, &encoding)
	if err != nil {
		return fmt.Errorf("postgres: read the connection's settings: %w", err)
	}
	if readOnly {
		return unsuitable("default_transaction_read_only", "on", "single statements could not write", "off")
	}
	if converts {
		return unsuitable("client_encoding", encoding, "the server would convert principals, which are UTF-8, into other text", "UTF8")
	}
	if !escape {
		return nil
	}
	var bytes []byte // which pgx reads in spite of it, unless its mode makes them text
	err = pool.QueryRow(ctx, `SELECT ''::bytea`).Scan(&bytes)
	if _, ok := errors.AsType[pgx.ScanArgError](err); ok {
		return unsuitable("bytea_output", "escape", "bytes could not be read in this pgx.QueryExecMode", "hex")
	}
	if err != nil {
		return fmt.Errorf("postgres: read bytes: %w", err)
	}
	return nil
}

func unsuitable(setting, is, why, want string) error {
	return fmt.Errorf("postgres: %s is %s, so %s: set it to %s in the connection string, or for the role, the database or the server",
		setting, is, why, want)
}

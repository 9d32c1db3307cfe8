package postgres

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/holdfast-sessions/holdfast/sqlbackend"
)

// classify tells what an error of pgx means.
func classify(err error) sqlbackend.Class {
	_, connecting := errors.AsType[*sqlbackend.ConnectError](err)
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case !ok && connecting && strings.HasSuffix(err.Error(), "closed pool"): // puddle.ErrClosedPool
		return sqlbackend.Other
	case !ok && connecting:
		return sqlbackend.Refused
	case !ok && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)):
		return sqlbackend.Other
	case !ok && pgconn.SafeToRetry(err): // a dead connection, on which nothing was sent
		return sqlbackend.Refused
	case !ok && isBroken(err):
		return sqlbackend.Unreachable
	case !ok:
		return sqlbackend.Other
	}
	switch pgErr.Code {
	case "40001", // serialization_failure
		"40P01": // deadlock_detected
		return sqlbackend.Retryable
	case "55P03": // lock_not_available
		return sqlbackend.Locked
	case "23505": // unique_violation
		return sqlbackend.Duplicate
	case "42P01", // undefined_table
		"3F000": // invalid_schema_name
		return sqlbackend.NoTable
	case "25006", // read_only_sql_transaction: a standby, or a primary that was demoted
		"57P01", // admin_shutdown
		"57P03", // cannot_connect_now
		"53300": // too_many_connections
		return sqlbackend.Refused
	case "57P02", // crash_shutdown, which may come at any time
		"08P01", // protocol_violation, what PgBouncer calls a server that is gone
		"08006", // connection_failure
		"08003": // connection_does_not_exist
		return sqlbackend.Unreachable
	}
	switch pgErr.Code[:min(2, len(pgErr.Code))] {
	case "22", // data_exception, a NUL in text for instance
		"23", // integrity_constraint_violation
		"54": // program_limit_exceeded
		return sqlbackend.Unfit
	}
	if connecting {
		return sqlbackend.Unreachable // a wrong password, say: waiting does not help
	}
	return sqlbackend.Other
}

// isBroken reports whether err is one of a connection, and not of what was asked on it.
func isBroken(err error) bool {
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

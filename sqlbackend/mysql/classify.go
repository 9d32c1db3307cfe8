package mysql

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"strings"

	"github.com/go-sql-driver/mysql"

	"github.com/holdfast-sessions/holdfast/sqlbackend"
)

// classify tells what an error of go-sql-driver/mysql means.
func classify(err error) sqlbackend.Class {
	myErr, ok := errors.AsType[*mysql.MySQLError](err)
	if !ok {
		return classifyConnection(err)
	}
	switch myErr.Number {
	case 1153, // ER_NET_PACKET_TOO_LARGE
		1105, // ER_UNKNOWN_ERROR, what a prepared statement says of a value that is too large
		1366, // ER_TRUNCATED_WRONG_VALUE_FOR_FIELD
		1406: // ER_DATA_TOO_LONG
		return sqlbackend.Unfit
	case 1213, // ER_LOCK_DEADLOCK, also what Galera's certification answers
		3058, // ER_USER_LOCK_DEADLOCK, of a mutex: with whoever locks both tables, say
		1020: // ER_CHECKREAD, MariaDB: the row changed since the snapshot was taken
		return sqlbackend.Retryable
	case 1205, // ER_LOCK_WAIT_TIMEOUT: the transaction is still to be rolled back, and is
		3572: // ER_LOCK_NOWAIT
		return sqlbackend.Locked
	case 1062: // ER_DUP_ENTRY
		return sqlbackend.Duplicate
	case 1146: // ER_NO_SUCH_TABLE
		return sqlbackend.NoTable
	case 1290, // ER_OPTION_PREVENTS_STATEMENT: --read-only, --super-read-only; nothing else here
		1836, // ER_READ_ONLY_MODE
		1792, // ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION, under transaction_read_only
		1047, // ER_UNKNOWN_COM_ERROR: a node of Galera that has lost its cluster
		1053, // ER_SERVER_SHUTDOWN
		1040, // ER_CON_COUNT_ERROR: too many connections
		1203: // ER_TOO_MANY_USER_CONNECTIONS
		return sqlbackend.Refused
	}
	return sqlbackend.Other
}

// isPacketTooLarge reports that the server refuses a packet. It closes the connection after
// that, since it has not read the packet.
func isPacketTooLarge(err error) bool {
	myErr, ok := errors.AsType[*mysql.MySQLError](err)
	return ok && myErr.Number == 1153 // ER_NET_PACKET_TOO_LARGE
}

func classifyConnection(err error) sqlbackend.Class {
	_, connecting := errors.AsType[*sqlbackend.ConnectError](err)
	_, network := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, mysql.ErrPktTooLarge): // and was not sent
		return sqlbackend.Unfit
	case connecting && strings.HasSuffix(err.Error(), "sql: database is closed"):
		return sqlbackend.Other
	case connecting || errors.Is(err, driver.ErrBadConn): // nothing was sent
		return sqlbackend.Refused
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return sqlbackend.Other
	case network || errors.Is(err, mysql.ErrInvalidConn) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return sqlbackend.Unreachable
	}
	return sqlbackend.Other
}

package sqlite

import (
	"errors"
	"strings"

	"modernc.org/sqlite"

	"github.com/holdfast-sessions/holdfast/sqlbackend"
)

// classify tells what an error of modernc.org/sqlite means.
func classify(err error) sqlbackend.Class {
	liteErr, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return sqlbackend.Other
	}
	switch code := liteErr.Code(); code {
	case 1555, 2067: // SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_UNIQUE
		return sqlbackend.Duplicate
	default:
		switch code & 0xff { // without the extension
		case 5, 6: // SQLITE_BUSY, SQLITE_LOCKED
			return sqlbackend.Retryable
		case 18: // SQLITE_TOOBIG
			return sqlbackend.Unfit
		case 1: // SQLITE_ERROR
			if strings.Contains(liteErr.Error(), "no such table") {
				return sqlbackend.NoTable
			}
		}
	}
	return sqlbackend.Other
}

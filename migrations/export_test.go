package migrations

import (
	"context"
	"database/sql"
)

// Lock makes conn hold the lock that Up and Down take.
func Lock(ctx context.Context, conn *sql.Conn, dialect Dialect) error {
	locker, err := newLocker(dialect, nil)
	if err != nil {
		return err
	}
	return locker.(preparingLocker).SessionLocker.SessionLock(ctx, conn)
}

package migrations

import (
	"errors"
	"fmt"
)

// The errors of [Check]; test for them with [errors.Is].
var (
	// ErrSchemaMissing says that the database has no tables of this library under
	// the configured prefix and schema.
	ErrSchemaMissing = errors.New("migrations: schema missing")

	// ErrSchemaOlder says that the tables are of an earlier version than the
	// library needs.
	ErrSchemaOlder = errors.New("migrations: schema older than the library")

	// ErrSchemaNewer says that the tables are of a later version than the library
	// knows.
	ErrSchemaNewer = errors.New("migrations: schema newer than the library")
)

// Check reports why a database whose schema has the version stored cannot be
// used by this version of the library: the error wraps [ErrSchemaMissing],
// [ErrSchemaOlder] or [ErrSchemaNewer] and says what to do. A version of 0 stands
// for a database without schema.
func Check(stored int64) error { return check(stored, Latest) }

func check(stored, latest int64) error {
	switch {
	case stored <= 0:
		return fmt.Errorf("%w: the library needs version %d; run migrations.Up, or check table prefix and schema", ErrSchemaMissing, latest)
	case stored < latest:
		return fmt.Errorf("%w: it has version %d, the library needs %d; run migrations.Up", ErrSchemaOlder, stored, latest)
	case stored > latest:
		return fmt.Errorf("%w: it has version %d, the library knows %d; use a newer library, or have that one run migrations.Down to %d", ErrSchemaNewer, stored, latest, latest)
	}
	return nil
}

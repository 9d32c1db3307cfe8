package sqlbackend

import "context"

// A Querier runs statements, each alone or all within one transaction. Rows never
// stay open after a call, and no call outlives its context.
type Querier interface {
	// Exec runs a statement and returns how many rows it affected.
	Exec(ctx context.Context, query string, args []any) (affected int64, err error)

	// Query runs a statement and calls row for each row it answers, until row
	// returns an error. Row must have copied what it needs when it returns.
	Query(ctx context.Context, query string, args []any, row func(scan Scan) error) error
}

// Scan copies the columns of a row into variables, as [database/sql.Rows.Scan] does.
type Scan func(dest ...any) error

// A Tx runs statements within one transaction.
type Tx interface {
	Querier

	// Lock waits for mutexes, in the order given, and takes them. Whoever has one keeps
	// it until the transaction has been committed or rolled back, and no other
	// transaction has it meanwhile; so the statements that follow see what the one that
	// had it before has committed. Names of mutexes are ASCII, at most 64 bytes. A
	// transaction does not take the same one twice. After an error it must be rolled back.
	Lock(ctx context.Context, mutexes []string) error
}

// A DB is how a [Backend] reaches its database. Its methods are safe for
// concurrent use. If it got no connection, its error is a [ConnectError]. A
// connection that has answered with an error of class [Refused] is not used again,
// nor are others that were made before.
type DB interface {
	// Outside of a transaction Query may be answered by a connection that only
	// reads.
	Querier

	// InTx runs do in a transaction that is READ COMMITTED, or one of a database on which
	// only one runs at a time, commits it if do returns nil, and rolls it back if do
	// returns an error, which it returns as it is, or panics. Do uses no Querier but the
	// Tx it is given, and that only until it returns.
	//
	// An error of the commit is a [CommitError]. If the connection is lost before that, the
	// error may be a [LostError].
	InTx(ctx context.Context, do func(Tx) error) error
}

// A Pipeliner is a [DB] that can send all statements of a transaction at once, instead
// of waiting for each one's answer.
type Pipeliner interface {
	// Pipeline runs statements in a transaction as InTx would, after it has taken mutexes
	// as Lock does: each sees what was committed before it began. It calls row for each row
	// that the last one answers; what row returns comes too late to keep the transaction
	// from being committed.
	Pipeline(ctx context.Context, mutexes []string, statements []Query, row func(scan Scan) error) error
}

// A Query is a statement with its values.
type Query struct {
	Text string
	Args []any
}

// A Class is what an error of a database driver means to a [Backend].
type Class int

// The classes of errors.
const (
	// Other is any error that is none of the below.
	Other Class = iota
	// Retryable errors leave nothing behind: the database has certainly undone the
	// statement or transaction, and the same may succeed in a moment.
	Retryable
	// Locked errors are Retryable ones which say that somebody else keeps a row locked,
	// and that the statement does not wait, or does no longer.
	Locked
	// Duplicate says that a row with this primary key exists.
	Duplicate
	// NoTable says that a table does not exist.
	NoTable
	// Refused says that the server did not execute the statement, and will not: it
	// only reads, shuts down, or has lost its cluster. A new connection may reach one
	// that does.
	Refused
	// Unreachable says that there is no connection, or no longer: whether the
	// statement was executed is unknown, unless none was there to begin with.
	Unreachable
	// Unfit says that the database does not take a value: it is too large or of a
	// wrong form. It has certainly undone the statement or transaction. The same will
	// fail again, but perhaps not what travelled with it.
	Unfit
)

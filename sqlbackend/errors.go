package sqlbackend

import "errors"

// The errors of a [Backend] beside those of package sessionstore; test for them with
// [errors.Is].
var (
	// ErrUnavailable says that the database does not answer, and that the call was not
	// even tried: several before it have failed. Nothing was stored. Its text names the
	// last failure and since when.
	ErrUnavailable = errors.New("sqlbackend: database unavailable")

	// ErrBusy says that a call waited for its turn in vain, because the database does not
	// keep up with its callers. Nothing was stored.
	ErrBusy = errors.New("sqlbackend: the database does not keep up")
)

// A CommitError is what [DB].InTx returns if COMMIT fails. Unless the database says
// that it undid the transaction, its outcome is unknown.
type CommitError struct{ Err error }

// Error implements error.
func (e *CommitError) Error() string { return "commit: " + e.Err.Error() }

// Unwrap returns what the driver answered.
func (e *CommitError) Unwrap() error { return e.Err }

// A LostError is what [DB].InTx may return if the connection is lost in mid-transaction,
// before COMMIT: nothing has happened. The database may have been shut down, or have hung
// up on a statement. It does not unwrap, so that nobody takes it for the loss of a
// connection on which anything may have happened.
type LostError struct{ Err error }

// Error implements error.
func (e *LostError) Error() string { return "connection lost in mid-transaction: " + e.Err.Error() }

// A lostAnswer is the error of a statement that changes nothing and whose connection was
// lost. It is as good as refused: another connection may be tried.
type lostAnswer struct{ error }

func (e *lostAnswer) Unwrap() error { return e.error }

func isLost(err error) bool {
	_, ok := errors.AsType[*LostError](err)
	return ok
}

// A ConnectError is what a [DB] returns if it got no connection: nothing was executed.
type ConnectError struct{ Err error }

// Error implements error.
func (e *ConnectError) Error() string { return "connect: " + e.Err.Error() }

// Unwrap returns what the driver or pool answered.
func (e *ConnectError) Unwrap() error { return e.Err }

package sqlbackend

import (
	"github.com/holdfast-sessions/holdfast/migrations"
	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// A Dialect is all that a [Backend] need know of one kind of database.
type Dialect struct {
	// Name chooses the migrations, and which fields of Config are valid.
	Name migrations.Dialect

	// Numbered begins a parameter's placeholder, its number follows. "" stands for
	// placeholders that are all written as a question mark.
	Numbered string

	// Snippets replace {name} in the Statements, and in other snippets.
	Snippets map[string]string

	// Statements are the dialect's statements.
	Statements Statements

	// Arrays says that lists travel as arrays of the driver's: of IDs and other
	// texts as []string, of numbers as []int64 or []int32, of bytes as [][]byte. Otherwise a
	// list is one text in JSON.
	Arrays bool

	// Literals says that a statement is sent as text that contains its values, bytes in
	// hexadecimal as x'…', unless one is neither a number nor a truth value nor bytes,
	// or that would be more than 256 KiB. Where a statement with values has to be
	// prepared first, that saves a round trip. Needs placeholders that are question
	// marks, and none elsewhere in the text.
	Literals bool

	// SideBySide says that transactions that write run side by side.
	SideBySide bool

	// WriteAffects is how many rows WriteMany reports for each row that it changed.
	WriteAffects int64

	// Consecutive says that events' positions are their seq, and that these are given
	// out one after the other: a run of them without a gap has nothing outstanding.
	Consecutive bool

	// Classify tells what a driver's error, which is not nil, means.
	Classify func(error) Class

	// ID and Text return a value as the driver stores it byte by byte.
	ID   func(sessionstore.ID) any
	Text func(string) any
}

// Statements are a dialect's SQL texts. Besides the dialect's own snippets they
// may contain {sessions}, {events}, {nodes} and {migrations}, the tables; {prefix}, which
// begins the names of indexes; {columns}, the columns of the table s that make up a
// record but for its data; and parameters by name:
//
//	@id @app               the record's key
//	@hash @principal @node @idle @lifetime @data
//	                       what is to be stored
//	@version @proof        what must be stored: version and secret hash
//	@patience              in Update, for how long its caller waits; microseconds
//	@now                   what Clock answered
//	@rows                  JSON: [{"id":"hex","app":"hex","ago":microseconds,"version":1,"proof":"hex"}, …]
//	@ids @apps             JSON: ["hex", …]
//	@ids @apps @agos @versions
//	                       with Arrays, what the lists above hold
//	@proofs @principals @nodes @idles @lifetimes @announced
//	@bytes @starts @sizes  with Arrays, in UpdateMany and CreateMany; the data stand end
//	                       to end in bytes, each from its start on, which counts from 1
//	@orphans @limit @omits see sessionstore.Sweep; microseconds, a number of rows, whether OmitData
//	@slack                 see slotSlack; microseconds
//	@count                 how many rows there are in double brackets
//	@position @seq @window @age
//	                       see Events, PruneEvents and SelectDue; microseconds
//	@name @instance @host @pid @state @ttl
//	                       of a node; microseconds
//
// Lists are parameters, so that a statement's text does not depend on their length;
// in JSON they are hexadecimal with capital letters, so that no character set or
// escaping matters. Only what stands in [[double brackets]] is repeated for each
// row, with commas between. No parameter may stand before it, and placeholders
// must not be Numbered.
//
// Statements whose comment says that they lock must do so, in the order given, on
// databases where transactions run side by side.
type Statements struct {
	// SchemaVersion answers the highest version in {migrations}.
	SchemaVersion string

	// Load answers {columns}, the clock, and the data of @id: of the row of @app,
	// or else of any other application; live rows only. The data are NULL if the
	// row is another application's or has @version.
	Load string

	// LoadMany answers what Load does for each of @rows, whose version is the known
	// one, and last the place in the list, from 1 on. It may answer other
	// applications' rows beside that of the one that asks. The special value "" says
	// that loads do not gain by sharing statements.
	LoadMany string

	// CreateNew inserts a row unless the ID has one, and answers created_at, or
	// nothing. The special value "" leaves it to Clock and Insert.
	CreateNew string

	// CreateMany does what CreateNew does for each of a list of rows whose proof is the
	// secret hash to store, and whose IDs differ. It answers id and created_at of those
	// inserted. The special value "" leaves it to TakenIDs, Clock and Insert.
	CreateMany string

	// TakenIDs answers, at least once, those of @ids that have rows.
	TakenIDs string

	// Clock answers the clock, and whether there are rows under @id.
	Clock string

	// Insert inserts a row created at @now, or with double brackets several.
	Insert string

	// LockIDs locks all rows under @ids, in the order of the list and then of
	// application, and answers app, secret_hash and whether the row is live. It is used
	// twice: with nothing for {unless_locked}, and with NOWAIT, so that it fails with an
	// error of class Locked if others have locked one.
	LockIDs string

	// Update changes the live row @id, @app that has @version and @proof.
	Update string

	// RenewSiblings gives @hash to all rows under @id but that of @app, and raises
	// their version by one.
	RenewSiblings string

	// Collide changes all rows under @id but that of @app in a way that does not
	// matter, so that a session that joins them collides with whoever renews or deletes
	// them at the same time on another server. The special value "" says that LockIDs
	// holds everywhere.
	Collide string

	// CountSessions answers how many live rows hold @principal in @app, without
	// the row @id.
	CountSessions string

	// Touch moves the live rows among @rows forward. It changes none and fails with an
	// error of class Locked if others have locked one.
	Touch string

	// FindIDs answers the IDs of the live rows that hold @principal, in @app
	// unless that is empty.
	FindIDs string

	// SelectIDs answers, and locks in order, the live rows under @ids: {columns},
	// the clock, and the data.
	SelectIDs string

	// DeleteIDs deletes the live rows under @ids, all of whose rows the transaction has
	// locked, answers them as SelectIDs does, and stores an event for each ID that had
	// some. The special value "" leaves it to SelectIDs, DeleteRows and StoreEvents.
	DeleteIDs string

	// DeleteRows deletes the rows @rows.
	DeleteRows string

	// ListID answers {columns} and the clock of the live rows under @id.
	// ListPrincipal answers the same of those that hold @principal, in @app unless
	// that is empty. The most recently used come first.
	ListID, ListPrincipal string

	// SelectDue locks at most @limit rows that nobody else has locked, of those
	// that came due first, in slot @position or later, and either belong to @apps or
	// expired @orphans ago. It answers {columns}, the clock, the data of those that are
	// not live, and the slot.
	SelectDue string

	// SweepDue answers what SelectDue does, the highest of their slots in place of each,
	// and has deleted those that are not live and moved the slots of the others. The
	// special value "" leaves it to SelectDue, DeleteRows and MoveSlots.
	SweepDue string

	// SelectExpired does the same as SelectDue with the rows under @id that are not live.
	SelectExpired string

	// MoveSlots sets the expiry slot of the rows @rows to when they expire.
	MoveSlots string

	// UpdateMany does what Update does to each of a list of rows, which it locks in the
	// order of the list, passing over those that others have locked, and stores an event
	// for each that it has changed and that is to be announced. It answers the place in the
	// list, from 1 on, of those changed. The special value "" leaves it to LockMany and
	// WriteMany.
	UpdateMany string

	// LockMany locks, in the order of @rows, those that are live, have their version and
	// proof, and are not locked by others, and answers their places in the list, from 1
	// on. WriteMany then does to the rows in double brackets what Update does to one,
	// except that it need not look at the condition, and affects Dialect.WriteAffects
	// rows for each. The special value "" leaves it to one Update per row, in one
	// transaction.
	LockMany, WriteMany string

	// UpdateAll does what Update does to each of the rows in double brackets, of which
	// there are @count, if all are live, have their version and proof, and none is locked
	// by others; if not, it changes none. It locks them in the order of the list, and
	// affects one row for each that it changes. It is sent only as text, see Literals. If
	// it changes none, or is "", LockMany and WriteMany are used.
	UpdateAll string

	// UpdateAnnounced is Update, and stores an event of the new version if there was
	// something to update. It affects as many rows as Update would. The special value
	// "" leaves it to Update and StoreEvents, in a transaction.
	UpdateAnnounced string

	// SiblingVersions answers app and version of all rows under @id but that of @app.
	SiblingVersions string

	// StoreEvents stores events: @id, @app and @version in double brackets, or @rows.
	StoreEvents string

	// Events answers at least one row: a cursor, the last cursor that this database
	// can have answered so far, and one of at most @limit events, in order of position
	// and seq: position, seq, id, app and version, or NULLs if there is none. These
	// are the events at the position @position or behind it, and at that position
	// only those behind @seq, which is 0 or more.
	//
	// The cursor is a position such that all events before it, of transactions that
	// have committed or ever will, were visible to the statement; it is not 0. Where
	// this cannot be known, nothing is under way that began more than @window ago.
	Events string

	// PruneEvents removes, of the @limit events with the smallest seq, those that
	// were stored @age ago, and perhaps leaves the last of all.
	PruneEvents string

	// RenewNode stores what the parameters say in the row @name, seen now, if that is
	// @instance's, or else, started now, if its ttl has run out.
	RenewNode string

	// InsertNode inserts the row @name, seen and started now.
	InsertNode string

	// FindNode answers name, instance, host, pid, state, started_at, seen_at, ttl and
	// the clock of the row @name. ListNodes answers the same of all rows, by name.
	FindNode, ListNodes string

	// DeleteNode deletes the row @name if it is @instance's.
	DeleteNode string

	// PruneNodes deletes the rows whose ttl ran out @age ago.
	PruneNodes string
}

package mysql

import "github.com/holdfast-sessions/holdfast/sqlbackend"

// UPDATE assigns from left to right, and expressions further right see the new
// values. So each assignment here stands before those of the columns it reads,
// which is right too where a server assigns all at once.
//
// STRAIGHT_JOIN makes lists drive: rows are found by primary key and locked in the
// order of the list. FORCE INDEX keeps a table of very few rows from being scanned, which
// would lock rows that are not on the list.
var snippets = map[string]string{
	// The time at which the statement began, the same all through it, and in UTC
	// whatever time_zone says. A statement that waited for a lock has an old one,
	// hence GREATEST wherever it is stored, and by_now where a locked row is judged.
	"now": `TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))`,
	// The time at which a row is looked at, after a wait for its lock. There is no such
	// clock in UTC, so it is made of what has passed since the statement began.
	"by_now": `{now} + {passed}`,
	"passed": `GREATEST(0, (UNIX_TIMESTAMP(SYSDATE(6)) - UNIX_TIMESTAMP(NOW(6))) * 1000000)`,

	// MariaDB would give the columns of a list the database's character set, and UNHEX reads
	// no UTF-16.
	"hex_id":     `id CHAR(32) CHARACTER SET ascii`,
	"hex_app":    `app VARCHAR(510) CHARACTER SET ascii`,
	"hex_proof":  `proof CHAR(64) CHARACTER SET ascii`,
	"listed_ids": `JSON_TABLE(@ids, '$[*]' COLUMNS ({hex_id} PATH '$')) AS r`,
	"listed_rows": `JSON_TABLE(@rows, '$[*]' COLUMNS (place FOR ORDINALITY, {hex_id} PATH '$.id', {hex_app} PATH '$.app',
		ago BIGINT PATH '$.ago', version BIGINT PATH '$.version', {hex_proof} PATH '$.proof')) AS r`,
	"listed_keys":     `JSON_TABLE(@rows, '$[*]' COLUMNS ({hex_id} PATH '$.id', {hex_app} PATH '$.app')) AS r`,
	"listed_sessions": `{sessions} AS s FORCE INDEX (PRIMARY)`,
	"is_listed":       `s.id = UNHEX(r.id) AND s.app = UNHEX(r.app)`,
	// The list is one of quoted hexadecimal digits; JSON_CONTAINS parses it for each row.
	"app_listed": `LOCATE(CONCAT('"', HEX(s.app), '"'), @apps) > 0`,

	// MySQL cannot lock a list and wants to be told so; MariaDB does not know OF, and
	// skips comments meant for MySQL's 8.
	"for_update": `FOR UPDATE /*!80001 OF s */`,

	// The rows under @id but that of @app. Of <> MariaDB would make ranges of the primary
	// key, and lock the row behind the last one: another session's.
	"is_sibling": `s.id = @id AND IF(s.app = @app, FALSE, TRUE)`,

	"updated_expiry": `LEAST(s.created_at + @lifetime, GREATEST(s.accessed_at, {now}) + @idle)`,
	"listed_expiry":  `LEAST(s.created_at + r.lifetime, GREATEST(s.accessed_at, {now}) + r.idle)`,
	"written_expiry": `LEAST(created_at + VALUES(lifetime), GREATEST(accessed_at, {now}) + VALUES(idle))`,
	"is_due":         `s.expires_at > {by_now} AND s.accessed_at < {now} - r.ago`,
	"touched_expiry": `LEAST(s.created_at + s.lifetime, {now} - r.ago + s.idle)`,
}

// Mutexes are taken in the order of the list.
const (
	lockMutexes   = `SELECT SUM(GET_LOCK(r.name, ?)) FROM ` + listedMutexes
	unlockMutexes = `SELECT SUM(RELEASE_LOCK(r.name)) FROM ` + listedMutexes
	listedMutexes = `JSON_TABLE(?, '$[*]' COLUMNS (name VARCHAR(64) PATH '$')) AS r`
)

var statements = sqlbackend.Statements{
	SchemaVersion: `SELECT MAX(version_id) FROM {migrations} WHERE is_applied`,

	Load: `
SELECT {columns}, {now}, CASE WHEN s.app = @app AND s.version <> @version THEN s.data END
FROM {sessions} AS s
WHERE s.id = @id AND s.expires_at > {now}
ORDER BY s.app = @app DESC, s.app
LIMIT 1`,

	LoadMany: `
SELECT {columns}, {now}, CASE WHEN s.app = UNHEX(r.app) AND s.version <> r.version THEN s.data END, r.place
FROM {listed_rows} STRAIGHT_JOIN {listed_sessions} ON s.id = UNHEX(r.id)
WHERE s.expires_at > {now}`,

	// No CreateNew: INSERT … SELECT … WHERE NOT EXISTS would lock the gap in which
	// all new IDs fall, and there is no RETURNING in MySQL.
	Clock: `SELECT {now}, EXISTS (SELECT 1 FROM {sessions} AS s WHERE s.id = @id)`,

	Insert: `
INSERT INTO {sessions} (id, app, secret_hash, version, principal, node,
	created_at, accessed_at, expires_at, expiry_slot, idle, lifetime, data)
VALUES [[(@id, @app, @hash, 1, @principal, @node,
	@now, @now, @now + LEAST(@idle, @lifetime), @now + LEAST(@idle, @lifetime), @idle, @lifetime, @data)]]`,

	TakenIDs: `SELECT s.id FROM {listed_ids} STRAIGHT_JOIN {listed_sessions} ON s.id = UNHEX(r.id)`,

	LockIDs: `
SELECT s.app, s.secret_hash, s.expires_at > {by_now}
FROM {listed_ids} STRAIGHT_JOIN {listed_sessions} ON s.id = UNHEX(r.id)
{for_update} {unless_locked}`,

	// The server goes on waiting for the row when its client has hung up.
	Update: `
UPDATE {sessions} AS s
SET s.expiry_slot = IF(s.expiry_slot <= {now} + @slack OR s.expiry_slot > {updated_expiry}, {updated_expiry}, s.expiry_slot),
	s.expires_at = {updated_expiry},
	s.accessed_at = GREATEST(s.accessed_at, {now}),
	s.version = s.version + 1, s.secret_hash = @hash, s.principal = @principal, s.node = @node,
	s.idle = @idle, s.lifetime = @lifetime, s.data = @data
WHERE s.id = @id AND s.app = @app
	AND s.version = @version AND s.secret_hash = @proof AND s.expires_at > {by_now} AND {passed} < @patience`,

	LockMany: `
SELECT r.place
FROM {listed_rows} STRAIGHT_JOIN {listed_sessions} ON {is_listed}
WHERE s.version = r.version AND s.secret_hash = UNHEX(r.proof) AND s.expires_at > {by_now}
{for_update} SKIP LOCKED`,

	// Counting locks the rows in the order of the list before any is changed.
	UpdateAll: `
WITH r (id, app, version, proof, principal, node, idle, lifetime, data) AS (
	VALUES [[ROW(@id, @app, @version, @proof, @principal, @node, @idle, @lifetime, @data)]]
), fit AS (
	SELECT COUNT(*) AS n
	FROM r STRAIGHT_JOIN {listed_sessions} ON s.id = r.id AND s.app = r.app
	WHERE s.version = r.version AND s.secret_hash = r.proof AND s.expires_at > {by_now}
	{for_update} SKIP LOCKED
)
UPDATE fit STRAIGHT_JOIN r STRAIGHT_JOIN {listed_sessions} ON s.id = r.id AND s.app = r.app
SET s.expiry_slot = IF(s.expiry_slot <= {now} + @slack OR s.expiry_slot > {listed_expiry}, {listed_expiry}, s.expiry_slot),
	s.expires_at = {listed_expiry},
	s.accessed_at = GREATEST(s.accessed_at, {now}),
	s.version = s.version + 1, s.principal = r.principal, s.node = r.node,
	s.idle = r.idle, s.lifetime = r.lifetime, s.data = r.data
WHERE fit.n = @count`,

	// All these rows exist and are locked, so it inserts none, or else it affects only
	// one row for it and the transaction is undone.
	WriteMany: `
INSERT INTO {sessions} (id, app, secret_hash, version, principal, node,
	created_at, accessed_at, expires_at, expiry_slot, idle, lifetime, data)
VALUES [[(@id, @app, @hash, 0, @principal, @node, 0, 0, 0, 0, @idle, @lifetime, @data)]]
ON DUPLICATE KEY UPDATE
	expiry_slot = IF(expiry_slot <= {now} + @slack OR expiry_slot > {written_expiry}, {written_expiry}, expiry_slot),
	expires_at = {written_expiry},
	accessed_at = GREATEST(accessed_at, {now}),
	version = version + 1, principal = VALUES(principal), node = VALUES(node),
	idle = VALUES(idle), lifetime = VALUES(lifetime), data = VALUES(data)`,

	RenewSiblings: `
UPDATE {sessions} AS s
SET s.secret_hash = @hash, s.version = s.version + 1
WHERE {is_sibling}`,

	CountSessions: `
SELECT COUNT(*)
FROM {sessions} AS s
WHERE s.principal = @principal AND s.app = @app AND s.id <> @id AND s.expires_at > {now}`,

	// Counting locks the rows before any is changed.
	Touch: `
UPDATE (
	SELECT COUNT(*) AS n
	FROM {listed_rows} STRAIGHT_JOIN {listed_sessions} ON {is_listed}
	WHERE {is_due}
	{for_update} NOWAIT
) AS due STRAIGHT_JOIN {listed_rows} STRAIGHT_JOIN {listed_sessions} ON {is_listed}
SET s.expiry_slot = IF(s.expiry_slot <= {now} + @slack OR s.expiry_slot > {touched_expiry}, {touched_expiry}, s.expiry_slot),
	s.expires_at = {touched_expiry},
	s.accessed_at = {now} - r.ago
WHERE due.n > 0 AND {is_due}`,

	FindIDs: `
SELECT DISTINCT s.id
FROM {sessions} AS s
WHERE s.principal = @principal AND (@app = '' OR s.app = @app) AND s.expires_at > {now}`,

	SelectIDs: `
SELECT {columns}, {now}, s.data
FROM {listed_ids} STRAIGHT_JOIN {listed_sessions} ON s.id = UNHEX(r.id)
WHERE s.expires_at > {now}
{for_update}`,

	DeleteRows: `DELETE s FROM {listed_keys} STRAIGHT_JOIN {listed_sessions} ON {is_listed}`,

	ListID: `
SELECT {columns}, {now}
FROM {sessions} AS s
WHERE s.id = @id AND s.expires_at > {now}
ORDER BY s.accessed_at DESC, s.id, s.app`,

	ListPrincipal: `
SELECT {columns}, {now}
FROM {sessions} AS s
WHERE s.principal = @principal AND (@app = '' OR s.app = @app) AND s.expires_at > {now}
ORDER BY s.accessed_at DESC, s.id, s.app`,

	// Forced, because with a large backlog a scan of the table looks cheaper, and
	// would lock it. What the index tells is asked first: looking for the rows of other
	// applications, which others sweep, and locking them takes sixty times as long.
	SelectDue: `
SELECT {columns}, {now}, CASE WHEN s.expires_at <= {now} AND NOT @omits THEN s.data END, s.expiry_slot
FROM {sessions} AS s FORCE INDEX ({prefix}sessions_expiry_idx)
WHERE s.expiry_slot BETWEEN @position AND {now} AND ({app_listed} OR s.expiry_slot <= {now} - @orphans)
	AND ({app_listed} OR s.expires_at <= {now} - @orphans)
ORDER BY s.expiry_slot
LIMIT @limit
FOR UPDATE SKIP LOCKED`,

	SelectExpired: `
SELECT {columns}, {now}, CASE WHEN NOT @omits THEN s.data END, s.expiry_slot
FROM {sessions} AS s
WHERE s.id = @id AND s.expires_at <= {now} AND ({app_listed} OR s.expires_at <= {now} - @orphans)
ORDER BY s.app
LIMIT @limit
FOR UPDATE SKIP LOCKED`,

	MoveSlots: `
UPDATE {listed_keys} STRAIGHT_JOIN {listed_sessions} ON {is_listed}
SET s.expiry_slot = s.expires_at`,

	SiblingVersions: `SELECT s.app, s.version FROM {sessions} AS s WHERE s.id = @id AND s.app <> @app ORDER BY s.app`,

	// No list, because InnoDB gives out numbers by powers of two to a statement that
	// reads its rows from somewhere, and may lock the table meanwhile.
	StoreEvents: `INSERT INTO {events} (id, app, version, at) VALUES [[(@id, @app, @version, {now})]]`,

	// Numbers are given out in another order than that of commits. But one that is
	// smaller than that of a row of @window ago was given out before that time, to a
	// transaction that has ended since. PruneEvents leaves the last row, so that the
	// last number is known.
	Events: `
SELECT n.settled + 1, n.newest + 1, e.seq, e.seq, e.id, e.app, e.version
FROM (
	SELECT
		COALESCE((SELECT o.seq FROM {events} AS o WHERE o.at <= {now} - @window ORDER BY o.at DESC, o.seq DESC LIMIT 1), 0) AS settled,
		COALESCE((SELECT MAX(m.seq) FROM {events} AS m), 0) AS newest
) AS n
LEFT JOIN (
	SELECT d.seq, d.id, d.app, d.version FROM {events} AS d
	WHERE d.seq >= @position AND d.seq > @seq ORDER BY d.seq LIMIT @limit
) AS e ON TRUE
ORDER BY e.seq`,

	PruneEvents: `
DELETE e
FROM (
	SELECT f.seq, f.at, (SELECT MAX(m.seq) FROM {events} AS m) AS newest
	FROM {events} AS f ORDER BY f.seq LIMIT @limit
) AS o STRAIGHT_JOIN {events} AS e ON e.seq = o.seq
WHERE o.at <= {now} - @age AND o.seq < o.newest`,

	RenewNode: `
UPDATE {nodes}
SET started_at = CASE WHEN instance = @instance THEN started_at ELSE {now} END,
	instance = @instance, host = @host, pid = @pid, state = @state, seen_at = {now}, ttl = @ttl
WHERE name = @name AND (instance = @instance OR seen_at + ttl <= {now})`,

	InsertNode: `
INSERT INTO {nodes} (name, instance, host, pid, state, started_at, seen_at, ttl)
VALUES (@name, @instance, @host, @pid, @state, {now}, {now}, @ttl)`,

	FindNode: `
SELECT name, instance, host, pid, state, started_at, seen_at, ttl, {now}
FROM {nodes} WHERE name = @name`,

	ListNodes: `
SELECT name, instance, host, pid, state, started_at, seen_at, ttl, {now}
FROM {nodes} ORDER BY name`,

	DeleteNode: `DELETE FROM {nodes} WHERE name = @name AND instance = @instance`,

	PruneNodes: `DELETE FROM {nodes} WHERE seen_at + ttl <= {now} - @age`,
}

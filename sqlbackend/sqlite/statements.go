package sqlite

import "github.com/holdfast-sessions/holdfast/sqlbackend"

// SQLite has one writer at a time, so nothing here locks rows.
var snippets = map[string]string{
	// The same all through a statement. SQLite's clock has milliseconds.
	"now": `(CAST(round(unixepoch('subsec') * 1000) AS INTEGER) * 1000)`,

	"listed_ids":  `(SELECT unhex(value) FROM json_each(@ids))`,
	"listed_apps": `(SELECT value FROM json_each(@apps))`,
	"listed_rows": `(SELECT unhex(value ->> 'id') AS id, CAST(unhex(value ->> 'app') AS TEXT) AS app, value ->> 'ago' AS ago
		FROM json_each(@rows))`,
	"listed_events": `(SELECT unhex(value ->> 'id') AS id, CAST(unhex(value ->> 'app') AS TEXT) AS app,
		coalesce(value ->> 'version', 0) AS version
		FROM json_each(@rows))`,

	"updated_expiry": `min(created_at + @lifetime, max(accessed_at, {now}) + @idle)`,
	"touched_expiry": `min(created_at + lifetime, {now} - r.ago + idle)`,
}

var statements = sqlbackend.Statements{
	SchemaVersion: `SELECT max(version_id) FROM {migrations} WHERE is_applied`,

	Load: `
SELECT {columns}, {now}, CASE WHEN s.app = @app AND s.version <> @version THEN s.data END
FROM {sessions} AS s
WHERE s.id = @id AND s.expires_at > {now}
ORDER BY s.app = @app DESC, s.app
LIMIT 1`,

	// No LoadMany: readers run side by side, and nothing is saved by asking at once.

	// No CreateNew: without a network, two statements cost no more than one.
	Clock: `SELECT {now}, EXISTS (SELECT 1 FROM {sessions} WHERE id = @id)`,

	Insert: `
INSERT INTO {sessions} (id, app, secret_hash, version, principal, node,
	created_at, accessed_at, expires_at, expiry_slot, idle, lifetime, data)
VALUES (@id, @app, @hash, 1, @principal, @node,
	@now, @now, @now + min(@idle, @lifetime), @now + min(@idle, @lifetime), @idle, @lifetime, @data)`,

	TakenIDs: `SELECT id FROM {sessions} WHERE id IN {listed_ids}`,

	LockIDs: `
SELECT s.app, s.secret_hash, s.expires_at > {now}
FROM {sessions} AS s
WHERE s.id IN {listed_ids}
ORDER BY s.id, s.app`,

	Update: `
UPDATE {sessions}
SET version = version + 1, secret_hash = @hash, principal = @principal, node = @node,
	idle = @idle, lifetime = @lifetime, data = @data,
	accessed_at = max(accessed_at, {now}),
	expires_at = {updated_expiry},
	expiry_slot = CASE WHEN expiry_slot <= {now} + @slack OR expiry_slot > {updated_expiry}
		THEN {updated_expiry} ELSE expiry_slot END
WHERE id = @id AND app = @app AND version = @version AND secret_hash = @proof AND expires_at > {now}`,

	RenewSiblings: `UPDATE {sessions} SET secret_hash = @hash, version = version + 1 WHERE id = @id AND app <> @app`,

	CountSessions: `
SELECT count(*)
FROM {sessions}
WHERE principal = @principal AND principal <> '' AND app = @app AND id <> @id AND expires_at > {now}`,

	Touch: `
UPDATE {sessions} AS s
SET accessed_at = {now} - r.ago,
	expires_at = {touched_expiry},
	expiry_slot = CASE WHEN expiry_slot <= {now} + @slack OR expiry_slot > {touched_expiry}
		THEN {touched_expiry} ELSE expiry_slot END
FROM {listed_rows} AS r
WHERE s.id = r.id AND s.app = r.app AND s.expires_at > {now} AND s.accessed_at < {now} - r.ago`,

	FindIDs: `
SELECT DISTINCT s.id
FROM {sessions} AS s
WHERE s.principal = @principal AND s.principal <> '' AND (@app = '' OR s.app = @app) AND s.expires_at > {now}`,

	SelectIDs: `
SELECT {columns}, {now}, s.data
FROM {sessions} AS s
WHERE s.id IN {listed_ids} AND s.expires_at > {now}
ORDER BY s.id, s.app`,

	DeleteRows: `DELETE FROM {sessions} WHERE (id, app) IN (SELECT id, app FROM {listed_rows})`,

	ListID: `
SELECT {columns}, {now}
FROM {sessions} AS s
WHERE s.id = @id AND s.expires_at > {now}
ORDER BY s.accessed_at DESC, s.id, s.app`,

	// principal <> '' lets the plan use the partial index.
	ListPrincipal: `
SELECT {columns}, {now}
FROM {sessions} AS s
WHERE s.principal = @principal AND s.principal <> '' AND (@app = '' OR s.app = @app) AND s.expires_at > {now}
ORDER BY s.accessed_at DESC, s.id, s.app`,

	SelectDue: `
SELECT {columns}, {now}, CASE WHEN s.expires_at <= {now} AND NOT @omits THEN s.data END, s.expiry_slot
FROM {sessions} AS s
WHERE s.expiry_slot BETWEEN @position AND {now} AND (hex(s.app) IN {listed_apps} OR s.expires_at <= {now} - @orphans)
ORDER BY s.expiry_slot
LIMIT @limit`,

	SelectExpired: `
SELECT {columns}, {now}, CASE WHEN NOT @omits THEN s.data END, s.expiry_slot
FROM {sessions} AS s
WHERE s.id = @id AND s.expires_at <= {now} AND (hex(s.app) IN {listed_apps} OR s.expires_at <= {now} - @orphans)
ORDER BY s.app
LIMIT @limit`,

	MoveSlots: `UPDATE {sessions} SET expiry_slot = expires_at WHERE (id, app) IN (SELECT id, app FROM {listed_rows})`,

	// No UpdateAnnounced: a statement with RETURNING cannot be a part of another.
	SiblingVersions: `SELECT app, version FROM {sessions} WHERE id = @id AND app <> @app ORDER BY app`,

	StoreEvents: `INSERT INTO {events} (id, app, version, at) SELECT id, app, version, {now} FROM {listed_events}`,

	// Numbers are given out in the order of commits, and sqlite_sequence knows the
	// last one also when its row was pruned.
	Events: `
SELECT n.newest + 1, n.newest + 1, e.seq, e.seq, e.id, e.app, e.version
FROM (SELECT coalesce((SELECT q.seq FROM sqlite_sequence AS q WHERE q.name = '{prefix}events'), 0) AS newest) AS n
LEFT JOIN (
	SELECT * FROM {events} WHERE seq >= @position AND seq > @seq ORDER BY seq LIMIT @limit
) AS e ON true
ORDER BY e.seq`,

	PruneEvents: `
DELETE FROM {events}
WHERE seq IN (SELECT o.seq FROM (SELECT seq, at FROM {events} ORDER BY seq LIMIT @limit) AS o WHERE o.at <= {now} - @age)`,

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

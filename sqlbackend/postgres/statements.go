package postgres

import "github.com/holdfast-sessions/holdfast/sqlbackend"

// Every parameter has a cast, so that a statement means the same whether pgx asks
// the server for the types, guesses them, or writes the values into the text.
var snippets = map[string]string{
	// clock_timestamp() moves on within a statement and a transaction: a statement
	// that waited for a lock judges by the time after its wait.
	// date_part's double precision tells microseconds apart until the year 2106, at a
	// fraction of the cost of extract's numeric.
	"now": `(date_part('epoch', clock_timestamp()) * 1000000)::bigint`,

	// What {now} is to a whole statement, as a value that an index can be searched by.
	"with_clock": `WITH clock AS MATERIALIZED (SELECT {now} AS now)`,
	"clock":      `(SELECT now FROM clock)`,

	// SELECT around an array hides its length from the planner, which would otherwise
	// plan the statement anew each time it runs, for longer than it then takes. The
	// bounds, which all places are within, make it expect a single row: so it goes by
	// the index, even if it has made the plan that it remembers while the table was
	// nearly empty. Reading all of a table that has grown since took twenty times as long.
	"all_places":  `BETWEEN 1 AND 1000000`,
	"listed_ids":  `(SELECT l.id FROM unnest((SELECT @ids::text[]::uuid[])) WITH ORDINALITY AS l(id, place) WHERE l.place {all_places})`,
	"listed_apps": `(SELECT unnest((SELECT @apps::text[])))`,
	"listed_rows": `(SELECT * FROM unnest((SELECT @ids::text[]::uuid[]), (SELECT @apps::text[]), (SELECT @agos::bigint[]), (SELECT @versions::bigint[]))
		WITH ORDINALITY AS l(id, app, ago, version, place) WHERE l.place {all_places}) AS r`,
	// Without the data, which travel end to end: an array of them costs pgx four times
	// their size in garbage.
	"listed_saves": `(SELECT * FROM unnest((SELECT @ids::text[]::uuid[]), (SELECT @apps::text[]), (SELECT @versions::bigint[]), (SELECT @proofs::bytea[]),
		(SELECT @principals::text[]), (SELECT @nodes::text[]), (SELECT @idles::bigint[]), (SELECT @lifetimes::bigint[]),
		(SELECT @starts::integer[]), (SELECT @sizes::integer[]), (SELECT @announced::boolean[])) WITH ORDINALITY
		AS l(id, app, version, proof, principal, node, idle, lifetime, start, size, announced, place) WHERE l.place {all_places}) AS r`,
	"listed_data": `substr((SELECT @bytes::bytea), r.start, r.size)`,

	// By the table's OID, which it has whether it was found by Config.Schema or by the
	// search_path, and shares with no other table of the database.
	"channel": `'{prefix}events_' || '{events}'::regclass::oid`,

	// Ends a statement that stores events. Always the same payload: PostgreSQL sends
	// one notification for all of a transaction's.
	"and_ring": `RETURNING pg_notify({channel}, '')`,

	// When the statement began, as a value: it may stand in several places and is the
	// same in all of them. A join with a row that holds it costs as much as the rest of
	// the update.
	"began": `(date_part('epoch', statement_timestamp()) * 1000000)::bigint`,

	// {began} may be before a wait for another's lock, unlike {now} in the condition,
	// which is judged again; hence GREATEST.
	"used":    `GREATEST(s.accessed_at, {began})`,
	"expires": `LEAST(s.created_at + @lifetime::bigint, {used} + @idle::bigint)`,
	"update": `
UPDATE {sessions} AS s
SET version = s.version + 1, secret_hash = @hash::bytea, principal = @principal::text, node = @node::text,
	idle = @idle::bigint, lifetime = @lifetime::bigint, data = @data::bytea,
	accessed_at = {used}, expires_at = {expires},
	expiry_slot = CASE WHEN s.expiry_slot <= {began} + @slack::bigint OR s.expiry_slot > {expires} THEN {expires} ELSE s.expiry_slot END
WHERE s.id = @id::uuid AND s.app = @app::text
	AND s.version = @version::bigint AND s.secret_hash = @proof::bytea AND s.expires_at > {now}`,
}

// The mutexes are taken in the order of the list.
const lockMutexes = `SELECT pg_advisory_xact_lock(hashtextextended(m, 0)) FROM unnest($1::text[]) AS m`

var statements = sqlbackend.Statements{
	SchemaVersion: `SELECT max(version_id) FROM {migrations} WHERE is_applied`,

	Load: `
SELECT {columns}, {now}, CASE WHEN s.app = @app::text AND s.version <> @version::bigint THEN s.data END
FROM {sessions} AS s
WHERE s.id = @id::uuid AND s.expires_at > {now}
ORDER BY s.app = @app::text DESC, s.app
LIMIT 1`,

	LoadMany: `
SELECT {columns}, {now}, CASE WHEN s.app = r.app AND s.version <> r.version THEN s.data END, r.place
FROM {listed_rows} JOIN {sessions} AS s ON s.id = r.id
WHERE s.expires_at > {now}`,

	CreateNew: `
INSERT INTO {sessions} (id, app, secret_hash, version, principal, node,
	created_at, accessed_at, expires_at, expiry_slot, idle, lifetime, data)
SELECT @id::uuid, @app::text, @hash::bytea, 1, @principal::text, @node::text,
	c.now, c.now, c.now + LEAST(@idle::bigint, @lifetime::bigint), c.now + LEAST(@idle::bigint, @lifetime::bigint),
	@idle::bigint, @lifetime::bigint, @data::bytea
FROM (SELECT {now} AS now) AS c
WHERE NOT EXISTS (SELECT FROM {sessions} AS s WHERE s.id = @id::uuid)
RETURNING created_at`,

	// ON CONFLICT is for what cannot happen while everyone keeps to the mutexes: one
	// row's trouble is not to be its companions'.
	CreateMany: `
INSERT INTO {sessions} (id, app, secret_hash, version, principal, node,
	created_at, accessed_at, expires_at, expiry_slot, idle, lifetime, data)
SELECT r.id, r.app, r.proof, 1, r.principal, r.node,
	c.now, c.now, c.now + LEAST(r.idle, r.lifetime), c.now + LEAST(r.idle, r.lifetime), r.idle, r.lifetime, {listed_data}
FROM (SELECT {now} AS now) AS c, {listed_saves}
WHERE NOT EXISTS (SELECT FROM {sessions} AS s WHERE s.id = r.id)
ON CONFLICT DO NOTHING
RETURNING id, created_at`,

	Clock: `SELECT {now}, EXISTS (SELECT FROM {sessions} AS s WHERE s.id = @id::uuid)`,

	Insert: `
INSERT INTO {sessions} (id, app, secret_hash, version, principal, node,
	created_at, accessed_at, expires_at, expiry_slot, idle, lifetime, data)
VALUES (@id::uuid, @app::text, @hash::bytea, 1, @principal::text, @node::text,
	@now::bigint, @now::bigint,
	@now::bigint + LEAST(@idle::bigint, @lifetime::bigint), @now::bigint + LEAST(@idle::bigint, @lifetime::bigint),
	@idle::bigint, @lifetime::bigint, @data::bytea)`,

	LockIDs: `
SELECT s.app, s.secret_hash, s.expires_at > {now}
FROM {sessions} AS s
WHERE s.id IN {listed_ids}
ORDER BY s.id, s.app
FOR UPDATE {unless_locked}`,

	Update: `{update}`,

	RenewSiblings: `
UPDATE {sessions} AS s
SET secret_hash = @hash::bytea, version = s.version + 1
WHERE s.id = @id::uuid AND s.app <> @app::text`,

	CountSessions: `
SELECT count(*)
FROM {sessions} AS s
WHERE s.principal = @principal::text AND s.principal <> '' AND s.app = @app::text
	AND s.id <> @id::uuid AND s.expires_at > {now}`,

	// The rows are locked in order first, because an UPDATE locks in whatever order
	// its plan finds them.
	Touch: `
{with_clock}, locked AS (
	SELECT s.id, s.app, {clock} - r.ago AS at
	FROM {sessions} AS s JOIN {listed_rows} ON s.id = r.id AND s.app = r.app
	WHERE s.expires_at > {clock} AND s.accessed_at < {clock} - r.ago
	ORDER BY s.id, s.app
	FOR NO KEY UPDATE OF s NOWAIT
)
UPDATE {sessions} AS s
SET accessed_at = l.at,
	expires_at = LEAST(s.created_at + s.lifetime, l.at + s.idle),
	expiry_slot = CASE
		WHEN s.expiry_slot <= {clock} + @slack::bigint
			OR s.expiry_slot > LEAST(s.created_at + s.lifetime, l.at + s.idle)
		THEN LEAST(s.created_at + s.lifetime, l.at + s.idle)
		ELSE s.expiry_slot END
FROM locked AS l
WHERE s.id = l.id AND s.app = l.app AND s.accessed_at < l.at AND s.expires_at > {now}`,

	FindIDs: `
SELECT DISTINCT s.id
FROM {sessions} AS s
WHERE s.principal = @principal::text AND s.principal <> '' AND (@app::text = '' OR s.app = @app::text)
	AND s.expires_at > {now}`,

	SelectIDs: `
SELECT {columns}, {now}, s.data
FROM {sessions} AS s
WHERE s.id IN {listed_ids} AND s.expires_at > {now}
ORDER BY s.id, s.app
FOR UPDATE`,

	DeleteIDs: `
WITH removed AS (
	DELETE FROM {sessions} AS d WHERE d.id IN {listed_ids} AND d.expires_at > {now} RETURNING d.*
), stored AS (
	INSERT INTO {events} (id, app, version, at)
	SELECT DISTINCT r.id, '', 0, {now} FROM removed AS r
	{and_ring}
)
SELECT {columns}, {now}, s.data FROM removed AS s ORDER BY s.id, s.app`,

	DeleteRows: `DELETE FROM {sessions} AS s USING {listed_rows} WHERE s.id = r.id AND s.app = r.app`,

	ListID: `
SELECT {columns}, {now}
FROM {sessions} AS s
WHERE s.id = @id::uuid AND s.expires_at > {now}
ORDER BY s.accessed_at DESC, s.id, s.app`,

	// principal <> '' lets a plan that does not know the parameter use the partial index.
	ListPrincipal: `
SELECT {columns}, {now}
FROM {sessions} AS s
WHERE s.principal = @principal::text AND s.principal <> '' AND (@app::text = '' OR s.app = @app::text)
	AND s.expires_at > {now}
ORDER BY s.accessed_at DESC, s.id, s.app`,

	// A locked row stays in its place until the end. Arrays let it be found there, without
	// an index, and hide the number of rows from the planner. Partitions count their places
	// alike, so the table is part of one; IS TRUE keeps that from becoming a join, which costs
	// a fifth more.
	SweepDue: `
{with_clock}, due AS MATERIALIZED (
	SELECT s.tableoid AS partition, s.ctid AS place, s.expires_at <= {clock} AS expired, s.expiry_slot AS slot
	FROM {sessions} AS s
	WHERE s.expiry_slot BETWEEN @position::bigint AND {clock} AND (s.app IN {listed_apps} OR s.expires_at <= {clock} - @orphans::bigint)
	ORDER BY s.expiry_slot
	LIMIT @limit::bigint
	FOR UPDATE OF s SKIP LOCKED
), removed AS (
	DELETE FROM {sessions} AS s
	WHERE s.ctid = ANY (ARRAY(SELECT d.place FROM due AS d WHERE d.expired))
		AND ((s.tableoid, s.ctid) IN (SELECT d.partition, d.place FROM due AS d WHERE d.expired)) IS TRUE
	RETURNING {columns}, CASE WHEN NOT @omits::boolean THEN s.data END AS data
), moved AS (
	UPDATE {sessions} AS s SET expiry_slot = s.expires_at
	WHERE s.ctid = ANY (ARRAY(SELECT d.place FROM due AS d WHERE NOT d.expired))
		AND ((s.tableoid, s.ctid) IN (SELECT d.partition, d.place FROM due AS d WHERE NOT d.expired)) IS TRUE
	RETURNING {columns}
)
SELECT {columns}, {clock}, s.data, (SELECT max(d.slot) FROM due AS d) FROM removed AS s
UNION ALL
SELECT {columns}, {clock}, NULL, (SELECT max(d.slot) FROM due AS d) FROM moved AS s`,

	SelectExpired: `
{with_clock}
SELECT {columns}, {clock}, CASE WHEN NOT @omits::boolean THEN s.data END, s.expiry_slot
FROM {sessions} AS s
WHERE s.id = @id::uuid AND s.expires_at <= {clock}
	AND (s.app IN {listed_apps} OR s.expires_at <= {clock} - @orphans::bigint)
ORDER BY s.app
LIMIT @limit::bigint
FOR UPDATE OF s SKIP LOCKED`,

	MoveSlots: `
UPDATE {sessions} AS s SET expiry_slot = s.expires_at
FROM {listed_rows} WHERE s.id = r.id AND s.app = r.app`,

	// The rows are locked in order first, as in Touch. The update then goes by the
	// newest version of a row and judges it again.
	UpdateMany: `
{with_clock}, locked AS (
	SELECT r.*
	FROM {sessions} AS s JOIN {listed_saves} ON s.id = r.id AND s.app = r.app
	WHERE s.version = r.version AND s.secret_hash = r.proof AND s.expires_at > {now}
	ORDER BY s.id, s.app
	FOR NO KEY UPDATE OF s SKIP LOCKED
), updated AS (
	UPDATE {sessions} AS s
	SET version = s.version + 1, principal = r.principal, node = r.node,
		idle = r.idle, lifetime = r.lifetime, data = {listed_data},
		accessed_at = GREATEST(s.accessed_at, c.now),
		expires_at = LEAST(s.created_at + r.lifetime, GREATEST(s.accessed_at, c.now) + r.idle),
		expiry_slot = CASE
			WHEN s.expiry_slot <= c.now + @slack::bigint
				OR s.expiry_slot > LEAST(s.created_at + r.lifetime, GREATEST(s.accessed_at, c.now) + r.idle)
			THEN LEAST(s.created_at + r.lifetime, GREATEST(s.accessed_at, c.now) + r.idle)
			ELSE s.expiry_slot END
	FROM clock AS c, locked AS r
	WHERE s.id = r.id AND s.app = r.app AND s.version = r.version AND s.secret_hash = r.proof AND s.expires_at > {now}
	RETURNING s.id, s.app, s.version, r.announced, r.place
), stored AS (
	INSERT INTO {events} (id, app, version, at)
	SELECT u.id, u.app, u.version, {now} FROM updated AS u WHERE u.announced
	{and_ring}
)
SELECT place FROM updated`,

	UpdateAnnounced: `
WITH u AS ({update} RETURNING s.id, s.app, s.version)
INSERT INTO {events} (id, app, version, at)
SELECT u.id, u.app, u.version, {now} FROM u
{and_ring}`,

	SiblingVersions: `
SELECT s.app, s.version FROM {sessions} AS s WHERE s.id = @id::uuid AND s.app <> @app::text ORDER BY s.app`,

	StoreEvents: `
INSERT INTO {events} (id, app, version, at)
SELECT r.id, r.app, r.version, {now} FROM {listed_rows}
{and_ring}`,

	// What was stored by transactions before xmin was visible to this statement or
	// never will be; what others stored is read again next time.
	Events: `
SELECT n.xmin, n.xmin, e.xid::text::bigint, e.seq, e.id, e.app, e.version
FROM (SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xmin) AS n
LEFT JOIN (
	SELECT d.xid, d.seq, d.id, d.app, d.version
	FROM {events} AS d
	WHERE (d.xid, d.seq) > (@position::bigint::text::xid8, @seq::bigint)
	ORDER BY d.xid, d.seq
	LIMIT @limit::bigint
) AS e ON true
ORDER BY e.xid, e.seq`,

	PruneEvents: `
DELETE FROM {events}
WHERE seq IN (
	SELECT o.seq
	FROM (SELECT d.seq, d.at FROM {events} AS d ORDER BY d.seq LIMIT @limit::bigint FOR UPDATE SKIP LOCKED) AS o
	WHERE o.at <= {now} - @age::bigint)`,

	// c.now is not judged again after a wait for another's lock, as {now} is.
	RenewNode: `
UPDATE {nodes} AS n
SET started_at = CASE WHEN n.instance = @instance::uuid THEN n.started_at ELSE c.now END,
	instance = @instance::uuid, host = @host::text, pid = @pid::bigint, state = @state::text,
	seen_at = c.now, ttl = @ttl::bigint
FROM (SELECT {now} AS now) AS c
WHERE n.name = @name::text AND (n.instance = @instance::uuid OR n.seen_at + n.ttl <= {now})`,

	InsertNode: `
INSERT INTO {nodes} (name, instance, host, pid, state, started_at, seen_at, ttl)
SELECT @name::text, @instance::uuid, @host::text, @pid::bigint, @state::text, c.now, c.now, @ttl::bigint
FROM (SELECT {now} AS now) AS c`,

	FindNode: `
SELECT n.name, n.instance, n.host, n.pid, n.state, n.started_at, n.seen_at, n.ttl, {now}
FROM {nodes} AS n WHERE n.name = @name::text`,

	ListNodes: `
SELECT n.name, n.instance, n.host, n.pid, n.state, n.started_at, n.seen_at, n.ttl, {now}
FROM {nodes} AS n ORDER BY n.name`,

	DeleteNode: `DELETE FROM {nodes} WHERE name = @name::text AND instance = @instance::uuid`,

	PruneNodes: `DELETE FROM {nodes} WHERE seen_at + ttl <= {now} - @age::bigint`,
}

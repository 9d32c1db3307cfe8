-- +goose NO TRANSACTION
-- (The whole run is one transaction already: it is the lock against other processes.)

-- +goose Up

-- One row per session and application. All times are microseconds since 1970 in
-- UTC, by this machine's clock; idle and lifetime are microseconds too. A value of
-- 2^61 or more means "never" or "without limit".
--
-- To read them: SELECT hex(id), datetime(accessed_at / 1000000, 'unixepoch') FROM {sessions};
CREATE TABLE {sessions} (
    id          BLOB    NOT NULL,
    app         TEXT    NOT NULL,
    secret_hash BLOB    NOT NULL CHECK (length(secret_hash) = 32), -- SHA-256 of the secret in the client's cookie
    version     INTEGER NOT NULL,
    principal   TEXT    NOT NULL, -- '' while anonymous
    node        TEXT    NOT NULL, -- that stored the row last
    created_at  INTEGER NOT NULL,
    accessed_at INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL, -- the smaller of created_at + lifetime and accessed_at + idle
    expiry_slot INTEGER NOT NULL, -- when the sweep looks at the row: never later than expires_at
    idle        INTEGER NOT NULL,
    lifetime    INTEGER NOT NULL,
    data        BLOB    NOT NULL,
    PRIMARY KEY (id, app)
) STRICT;

-- The sweep reads this one. It covers expiry_slot, which moves seldom, because an
-- index on expires_at would have to be changed by every save and touch.
CREATE INDEX {prefix}sessions_expiry_idx ON {sessions} (expiry_slot, app);

-- Lists of a principal's sessions read this one.
CREATE INDEX {prefix}sessions_principal_idx ON {sessions} (principal, app) WHERE principal <> '';

-- +goose Down
DROP TABLE {sessions};

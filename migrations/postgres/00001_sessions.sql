-- +goose Up

-- One row per session and application. All times are microseconds since 1970 in
-- UTC, by this server's clock; idle and lifetime are microseconds too. A value of
-- 2^61 or more means "never" or "without limit".
--
-- To read them: SELECT id, to_timestamp(accessed_at / 1e6) FROM {sessions};
--
-- fillfactor leaves a third of each page free, so that a new version of a row
-- finds room beside the old one and no index has to be told (a HOT update).
--
-- No CHECK: PostgreSQL reads and plans it anew for each statement that saves.
--
-- What every save changes stands at the end, beginning with the data: of a new
-- version, the log holds what lies between its first and its last changed byte.
CREATE TABLE {sessions} (
    id          uuid               NOT NULL,
    app         text   COLLATE "C" NOT NULL,
    secret_hash bytea              NOT NULL, -- SHA-256 of the secret in the client's cookie
    principal   text   COLLATE "C" NOT NULL, -- '' while anonymous
    created_at  bigint             NOT NULL,
    idle        bigint             NOT NULL,
    lifetime    bigint             NOT NULL,
    data        bytea              NOT NULL,
    node        text   COLLATE "C" NOT NULL, -- that stored the row last
    version     bigint             NOT NULL,
    accessed_at bigint             NOT NULL,
    expires_at  bigint             NOT NULL, -- the smaller of created_at + lifetime and accessed_at + idle
    expiry_slot bigint             NOT NULL, -- when the sweep looks at the row: never later than expires_at
    PRIMARY KEY (id, app)
) WITH (fillfactor = 70);

-- The sweep reads this one. It covers expiry_slot, which moves seldom, because an
-- index on expires_at would have to be changed by every save and touch.
CREATE INDEX {prefix}sessions_expiry_idx ON {sessions} (expiry_slot, app);

-- Lists of a principal's sessions read this one.
CREATE INDEX {prefix}sessions_principal_idx ON {sessions} (principal, app) WHERE principal <> '';

COMMENT ON TABLE {sessions} IS 'HTTP sessions, one row per session and application; times are microseconds since 1970 UTC';
COMMENT ON COLUMN {sessions}.expiry_slot IS 'lower bound of expires_at that moves seldom; what the sweep goes by';
COMMENT ON COLUMN {sessions}.secret_hash IS 'SHA-256 of the secret in the client''s cookie';

-- +goose Down
DROP TABLE {sessions};

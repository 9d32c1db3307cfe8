-- +goose NO TRANSACTION
-- +goose Up

-- One row per session and application. All times are microseconds since 1970 in
-- UTC, by this server's clock; idle and lifetime are microseconds too. A value of
-- 2^61 or more means "never" or "without limit". Binary types compare byte by byte
-- and depend on no character set, collation, time zone or connection setting.
--
-- To read them: SELECT HEX(id), CONVERT(principal USING utf8mb4),
--   FROM_UNIXTIME(accessed_at / 1e6) FROM {sessions};
--
-- MySQL commits each statement that changes the schema, hence one statement that
-- may be repeated.
CREATE TABLE IF NOT EXISTS {sessions} (
    id          BINARY(16)     NOT NULL,
    app         VARBINARY(255) NOT NULL,
    secret_hash BINARY(32)     NOT NULL COMMENT 'SHA-256 of the secret in the client''s cookie',
    version     BIGINT         NOT NULL,
    principal   VARBINARY(255) NOT NULL COMMENT 'empty while anonymous',
    node        VARBINARY(255) NOT NULL COMMENT 'that stored the row last',
    created_at  BIGINT         NOT NULL,
    accessed_at BIGINT         NOT NULL,
    expires_at  BIGINT         NOT NULL COMMENT 'the smaller of created_at + lifetime and accessed_at + idle',
    expiry_slot BIGINT         NOT NULL COMMENT 'lower bound of expires_at that moves seldom; what the sweep goes by',
    idle        BIGINT         NOT NULL,
    lifetime    BIGINT         NOT NULL,
    data        MEDIUMBLOB     NOT NULL,
    PRIMARY KEY (id, app),
    KEY {prefix}sessions_expiry_idx (expiry_slot, app),
    KEY {prefix}sessions_principal_idx (principal, app)
) ENGINE = InnoDB
  COMMENT = 'HTTP sessions, one row per session and application; times are microseconds since 1970 UTC';

-- +goose Down
DROP TABLE IF EXISTS {sessions};

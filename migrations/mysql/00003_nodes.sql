-- +goose NO TRANSACTION
-- +goose Up

-- Which processes use this database: each renews its row every few seconds, and is
-- alive while seen_at + ttl is in the future. There are few rows.
--
-- To read them: SELECT CONVERT(name USING utf8mb4), CONVERT(host USING utf8mb4), pid,
--   CONVERT(state USING utf8mb4), FROM_UNIXTIME(seen_at / 1e6) FROM {nodes};
CREATE TABLE IF NOT EXISTS {nodes} (
    name       VARBINARY(255) NOT NULL,
    instance   BINARY(16)     NOT NULL COMMENT 'tells processes of one name apart',
    host       VARBINARY(255) NOT NULL,
    pid        BIGINT         NOT NULL,
    state      VARBINARY(255) NOT NULL COMMENT 'serving or draining',
    started_at BIGINT         NOT NULL COMMENT 'microseconds since 1970 UTC, by this server''s clock',
    seen_at    BIGINT         NOT NULL COMMENT 'microseconds since 1970 UTC, by this server''s clock',
    ttl        BIGINT         NOT NULL COMMENT 'microseconds',
    PRIMARY KEY (name)
) ENGINE = InnoDB
  COMMENT = 'processes that use these sessions, alive while seen_at + ttl is in the future';

-- +goose Down
DROP TABLE IF EXISTS {nodes};

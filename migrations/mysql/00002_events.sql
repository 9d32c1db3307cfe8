-- +goose NO TRANSACTION
-- +goose Up

-- What nodes tell each other: a row says that a session changed or ended, and is
-- stored in the transaction that made it true. Old rows are pruned. Readers learn by
-- the index below which rows are so old that no transaction can be under way any
-- more that was given a smaller number.
CREATE TABLE IF NOT EXISTS {events} (
    seq     BIGINT         NOT NULL AUTO_INCREMENT,
    id      BINARY(16)     NOT NULL,
    app     VARBINARY(255) NOT NULL COMMENT 'empty if the session ended',
    version BIGINT         NOT NULL COMMENT 'the record''s new one, 0 if the session ended',
    at      BIGINT         NOT NULL COMMENT 'microseconds since 1970 UTC, by this server''s clock',
    PRIMARY KEY (seq),
    KEY {prefix}events_at_idx (at)
) ENGINE = InnoDB
  COMMENT = 'changes and ends of sessions that nodes have yet to hear of; pruned';

-- +goose Down
DROP TABLE IF EXISTS {events};

-- +goose Up

-- What nodes tell each other: a row says that a session changed or ended, and is
-- stored in the transaction that made it true. Old rows are pruned.
--
-- xid is the transaction that stored the row. Snapshots tell which transactions have
-- ended, so readers that go by it miss none, however late it commits; seq is given
-- out in another order than that of commits. The type is there since PostgreSQL 13.
CREATE TABLE {events} (
    seq     bigint GENERATED ALWAYS AS IDENTITY,
    id      uuid               NOT NULL,
    app     text   COLLATE "C" NOT NULL, -- '' if the session ended
    version bigint             NOT NULL, -- the record's new one, 0 if the session ended
    at      bigint             NOT NULL, -- microseconds since 1970 in UTC, by this server's clock
    xid     xid8               NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (seq)
);

-- Readers go by this one, pruning by the primary key.
CREATE INDEX {prefix}events_xid_idx ON {events} (xid, seq);

COMMENT ON TABLE {events} IS 'changes and ends of sessions that nodes have yet to hear of; pruned';

-- +goose Down
DROP TABLE {events};

-- +goose Up

-- Which processes use this database: each renews its row every few seconds, and is
-- alive while seen_at + ttl is in the future. Times are microseconds since 1970 in
-- UTC, by this server's clock; ttl is microseconds too. There are few rows, and no
-- index but the key, so that renewals are HOT updates.
--
-- To read them: SELECT name, host, pid, state, to_timestamp(seen_at / 1e6) FROM {nodes};
CREATE TABLE {nodes} (
    name       text   COLLATE "C" NOT NULL,
    instance   uuid               NOT NULL, -- tells processes of one name apart
    host       text   COLLATE "C" NOT NULL,
    pid        bigint             NOT NULL,
    state      text   COLLATE "C" NOT NULL, -- serving or draining
    started_at bigint             NOT NULL,
    seen_at    bigint             NOT NULL,
    ttl        bigint             NOT NULL,
    PRIMARY KEY (name)
) WITH (fillfactor = 50);

COMMENT ON TABLE {nodes} IS 'processes that use these sessions, alive while seen_at + ttl is in the future';

-- +goose Down
DROP TABLE {nodes};

-- +goose NO TRANSACTION
-- (The whole run is one transaction already: it is the lock against other processes.)

-- +goose Up

-- Which processes use this database: each renews its row every few seconds, and is
-- alive while seen_at + ttl is in the future. Times are microseconds since 1970 in
-- UTC, by this machine's clock; ttl is microseconds too.
--
-- To read them: SELECT name, host, pid, state, datetime(seen_at / 1000000, 'unixepoch') FROM {nodes};
CREATE TABLE {nodes} (
    name       TEXT    NOT NULL PRIMARY KEY,
    instance   BLOB    NOT NULL, -- tells processes of one name apart
    host       TEXT    NOT NULL,
    pid        INTEGER NOT NULL,
    state      TEXT    NOT NULL, -- serving or draining
    started_at INTEGER NOT NULL,
    seen_at    INTEGER NOT NULL,
    ttl        INTEGER NOT NULL
) STRICT;

-- +goose Down
DROP TABLE {nodes};

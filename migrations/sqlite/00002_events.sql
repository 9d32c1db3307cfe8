-- +goose NO TRANSACTION
-- (The whole run is one transaction already: it is the lock against other processes.)

-- +goose Up

-- What nodes tell each other: a row says that a session changed or ended, and is
-- stored in the transaction that made it true. Old rows are pruned; AUTOINCREMENT
-- remembers the last number all the same.
CREATE TABLE {events} (
    seq     INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    id      BLOB    NOT NULL,
    app     TEXT    NOT NULL, -- '' if the session ended
    version INTEGER NOT NULL, -- the record's new one, 0 if the session ended
    at      INTEGER NOT NULL  -- microseconds since 1970 in UTC, by this machine's clock
) STRICT;

-- +goose Down
DROP TABLE {events};

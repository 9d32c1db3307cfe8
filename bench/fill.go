package main

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// A crowd is many sessions that the database has made of one: they share its
// secret, so that their tokens are known.
type crowd struct {
	d     *database
	model client
	token string // of the model
}

// The rows of a crowd have IDs that grow with their number, as version 7 UUIDs grow
// with time, and end at random. Their times are the model's, moved.
const (
	crowdPostgres = `
INSERT INTO holdfast_sessions (id, app, secret_hash, version, principal, node,
	created_at, accessed_at, expires_at, expiry_slot, idle, lifetime, data)
SELECT (lpad(to_hex(i), 12, '0') || '70008000' || substr(encode(sha256(i::text::bytea), 'hex'), 1, 12))::uuid, app, secret_hash, version, principal, node,
	created_at - ago, accessed_at - ago + used, expires_at - ago + used, expires_at - ago + used, idle, lifetime, data
FROM holdfast_sessions, (
	SELECT i, $3::bigint + $4::bigint * ($2::bigint - i) AS ago, i % 1000 + (-ln(1 - random()) * $5::float8)::bigint AS used
	FROM generate_series($1::bigint, $2::bigint) AS i
) AS times
WHERE id = $6::uuid`

	// Recursion also makes MySQL throw the dice once per row.
	crowdMySQL = `
INSERT INTO holdfast_sessions (id, app, secret_hash, version, principal, node,
	created_at, accessed_at, expires_at, expiry_slot, idle, lifetime, data)
WITH RECURSIVE numbers (i, dice) AS (
	SELECT CAST(? AS SIGNED), RAND() UNION ALL SELECT i + 1, RAND() FROM numbers WHERE i < ?
), times AS (
	SELECT i, ? + ? * (? - i) AS ago, i % 1000 + ROUND(-LN(1 - dice) * ?) AS used FROM numbers
)
SELECT UNHEX(CONCAT(LPAD(HEX(i), 12, '0'), '70008000', SUBSTR(SHA2(i, 256), 1, 12))), app, secret_hash, version, principal, node,
	created_at - ago, accessed_at - ago + used, expires_at - ago + used, expires_at - ago + used, idle, lifetime, data
FROM times, holdfast_sessions
WHERE id = UNHEX(?)`

	crowdBatch = 50_000
	fillers    = 2 // connections that insert at the same time
)

// crowdID returns the ID of a crowd's row.
func crowdID(i int) sessionstore.ID {
	var id sessionstore.ID
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(i))
	copy(id[:6], n[2:])
	id[6], id[8] = 0x70, 0x80
	sum := sha256.Sum256([]byte(strconv.Itoa(i)))
	copy(id[10:], sum[:6])
	return id
}

// newCrowd makes the session that the others will be copies of.
func newCrowd(d *database, c contestant) (*crowd, error) {
	model := newInProcess(c.handler)
	if err := model.do(pathStart); err != nil {
		return nil, err
	}
	for i, name := range model.names {
		if name == "session" {
			return &crowd{d: d, model: model, token: model.values[i]}, nil
		}
	}
	return nil, fmt.Errorf("%s set no session cookie", c.name)
}

// A past says when the sessions of a crowd began and ended, compared with the model.
type past struct {
	older time.Duration // how much earlier the last one began
	apart time.Duration // between one beginning and the next
	used  time.Duration // on average, and distributed exponentially
}

// add inserts the rows from first to last.
func (c *crowd) add(ctx context.Context, first, last int, p past) error {
	raw, err := base64.RawURLEncoding.DecodeString(c.token)
	if err != nil {
		return err
	}
	model := hex.EncodeToString(raw[:16])
	batches := make(chan int)
	filling, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for range fillers {
		wg.Go(func() {
			if err := c.fill(filling, batches, last, p, model); err != nil {
				cancel(err)
			}
		})
	}
	for ; first <= last && filling.Err() == nil; first += crowdBatch {
		select {
		case batches <- first:
		case <-filling.Done():
		}
	}
	close(batches)
	wg.Wait()
	return context.Cause(filling)
}

// fill inserts the batches of rows that begin at the numbers it is given.
func (c *crowd) fill(ctx context.Context, batches <-chan int, last int, p past, model string) error {
	conn, err := c.d.raw.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if c.d.kind == onMySQL {
		for _, statement := range []string{
			"SET SESSION cte_max_recursion_depth = " + strconv.Itoa(crowdBatch+1),
			"SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED", // or the gap after the model is locked
		} {
			if _, err := conn.ExecContext(ctx, statement); err != nil {
				return err
			}
		}
		// Saves time where it is permitted.
		_, _ = conn.ExecContext(ctx, "SET SESSION sql_log_bin = 0")
		defer conn.ExecContext(context.WithoutCancel(ctx), "SET SESSION sql_log_bin = 1")
	}
	for first := range batches {
		end := min(last, first+crowdBatch-1)
		apart, used := p.apart.Microseconds(), p.used.Microseconds()
		older := p.older.Microseconds() + apart*int64(last-end)
		if c.d.kind == onMySQL {
			_, err = conn.ExecContext(ctx, crowdMySQL, first, end, older, apart, end, used, model)
		} else {
			_, err = conn.ExecContext(ctx, crowdPostgres, first, end, older, apart, used, model)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// settle lets the database do what it would have done by itself after so many inserts.
func (c *crowd) settle(ctx context.Context) error {
	if c.d.kind == onMySQL {
		return c.settleMySQL(ctx)
	}
	for _, statement := range []string{"VACUUM ANALYZE holdfast_sessions", "CHECKPOINT"} {
		if _, err := c.d.raw.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// settleMySQL also lets InnoDB write the pages to their places, as CHECKPOINT does.
func (c *crowd) settleMySQL(ctx context.Context) error {
	for _, statement := range []string{"ANALYZE TABLE holdfast_sessions", "SET GLOBAL innodb_max_dirty_pages_pct = 0"} {
		if _, err := c.d.raw.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	defer c.d.raw.ExecContext(context.WithoutCancel(ctx), "SET GLOBAL innodb_max_dirty_pages_pct = DEFAULT")
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		dirty, err := c.d.number(ctx, "SELECT VARIABLE_VALUE FROM performance_schema.global_status WHERE VARIABLE_NAME = 'Innodb_buffer_pool_pages_dirty'")
		if err != nil {
			return err
		}
		if dirty < 100 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("after 5 minutes, %.0f pages are still to be written", dirty)
		}
	}
}

// join gives a client the session of a row. It has not been told of any version,
// so its first request is a cold load.
func (c *crowd) join(to *inProcess, row int) error {
	token, err := retoken(c.token, crowdID(row))
	if err != nil {
		return err
	}
	to.jar = jar{}
	to.set("session=" + token)
	to.carry()
	return nil
}

// retoken returns the token of another session that has the same secret.
func retoken(token string, id sessionstore.ID) (string, error) {
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return "", err
	}
	copy(raw, id[:])
	return base64.RawURLEncoding.EncodeToString(raw), nil
}

// member returns a client with the session of a row.
func (c *crowd) member(handler contestant, row int) (*inProcess, error) {
	m := newInProcess(handler.handler)
	if err := c.join(m, row); err != nil {
		return nil, err
	}
	if err := m.do(pathRead); err != nil {
		return nil, err
	}
	if !strings.HasPrefix(string(m.body()), newContent().User) {
		return nil, fmt.Errorf("row %d is nobody's session: %q", row, m.body())
	}
	return m, nil
}

package postgres_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/holdfast-sessions/holdfast/internal/dbtest"
)

// A standby that lagged behind becomes the primary and gives out the same transaction IDs
// again. What the old primary's cursors stood for must be forgotten (P6).
func TestHostileCursorsAfterAFailover_P6(t *testing.T) {
	r := dbtest.Replicated(t, true)
	b, ctx := newBackend(t, dbtest.Pool(t, r.URL), nil), t.Context()
	connect := func() *pgx.Conn {
		c, err := pgx.Connect(ctx, r.URL)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	const insert = `INSERT INTO holdfast_events (id, app, version, at)
		SELECT gen_random_uuid(), 'shop', 2, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint`
	exec := func(c *pgx.Conn, sql string) {
		t.Helper()
		if _, err := c.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	_, cursor, err := b.Events(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	read := func(what string) int {
		t.Helper()
		events, next, err := b.Events(ctx, cursor)
		for try := 0; err != nil && try < 20; try++ {
			time.Sleep(300 * time.Millisecond)
			events, next, err = b.Events(ctx, cursor)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d events, cursor %d -> %d", what, len(events), cursor, next)
		cursor = next
		return len(events)
	}
	old := connect()
	exec(old, insert)
	read("before")
	r.Part(t)
	for range 14 {
		exec(old, insert)
		read("on the old primary")
	}
	r.Primary.Kill(t)
	r.Promote(t)
	a, c := connect(), connect()
	read("after the failover")
	read("after the failover")
	exec(a, "BEGIN")
	exec(a, insert)
	exec(c, insert)
	read("beside a transaction")
	exec(a, "COMMIT")
	exec(c, insert)
	if got := read("then"); got < 2 {
		t.Errorf("read %d events, want at least 2: that of the transaction which has committed, and the latest", got)
	}
}

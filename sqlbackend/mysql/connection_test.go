package mysql_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	driver "github.com/go-sql-driver/mysql"

	"github.com/holdfast-sessions/holdfast/internal/dbtest"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sqlbackend/mysql"
)

// newRecord returns a session that was not stored yet.
func newRecord(app, principal string) *sessionstore.Record {
	return dbtest.Record(app, principal, []byte("a'b\\\"\x00\xff\n€"))
}

// Fourteen hours ahead of UTC.
var kiritimati = func() *time.Location {
	loc, err := time.LoadLocation("Pacific/Kiritimati")
	if err != nil {
		panic(err)
	}
	return loc
}()

// connections are settings that change what a driver or a server makes of values.
var connections = map[string]func(*driver.Config){
	"default":           func(*driver.Config) {},
	"parseTime":         func(c *driver.Config) { c.ParseTime = true },
	"loc":               func(c *driver.Config) { c.ParseTime, c.Loc = true, kiritimati },
	"time_zone":         func(c *driver.Config) { c.Params = map[string]string{"time_zone": "'-11:00'"} },
	"latin1":            func(c *driver.Config) { c.Params = map[string]string{"charset": "latin1"} },
	"interpolateParams": func(c *driver.Config) { c.InterpolateParams = true },
	"multiStatements":   func(c *driver.Config) { c.MultiStatements, c.InterpolateParams = true, true },
	"clientFoundRows":   func(c *driver.Config) { c.ClientFoundRows = true },
	"sql_mode": func(c *driver.Config) {
		c.Params = map[string]string{"sql_mode": "'ANSI_QUOTES,PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH'"}
		c.InterpolateParams = true
	},
	"no sql_mode": func(c *driver.Config) { c.Params = map[string]string{"sql_mode": "''"} },
}

func TestConnectionSettingsChangeNothing(t *testing.T) {
	for name, database := range servers {
		t.Run(name, func(t *testing.T) {
			dsn := database(t)
			reference := newBackend(t, dbtest.OpenMySQL(t, dsn), nil)
			for setting, change := range connections {
				t.Run(setting, func(t *testing.T) {
					ctx := t.Context()
					b := newBackend(t, dbtest.OpenMySQL(t, withDSN(t, dsn, change)), nil)

					for _, principal := range []string{"Bob", "bob", "Bob ", "Böb", "Bo\u0308b", "\U0001f600", `'"\`} {
						rec := newRecord("shop "+principal, principal)
						created, err := b.Create(ctx, rec, sessionstore.Condition{MaxSessions: 100})
						if err != nil {
							t.Fatal(err)
						}
						if off := time.Since(created).Abs(); off > time.Minute {
							t.Errorf("created %s from now", off)
						}
						for _, reader := range []sessionstore.Backend{b, reference} {
							got, err := reader.Load(ctx, rec.Key, 0)
							if err != nil {
								t.Fatalf("%q: %v", principal, err)
							}
							if got.Principal != principal || got.Key != rec.Key || !bytes.Equal(got.Data, rec.Data) || !got.CreatedAt.Equal(created) {
								t.Errorf("stored %+v, loaded %+v", rec, got)
							}
						}
						err = b.Update(ctx, rec, sessionstore.Condition{Version: 1, SecretHash: rec.SecretHash})
						if err != nil {
							t.Error(err)
						}
						if err := b.Touch(ctx, []sessionstore.Touch{{Key: rec.Key}}); err != nil {
							t.Error(err)
						}
						listed := 0
						for info, err := range b.List(ctx, sessionstore.Selector{Principal: principal}) {
							if err != nil {
								t.Fatal(err)
							}
							if info.Key == rec.Key && info.Version == 2 && info.AccessedAt.After(info.CreatedAt) {
								listed++
							}
						}
						if removed, err := b.Delete(ctx, sessionstore.Selector{Principal: principal}); err != nil || len(removed) != 1 || listed != 1 {
							t.Errorf("%q: listed %d, deleted %d, error %v", principal, listed, len(removed), err)
						}
					}
				})
			}
		})
	}
}

// Nothing depends on the character set that a database has for columns which name none.
// MariaDB's lists did: in UTF-16 they named no session, so that logouts ended none.
func TestEveryCharacterSetOfADatabase(t *testing.T) {
	for name, database := range servers {
		t.Run(name, func(t *testing.T) {
			ctx, dsn := t.Context(), database(t)
			raw := dbtest.OpenMySQL(t, dsn)
			for _, set := range charsets(t, dsn) {
				if _, err := raw.Exec("ALTER DATABASE CHARACTER SET " + set); err != nil {
					t.Fatal(err)
				}
				b := newBackend(t, dbtest.OpenMySQL(t, dsn), nil)
				rec := newRecord("shop", set)
				if _, err := b.Create(ctx, rec, sessionstore.Condition{MaxSessions: 1}); err != nil {
					t.Errorf("%s: %v", set, err)
				}
				if err := b.Touch(ctx, []sessionstore.Touch{{Key: rec.Key}}); err != nil {
					t.Errorf("%s: %v", set, err)
				}
				if got, err := b.Load(ctx, rec.Key, 0); err != nil || !got.AccessedAt.After(got.CreatedAt) {
					t.Errorf("%s: touched, then loaded %+v: %v", set, got, err)
				}
				if removed, err := b.Delete(ctx, sessionstore.Selector{ID: rec.Key.ID}); err != nil || len(removed) != 1 {
					t.Errorf("%s: removed %d sessions: %v", set, len(removed), err)
				}
			}
		})
	}
}

func TestNewRefusesUnsuitableConnections(t *testing.T) {
	settings := []struct{ param, value, want, only string }{
		{"autocommit", "0", "autocommit is OFF", ""},
		{"sql_safe_updates", "1", "sql_safe_updates is ON", ""},
		{"transaction_isolation", "'READ-UNCOMMITTED'", "_isolation is READ-UNCOMMITTED", ""},
		{"sql_mode", "'STRICT_TRANS_TABLES,EMPTY_STRING_IS_NULL'", "sql_mode is EMPTY_STRING_IS_NULL", "MariaDB"},
		{"charset", "big5", "character_set_client is big5", ""},
		{"charset", "binary", "character_set_client is binary", ""},
		{"charset", "cp932", "character_set_client is cp932", ""},
		{"charset", "gb18030", "character_set_client is gb18030", "MySQL"},
		{"charset", "gb2312", "character_set_client is gb2312", ""},
		{"charset", "gbk", "character_set_client is gbk", ""},
		{"charset", "sjis", "character_set_client is sjis", ""},
		{"charset", "swe7", "character_set_client is swe7", "MariaDB"}, // in which MySQL shows no variables
	}
	for name, database := range servers {
		t.Run(name, func(t *testing.T) {
			dsn := database(t)
			for _, s := range settings {
				if s.only != "" && s.only != name {
					continue
				}
				db := dbtest.OpenMySQL(t, withDSN(t, dsn, func(c *driver.Config) { c.Params = map[string]string{s.param: s.value} }))
				_, err := mysql.New(t.Context(), db, nil)
				if err == nil || !strings.Contains(err.Error(), s.want) {
					t.Errorf("with %s=%s New returned %v", s.param, s.value, err)
				}
			}
		})
	}
}

// TestDataNeverBecomeSQL tries every character set of the server. One in which a
// backslash may be the end of a character, New must not let pass.
func TestDataNeverBecomeSQL(t *testing.T) {
	// Large, so that the driver writes it into the statement.
	data := bytes.Repeat([]byte("x"), 300<<10)
	for b := 0x80; b <= 0xff; b++ {
		data = append(append(data, byte(b)), "', s.principal = 'admin' -- "...)
	}
	for name, database := range servers {
		t.Run(name, func(t *testing.T) {
			dsn, stored := database(t), 0
			for _, charset := range charsets(t, dsn) {
				db := dbtest.OpenMySQL(t, withDSN(t, dsn, func(c *driver.Config) {
					c.InterpolateParams = true
					c.Params = map[string]string{"charset": charset}
				}))
				b, err := mysql.New(t.Context(), db, nil)
				if err != nil { // refused by the server, or by New
					continue
				}
				rec := newRecord("shop", "Bob")
				if _, err := b.Create(t.Context(), rec, sessionstore.Condition{}); err != nil {
					t.Errorf("%s: %v", charset, err)
					continue
				}
				rec.Data = data
				if err := b.Update(t.Context(), rec, sessionstore.Condition{Version: 1, SecretHash: rec.SecretHash}); err != nil {
					t.Errorf("%s: %.200s", charset, err.Error())
				}
				got, err := b.Load(t.Context(), rec.Key, 0)
				if err != nil {
					t.Fatal(err)
				}
				if got.Principal != "Bob" || !bytes.Equal(got.Data, data) {
					t.Errorf("%s: loaded %d of %d bytes, principal %q", charset, len(got.Data), len(data), got.Principal)
				}
				stored++
			}
			if stored < 20 {
				t.Errorf("only %d character sets were tried", stored)
			}
		})
	}
}

func charsets(t *testing.T, dsn string) (names []string) {
	t.Helper()
	rows, err := dbtest.OpenMySQL(t, dsn).QueryContext(t.Context(), "SELECT character_set_name FROM information_schema.character_sets")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return names
}

// TestNoStatementReadsTheWholeTable goes by the server's own count of rows read in
// sequence: it also sees what a plan's description does not tell.
func TestNoStatementReadsTheWholeTable(t *testing.T) {
	for name, database := range servers {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			db := dbtest.OpenMySQL(t, database(t))
			db.SetMaxOpenConns(1) // the counters are a connection's
			fill(t, db)
			b := newBackend(t, db, nil)
			var touches []sessionstore.Touch
			for range 200 {
				touches = append(touches, sessionstore.Touch{Key: newRecord("shop", "").Key})
			}
			for call, do := range map[string]func() error{
				"Load": func() error {
					if _, err := b.Load(ctx, touches[0].Key, 0); !errors.Is(err, sessionstore.ErrNotFound) {
						return fmt.Errorf("Load returned %w", err)
					}
					return nil
				},
				"List": func() error {
					for _, err := range b.List(ctx, sessionstore.Selector{Principal: "user 77"}) {
						return err
					}
					return nil
				},
				"Events": func() error {
					events, _, err := b.Events(ctx, rowsInTable)
					if len(events) == 0 || len(events) > 10 { // the last one, and those of Delete
						t.Errorf("Events returned %d events", len(events))
					}
					return err
				},
				"Touch":  func() error { return b.Touch(ctx, touches) },
				"Delete": func() error { _, err := b.Delete(ctx, sessionstore.Selector{Principal: "user 7"}); return err },
				"DeleteExpired": func() error { // with a backlog of half the table
					removed, more, err := b.DeleteExpired(ctx, sessionstore.Sweep{Apps: []string{"shop"}, Limit: 100})
					if len(removed) != 100 || !more {
						t.Errorf("DeleteExpired returned %d records", len(removed))
					}
					return err
				},
			} {
				before := rowsReadInSequence(t, db)
				if err := do(); err != nil {
					t.Fatal(err)
				}
				if read := rowsReadInSequence(t, db) - before; read > rowsInTable/4 {
					t.Errorf("%s read %d rows of %d", call, read, rowsInTable)
				}
			}
		})
	}
}

// A sweep tells by the index alone which expired sessions are other applications'. It used
// to look for their rows and to lock them: 40,000 took a second or two, each time.
func TestASweepPassesOverOtherApplications(t *testing.T) {
	for name, database := range servers {
		t.Run(name, func(t *testing.T) {
			db := dbtest.OpenMySQL(t, database(t))
			fill(t, db)
			b := newBackend(t, db, nil)
			if _, err := db.Exec("SET GLOBAL innodb_monitor_enable = 'icp_no_match'"); err != nil {
				t.Fatal(err)
			}
			passedOver := func() (n int) {
				t.Helper()
				if err := db.QueryRow("SELECT count FROM information_schema.innodb_metrics WHERE name = 'icp_no_match'").Scan(&n); err != nil {
					t.Fatal(err)
				}
				return n
			}
			before := passedOver()
			removed, more, err := b.DeleteExpired(t.Context(), sessionstore.Sweep{Apps: []string{"office"}, Limit: 100})
			if err != nil || len(removed) > 0 || more {
				t.Errorf("removed %d sessions of another application: %v", len(removed), err)
			}
			if n := passedOver() - before; n < rowsInTable/2 {
				t.Errorf("%d of %d were passed over by the index", n, rowsInTable/2)
			}
		})
	}
}

const rowsInTable = 8192

// fill stores rows of which half have expired.
func fill(t *testing.T, db *sql.DB) {
	t.Helper()
	statements := []string{
		`INSERT INTO holdfast_sessions VALUES (RANDOM_BYTES(16), 'shop', RANDOM_BYTES(32), 1, 'user 0', '', 0, 0, 1, 1, 1, 1, '')`,
	}
	for n := 1; n < rowsInTable; n *= 2 {
		statements = append(statements, fmt.Sprintf(`
INSERT INTO holdfast_sessions
SELECT RANDOM_BYTES(16), 'shop', secret_hash, 1, CONCAT('user ', FLOOR((created_at + %[1]d) / 5)), '', created_at + %[1]d, 0,
	IF((created_at + %[1]d) MOD 2, 1 << 61, 1), IF((created_at + %[1]d) MOD 2, 1 << 61, 1), 1 << 61, 1 << 61, ''
FROM holdfast_sessions`, n))
	}
	statements = append(statements, `
INSERT INTO holdfast_events (seq, id, app, version, at)
SELECT ROW_NUMBER() OVER (), id, '', 0, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) FROM holdfast_sessions`)
	for _, s := range append(statements, "ANALYZE TABLE holdfast_sessions, holdfast_events") {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func rowsReadInSequence(t *testing.T, db *sql.DB) (total int64) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "SHOW SESSION STATUS WHERE Variable_name IN ('Handler_read_rnd_next', 'Handler_read_next', 'Handler_read_prev')")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		var n int64
		if err := rows.Scan(&name, &n); err != nil {
			t.Fatal(err)
		}
		total += n
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return total
}

// A connection that is given back to the pool is in no transaction and holds no lock.
func TestInterruptedTransactionsLeaveConnectionsClean(t *testing.T) {
	for name, database := range servers {
		t.Run(name, func(t *testing.T) {
			db := dbtest.OpenMySQL(t, database(t))
			b := newBackend(t, db, nil)
			rec := newRecord("shop", "Bob")
			if _, err := b.Create(t.Context(), rec, sessionstore.Condition{}); err != nil {
				t.Fatal(err)
			}
			// Someone else holds the row, so the login waits until its context ends.
			tx, err := db.Begin()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec("SELECT 1 FROM holdfast_sessions WHERE id = ? FOR UPDATE", rec.Key.ID[:]); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			login := sessionstore.Condition{Version: 1, SecretHash: rec.SecretHash, MaxSessions: 3}
			if err := b.Update(ctx, rec, login); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Update of a locked row returned %v", err)
			}
			if err := tx.Rollback(); err != nil {
				t.Fatal(err)
			}
			if err := b.Update(t.Context(), rec, login); err != nil {
				t.Errorf("Update after the lock was released: %v", err)
			}
		})
	}
}

// After a transaction its connection is in none, and still there.
func TestTransactionsEndWhateverTheCompletionType(t *testing.T) {
	for name, database := range servers {
		for _, completion := range []string{"CHAIN", "RELEASE"} {
			t.Run(name+"/"+completion, func(t *testing.T) {
				ctx, dsn := t.Context(), database(t)
				db := dbtest.OpenMySQL(t, withDSN(t, dsn, func(c *driver.Config) {
					c.Params = map[string]string{"completion_type": "'" + completion + "'"}
				}))
				db.SetMaxOpenConns(1)
				b, before := newBackend(t, db, nil), connectionID(t, db)
				login := sessionstore.Condition{MaxSessions: 1}
				rec := newRecord("shop", "Bob")
				if _, err := b.Create(ctx, rec, login); err != nil {
					t.Fatal(err)
				}
				if _, err := b.Create(ctx, newRecord("shop", "Bob"), login); !errors.Is(err, sessionstore.ErrLimit) {
					t.Errorf("the second login returned %v", err)
				}
				if err := b.Update(ctx, rec, sessionstore.Condition{Version: 1, SecretHash: rec.SecretHash}); err != nil {
					t.Error(err)
				}
				reader := newBackend(t, dbtest.OpenMySQL(t, dsn), nil)
				if got, err := reader.Load(ctx, rec.Key, 0); err != nil || got.Version != 2 {
					t.Errorf("others load %+v, error %v", got, err)
				}
				if after := connectionID(t, db); after != before {
					t.Errorf("connection %d became %d", before, after)
				}
			})
		}
	}
}

func connectionID(t *testing.T, db *sql.DB) (id int64) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), "SELECT CONNECTION_ID()").Scan(&id); err != nil {
		t.Fatal(err)
	}
	return id
}

func TestLostConnectionsArePassedOver(t *testing.T) {
	for name, database := range servers {
		t.Run(name, func(t *testing.T) {
			ctx, dsn := t.Context(), database(t)
			db := dbtest.OpenMySQL(t, withDSN(t, dsn, func(c *driver.Config) { c.ParseTime = true }))
			b := newBackend(t, db, nil)
			rec := newRecord("shop", "Bob")
			if _, err := b.Create(ctx, rec, sessionstore.Condition{}); err != nil {
				t.Fatal(err)
			}
			loseConnections(t, db, dsn, 20)
			login := sessionstore.Condition{Version: 1, SecretHash: rec.SecretHash, MaxSessions: 3}
			if err := b.Update(ctx, rec, login); err != nil {
				t.Errorf("a transaction with a mutex: %v", err)
			}
			loseConnections(t, db, dsn, 20)
			if _, err := b.Delete(ctx, sessionstore.Selector{ID: rec.Key.ID}); err != nil {
				t.Errorf("a transaction: %v", err)
			}
			loseConnections(t, db, dsn, 20)
			if _, err := b.Load(ctx, rec.Key, 0); !errors.Is(err, sessionstore.ErrNotFound) {
				t.Errorf("a statement: %v", err)
			}
		})
	}
}

// What only reads is asked again of another connection, also if it is lost while its answer
// is awaited.
func TestALoadOutlivesItsConnection(t *testing.T) {
	for name, database := range servers {
		t.Run(name, func(t *testing.T) {
			ctx, dsn := t.Context(), database(t)
			b := newBackend(t, dbtest.OpenMySQL(t, dsn), nil)
			rec := newRecord("shop", "Bob")
			if _, err := b.Create(ctx, rec, sessionstore.Condition{}); err != nil {
				t.Fatal(err)
			}
			raw := dbtest.OpenMySQL(t, dsn)
			conn, err := raw.Conn(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := conn.ExecContext(ctx, "LOCK TABLES holdfast_sessions WRITE"); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() {
				_, err := b.Load(ctx, rec.Key, 0)
				done <- err
			}()
			var waits int64
			for waits == 0 {
				err := raw.QueryRowContext(ctx, `SELECT COALESCE(MAX(id), 0) FROM information_schema.processlist
					WHERE db = DATABASE() AND state = 'Waiting for table metadata lock'`).Scan(&waits)
				if err != nil {
					t.Fatal(err)
				}
			}
			if _, err := raw.ExecContext(ctx, fmt.Sprintf("KILL %d", waits)); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.ExecContext(ctx, "UNLOCK TABLES"); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err != nil {
				t.Errorf("a load whose connection was lost: %v", err)
			}
		})
	}
}

// loseConnections fills the pool with n connections and has the server end them.
func loseConnections(t *testing.T, db *sql.DB, dsn string, n int) {
	t.Helper()
	killer := dbtest.OpenMySQL(t, dsn)
	defer killer.Close() // it would be counted next time
	var conns []*sql.Conn
	for range n {
		conn, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
		var id int64
		if err := conn.QueryRowContext(t.Context(), "SELECT CONNECTION_ID()").Scan(&id); err != nil {
			t.Fatal(err)
		}
		if _, err := killer.ExecContext(t.Context(), fmt.Sprintf("KILL %d", id)); err != nil {
			t.Fatal(err)
		}
	}
	// The server closes them in its own time.
	for alive := int64(1); alive > 0; {
		err := killer.QueryRowContext(t.Context(), `
SELECT COUNT(*) FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()`).Scan(&alive)
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, conn := range conns {
		conn.Close()
	}
}

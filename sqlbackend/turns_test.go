package sqlbackend_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/holdfast-sessions/holdfast/internal/dbtest"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sqlbackend"
	"github.com/holdfast-sessions/holdfast/sqlbackend/mysql"
	"github.com/holdfast-sessions/holdfast/sqlbackend/postgres"
)

// hammer saves a session through each of nodes again and again, until it has ended or stop
// is called, which waits.
func hammer(nodes []groupBackend, rec *sessionstore.Record) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, node := range nodes {
		wg.Go(func() {
			for version := sessionstore.Version(1); ctx.Err() == nil; {
				cond := sessionstore.Condition{Version: version, SecretHash: rec.SecretHash, Announce: true}
				if node.Update(context.Background(), rec, cond) == nil {
					version++
					continue
				}
				found, err := node.Load(context.Background(), rec.Key, version)
				if errors.Is(err, sessionstore.ErrNotFound) {
					return
				}
				if found != nil {
					version = found.Version
				}
			}
		})
	}
	return func() { cancel(); wg.Wait() }
}

// A session that is saved all the time, through several nodes, ends when it is told to.
func TestALogoutComesToItsTurn(t *testing.T) {
	onEachServer(t, func(t *testing.T, db database) {
		b := db.open(t).(groupBackend)
		var nodes []groupBackend
		for range 6 {
			nodes = append(nodes, db.open(t).(groupBackend))
		}
		others, stop := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		for range 4 { // so that logouts travel together
			wg.Go(func() {
				for others.Err() == nil {
					rec := newRecord(newID(), "shop", "")
					if _, err := b.Create(context.Background(), rec, sessionstore.Condition{}); err != nil {
						t.Error(err)
					}
					if _, err := b.Delete(context.Background(), sessionstore.Selector{ID: rec.Key.ID}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		for i := range 6 {
			rec := newRecord(newID(), "shop", "mallory")
			create(t, b, rec, sessionstore.Condition{})
			sel := sessionstore.Selector{ID: rec.Key.ID}
			if i%2 == 0 {
				sel = sessionstore.Selector{Principal: "mallory"}
			}
			stopSaving := hammer(nodes, rec)
			<-time.After(50 * time.Millisecond)
			start := time.Now()
			removed, err := b.Delete(t.Context(), sel)
			if err != nil || len(removed) != 1 {
				t.Errorf("%+v: removed %d after %s: %v", sel, len(removed), time.Since(start), err)
			}
			if took := time.Since(start); took > 3*time.Second { // without a turn, it is chance
				t.Errorf("%+v: took %s", sel, took)
			}
			stopSaving()
		}
		stop()
		wg.Wait()
	})
}

// withConnections opens a backend whose pool has n connections.
func withConnections(t *testing.T, name string, n int) (database, *sqlbackend.Backend) {
	if name == "PostgreSQL" {
		db := databases[name](t)
		b, err := postgres.New(t.Context(), dbtest.Pool(t, db.url, func(c *pgxpool.Config) { c.MaxConns = int32(n) }), nil)
		if err != nil {
			t.Fatal(err)
		}
		return db, b.Backend
	}
	dsn := dbtest.MigratedMySQL(t)
	if name == "MariaDB" {
		dsn = dbtest.MigratedMariaDB(t)
	}
	pool := dbtest.OpenMySQL(t, dsn)
	pool.SetMaxOpenConns(n)
	b, err := mysql.New(t.Context(), pool, nil)
	if err != nil {
		t.Fatal(err)
	}
	return mysqlDatabase(t, name, dsn), b
}

// Logins to sessions that somebody keeps locked leave others their connections, and say
// nothing about the database.
func TestLoginsToLockedSessionsHoldUpNobody(t *testing.T) {
	for _, name := range []string{"PostgreSQL", "MySQL", "MariaDB"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, b := withConnections(t, name, 4)
			recs := createMany(t, b, "")
			var ids []sessionstore.ID
			for _, r := range recs[:8] {
				ids = append(ids, r.Key.ID)
			}
			defer keepLocked(t, db, ids...)()
			var wg sync.WaitGroup
			for _, r := range recs[:8] {
				wg.Go(func() {
					renewed := *r
					renewed.SecretHash, renewed.Principal = newHash(), "ann"
					err := b.Update(t.Context(), &renewed, sessionstore.Condition{Version: 1, SecretHash: r.SecretHash})
					if !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("login to a locked session: %v", err)
					}
				})
			}
			loadWhile(t, b, recs[20].Key, &wg)
			if a := b.Availability(); a.Opened > 0 {
				t.Errorf("the breaker opened: %+v", a)
			}
		})
	}
}

// loadWhile loads a session that nobody has locked again and again while others run.
func loadWhile(t *testing.T, b *sqlbackend.Backend, key sessionstore.Key, others *sync.WaitGroup) {
	t.Helper()
	over := make(chan struct{})
	go func() { others.Wait(); close(over) }()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		if _, err := b.Load(ctx, key, 0); err != nil {
			t.Errorf("load of a free session: %v", err)
		}
		cancel()
		select {
		case <-over:
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// A counted login to a session that somebody keeps locked holds up neither the other logins
// of its principal nor anybody else.
func TestACountedLoginToALockedSessionHoldsUpNobody(t *testing.T) {
	for _, name := range []string{"PostgreSQL", "MySQL", "MariaDB"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, b := withConnections(t, name, 4)
			recs := createMany(t, b, "")
			defer keepLocked(t, db, recs[0].Key.ID)()
			login := func(r *sessionstore.Record, cond sessionstore.Condition) error {
				renewed := *r
				renewed.SecretHash, renewed.Principal = newHash(), "ann"
				cond.MaxSessions = 100
				if cond.Version == 0 {
					_, err := b.Create(t.Context(), &renewed, cond)
					return err
				}
				return b.Update(t.Context(), &renewed, cond)
			}
			var wg sync.WaitGroup
			for i, r := range recs[:8] {
				if i == 1 {
					<-time.After(100 * time.Millisecond) // the first one waits for its row
				}
				wg.Go(func() {
					err := login(r, sessionstore.Condition{Version: 1, SecretHash: r.SecretHash})
					if i == 0 && !errors.Is(err, context.DeadlineExceeded) || i > 0 && err != nil {
						t.Errorf("login %d: %v", i, err)
					}
				})
				wg.Go(func() {
					err := login(newRecord(r.Key.ID, "office", ""), sessionstore.Condition{SecretHash: newHash()})
					if i == 0 && !errors.Is(err, context.DeadlineExceeded) || i > 0 && !errors.Is(err, sessionstore.ErrNotFound) {
						t.Errorf("join %d without proof: %v", i, err)
					}
					if err := login(newRecord(newID(), "shop", ""), sessionstore.Condition{}); err != nil {
						t.Errorf("new session %d: %v", i, err)
					}
				})
			}
			loadWhile(t, b, recs[20].Key, &wg)
			if a := b.Availability(); a.Opened > 0 {
				t.Errorf("the breaker opened: %+v", a)
			}
		})
	}
}

// Logins that wait in vain for others of their principal to be counted say nothing about
// the database, and succeed after that.
func TestWaitsForMutexesSayNothingAboutTheDatabase(t *testing.T) {
	for _, name := range []string{"PostgreSQL", "MySQL", "MariaDB"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, b := withConnections(t, name, 12)
			recs := createMany(t, b, "")
			held, until := make(chan struct{}), make(chan struct{})
			var holder sync.WaitGroup
			holder.Go(func() {
				if err := b.HoldLimit(context.Background(), "shop", "ann", func() { close(held) }, until); err != nil {
					t.Error(err)
					close(held)
				}
			})
			<-held
			login := func(r *sessionstore.Record) error {
				renewed := *r
				renewed.SecretHash, renewed.Principal = newHash(), "ann"
				return b.Update(t.Context(), &renewed, sessionstore.Condition{Version: 1, SecretHash: r.SecretHash, MaxSessions: 100})
			}
			var wg sync.WaitGroup
			for _, r := range recs[:8] {
				wg.Go(func() {
					if err := login(r); !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("a login while another is being counted: %v", err)
					}
				})
			}
			wg.Wait()
			if a := b.Availability(); a.Opened > 0 || a.Err != nil {
				t.Errorf("waits for a mutex count against the database: %+v", a)
			}
			close(until)
			holder.Wait()
			for i, r := range recs[:8] {
				if err := login(r); err != nil {
					t.Errorf("login %d after that: %v", i, err)
				}
			}
		})
	}
}

// A principal's logout that gives up leaves one connection waiting in the server for each
// session that somebody keeps locked, and not one for each try.
func TestALogoutWaitsOnceForEachSession(t *testing.T) {
	for _, name := range []string{"MySQL", "MariaDB"} { // which go on waiting for what was given up
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := databases[name](t)
			b := db.open(t)
			recs := []*sessionstore.Record{newRecord(newID(), "shop", "ann"), newRecord(newID(), "shop", "ann")}
			for _, rec := range recs {
				create(t, b, rec, sessionstore.Condition{})
			}
			release := keepLocked(t, db, recs[0].Key.ID, recs[1].Key.ID)
			removed, err := b.Delete(t.Context(), sessionstore.Selector{Principal: "ann"})
			if len(removed) > 0 || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("removed %d locked sessions: %v", len(removed), err)
			}
			if waiting := len(findWaiters(t, db)); waiting > len(recs) {
				t.Errorf("%d connections wait for locks of %d sessions after one logout", waiting, len(recs))
			}
			release()
			if removed, err = b.Delete(t.Context(), sessionstore.Selector{Principal: "ann"}); err != nil || len(removed) != len(recs) {
				t.Errorf("after the locks, %d sessions were removed: %v", len(removed), err)
			}
		})
	}
}

// Whoever gives up a logout that is in flight with others hears what it has removed (P11).
func TestALogoutInFlightIsNotGivenUp_P11(t *testing.T) {
	onEachServer(t, func(t *testing.T, db database) {
		b := db.open(t).(groupBackend)
		recs := createMany(t, b, "")[:3]
		hold := holdUpEvents(t, db)
		removed := make([]int, len(recs))
		var wg sync.WaitGroup
		for i, rec := range recs {
			wg.Go(func() {
				// The first is alone in flight, the others travel together after 50 ms.
				ctx, cancel := context.WithTimeout(context.Background(), []time.Duration{4, 4, 1}[i]*time.Second)
				defer cancel()
				records, err := b.Delete(ctx, sessionstore.Selector{ID: rec.Key.ID})
				if removed[i] = len(records); err != nil {
					t.Errorf("logout %d: %v", i, err)
				}
			})
			<-time.After(10 * time.Millisecond)
		}
		<-time.After(1500 * time.Millisecond)
		if err := hold.Rollback(); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		for i, n := range removed {
			if n != 1 {
				t.Errorf("logout %d returned %d records, want 1", i, n)
			}
		}
	})
}

// A table that somebody keeps locked costs no call more than its time, and a principal's
// sessions end in transactions of bounded size although all were locked.
func TestLockedTables(t *testing.T) {
	db := databases["PostgreSQL"](t)
	b, err := postgres.New(t.Context(), dbtest.Pool(t, db.url, func(c *pgxpool.Config) {
		c.ConnConfig.RuntimeParams["lock_timeout"] = "300ms"
	}), &postgres.Config{StatementTimeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	var touches []sessionstore.Touch
	for range 4 {
		for _, r := range createMany(t, b, "ann") {
			touches = append(touches, sessionstore.Touch{Key: r.Key})
		}
	}
	tx, err := db.raw.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if _, err := tx.Exec("LOCK TABLE holdfast_sessions IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	err = b.Touch(t.Context(), touches)
	if took := time.Since(start); err == nil || took > 5*time.Second {
		t.Errorf("touches took %s: %v", took, err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}

	if tx, err = db.raw.Begin(); err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if _, err := tx.Exec("SELECT 1 FROM holdfast_sessions FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(500*time.Millisecond, func() { tx.Rollback() })
	if removed, err := b.Delete(t.Context(), sessionstore.Selector{Principal: "ann"}); err != nil || len(removed) != len(touches) {
		t.Errorf("removed %d of %d: %v", len(removed), len(touches), err)
	}
	var most int
	if err := db.raw.QueryRow("SELECT max(n) FROM (SELECT count(*) AS n FROM holdfast_events GROUP BY xid) AS x").Scan(&most); err != nil {
		t.Fatal(err)
	}
	if most > 32 {
		t.Errorf("one transaction ended %d sessions, want 32 at most", most)
	}
}

// Touches of many sessions that somebody keeps locked for a while are made afterwards (P14).
func TestTouchesOutlastLocks_P14(t *testing.T) {
	onEachServer(t, func(t *testing.T, db database) {
		b := db.open(t)
		var touches []sessionstore.Touch
		var ids []sessionstore.ID
		for range 8 {
			for _, r := range createMany(t, b, "") {
				touches = append(touches, sessionstore.Touch{Key: r.Key})
				ids = append(ids, r.Key.ID)
			}
		}
		release := keepLocked(t, db, ids...)
		time.AfterFunc(time.Second, release)
		if err := b.Touch(t.Context(), touches); err != nil {
			t.Error(err)
		}
	})
}

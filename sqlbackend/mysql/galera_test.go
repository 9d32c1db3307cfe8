package mysql_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	driver "github.com/go-sql-driver/mysql"

	"github.com/holdfast-sessions/holdfast/internal/dbtest"
	"github.com/holdfast-sessions/holdfast/internal/dbtest/load"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/backendtest"
	"github.com/holdfast-sessions/holdfast/sqlbackend"
	"github.com/holdfast-sessions/holdfast/sqlbackend/mysql"
)

// TestGalera runs on one cluster, because it takes long to start. Its parts that end
// nodes come last.
//
// It runs where HOLDFAST_TEST_CLUSTERS=1.
func TestGalera(t *testing.T) {
	if os.Getenv("HOLDFAST_TEST_CLUSTERS") != "1" {
		t.Skip("HOLDFAST_TEST_CLUSTERS is not 1")
	}
	c := dbtest.Galera(t)
	var backends []sessionstore.Backend
	for i := range c.Nodes {
		backends = append(backends, newBackend(t, dbtest.OpenMySQL(t, c.DSN(i)), nil))
	}
	t.Run("wants wsrep_sync_wait", func(t *testing.T) {
		db := dbtest.OpenMySQL(t, strings.Split(c.DSN(0), "?")[0])
		if _, err := mysql.New(t.Context(), db, nil); err == nil || !strings.Contains(err.Error(), "wsrep_sync_wait=1") {
			t.Errorf("New returned %v", err)
		}
	})
	t.Run("wants interpolateParams", func(t *testing.T) {
		db := dbtest.OpenMySQL(t, strings.Replace(c.DSN(0), "interpolateParams=true", "interpolateParams=false", 1))
		if _, err := mysql.New(t.Context(), db, nil); err == nil || !strings.Contains(err.Error(), "interpolateParams=true") {
			t.Errorf("New returned %v", err)
		}
	})
	t.Run("suite", func(t *testing.T) { runGaleraSuite(t, c) })
	t.Run("joins from another node", func(t *testing.T) { joinFromAnotherNode(t, backends) })
	t.Run("one session from all nodes", func(t *testing.T) { incrementFromAllNodes(t, backends) })
	t.Run("connector", func(t *testing.T) { connectorFollows(t, c) })
	t.Run("node killed", func(t *testing.T) { killNode(t, c, backends) })
}

// runGaleraSuite holds a node to the backend's specification. With the second handle on
// another node everything passes but what a mutex guards, MaxSessions and an ID that
// two applications create at once.
func runGaleraSuite(t *testing.T, c *dbtest.Cluster) {
	dbs := make(map[sessionstore.Backend]*sql.DB)
	open := func(t *testing.T, i int) *sqlbackend.Backend {
		db := dbtest.OpenMySQL(t, c.DSN(i))
		b := newBackend(t, db, nil)
		dbs[b] = db
		return b
	}
	backendtest.Run(t, backendtest.Options{
		New: func(t *testing.T) sessionstore.Backend {
			b := open(t, 0)
			for _, table := range []string{"holdfast_sessions", "holdfast_events", "holdfast_nodes"} {
				if _, err := dbs[b].Exec("DELETE FROM " + table); err != nil {
					t.Fatal(err)
				}
			}
			return b
		},
		Second: func(t *testing.T, _ sessionstore.Backend) sessionstore.Backend { return open(t, 0) },
		Advance: func(t *testing.T, b sessionstore.Backend, d time.Duration) {
			dbtest.Age(t, dbs[b], "holdfast_sessions", d)
			dbtest.AgeEvents(t, dbs[b], "holdfast_events", d)
			dbtest.AgeNodes(t, dbs[b], "holdfast_nodes", d)
		},
	})
}

// incrementFromAllNodes increments one version on all nodes at once. Conflicts are
// expected, deadlocks of the cluster's certification must not come through.
func incrementFromAllNodes(t *testing.T, backends []sessionstore.Backend) {
	const rounds = 50
	ctx, rec := t.Context(), newRecord("shop", "")
	if _, err := backends[0].Create(ctx, rec, sessionstore.Condition{}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, b := range backends {
		wg.Go(func() {
			for range rounds {
				for !increment(ctx, t, b, rec) {
				}
			}
		})
	}
	wg.Wait()
	for _, b := range backends {
		got, err := b.Load(ctx, rec.Key, 0)
		if err != nil {
			t.Fatal(err)
		}
		if want := sessionstore.Version(1 + rounds*len(backends)); got.Version != want {
			t.Errorf("version %d, want %d", got.Version, want)
		}
	}
}

func increment(ctx context.Context, t *testing.T, b sessionstore.Backend, rec *sessionstore.Record) (done bool) {
	got, err := b.Load(ctx, rec.Key, 0)
	if err != nil {
		t.Error(err)
		return true
	}
	err = b.Update(ctx, rec, sessionstore.Condition{Version: got.Version, SecretHash: rec.SecretHash})
	if err != nil && !strings.Contains(err.Error(), sessionstore.ErrConflict.Error()) {
		t.Error(err)
		return true
	}
	return err == nil
}

// joinFromAnotherNode lets an application join a session on one node while another
// node ends or renews it: the joined part must share its fate (P3, P7).
func joinFromAnotherNode(t *testing.T, backends []sessionstore.Backend) {
	ctx := t.Context()
	for round := range 1000 {
		rec := newRecord("shop", "")
		if _, err := backends[0].Create(ctx, rec, sessionstore.Condition{}); err != nil {
			t.Fatal(err)
		}
		part, renewed := *rec, *rec
		part.Key.App = "office"
		renewed.SecretHash = sessionstore.NewToken(rec.Key.ID, "").SecretHash()
		old := sessionstore.Condition{Version: 1, SecretHash: rec.SecretHash}
		ends := round%2 == 0
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := backends[1].Create(ctx, &part, sessionstore.Condition{SecretHash: rec.SecretHash})
			if err != nil && !errors.Is(err, sessionstore.ErrNotFound) {
				t.Errorf("join: %v", err)
			}
		})
		wg.Go(func() {
			var err error
			if ends {
				_, err = backends[0].Delete(ctx, sessionstore.Selector{ID: rec.Key.ID})
			} else {
				err = backends[0].Update(ctx, &renewed, old)
			}
			if err != nil {
				t.Errorf("end or renew: %v", err)
			}
		})
		wg.Wait()
		got, err := backends[2].Load(ctx, part.Key, 0)
		switch {
		case ends && !(errors.Is(err, sessionstore.ErrNotFound) && got == nil):
			t.Errorf("the ended session lives on, or is in doubt: %v", err)
		case !ends && err == nil && got.SecretHash != renewed.SecretHash:
			t.Error("the part that joined still opens with the old secret")
		}
	}
}

// newConnector is for all nodes, in order.
func newConnector(t *testing.T, c *dbtest.Cluster, change func(*driver.Config)) *sql.DB {
	t.Helper()
	var cfgs []*driver.Config
	for i := range c.Nodes {
		cfg, err := driver.ParseDSN(c.DSN(i))
		if err != nil {
			t.Fatal(err)
		}
		change(cfg)
		cfgs = append(cfgs, cfg)
	}
	connector, err := mysql.NewConnector(cfgs...)
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(16)
	t.Cleanup(func() { db.Close() })
	return db
}

// connectorFollows makes the first server read-only, as a planned switch does.
func connectorFollows(t *testing.T, c *dbtest.Cluster) {
	admin := dbtest.OpenMySQL(t, c.DSN(0))
	cfg, err := driver.ParseDSN(asUser(t, admin, c.DSN(0)))
	if err != nil {
		t.Fatal(err)
	}
	db := newConnector(t, c, func(to *driver.Config) { to.User, to.Passwd = cfg.User, cfg.Passwd })
	b := newBackend(t, db, nil)
	w := load.Start(t, 8, b)
	w.Await(t, 100, 10*time.Second)
	readOnly(t, admin, "ON")
	defer readOnly(t, admin, "OFF")
	w.Await(t, 200, 10*time.Second)
	if _, lost := w.Stop(t, b); lost != 0 || w.Errors() != "" {
		t.Errorf("%d writes lost; errors:%s", lost, w.Errors())
	}
	var name string
	if err := db.QueryRow("SELECT @@wsrep_node_name").Scan(&name); err != nil || name != "node2" {
		t.Errorf("connected to %q, error %v", name, err)
	}
}

// killNode kills a node under load on all of them. What the others were doing goes on,
// and so does, through a connector, what was done on the killed one.
func killNode(t *testing.T, c *dbtest.Cluster, backends []sessionstore.Backend) {
	follower := newBackend(t, newConnector(t, c, func(*driver.Config) {}), nil)
	w := load.Start(t, 8, follower, backends[1], backends[2])
	w.Await(t, 300, 10*time.Second)
	killed := time.Now()
	c.Nodes[0].Kill(t)
	w.Await(t, 1, 30*time.Second)
	first := time.Since(killed)
	w.Await(t, 1000, 20*time.Second)
	acknowledged, lost := w.Stop(t, backends[2])
	t.Logf("first write %v after the kill; %d writes acknowledged, %d lost; errors:%s", first, acknowledged, lost, w.Errors())
	if lost != 0 {
		t.Errorf("%d acknowledged writes are lost", lost)
	}
}

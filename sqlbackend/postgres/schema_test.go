package postgres_test

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/holdfast-sessions/holdfast/internal/dbtest"
	"github.com/holdfast-sessions/holdfast/migrations"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sqlbackend/postgres"
)

func TestNewRefusesADatabaseWithoutSchema(t *testing.T) {
	pool := dbtest.Pool(t, dbtest.Postgres(t))
	for _, cfg := range []*postgres.Config{nil, {Schema: "elsewhere"}} {
		_, err := postgres.New(t.Context(), pool, cfg)
		if !errors.Is(err, migrations.ErrSchemaMissing) || !strings.Contains(err.Error(), "run migrations.Up") {
			t.Errorf("with %+v New returned %v", cfg, err)
		}
	}
}

func TestNewRefusesASchemaThatWasTakenDown(t *testing.T) {
	pool := dbtest.Pool(t, dbtest.MigratedPostgres(t))
	if err := migrations.Down(t.Context(), dbtest.DB(t, pool), migrations.Postgres, nil, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := postgres.New(t.Context(), pool, nil); !errors.Is(err, migrations.ErrSchemaMissing) {
		t.Errorf("New returned %v", err)
	}
}

func TestNewRefusesASchemaOfAnOlderLibrary(t *testing.T) {
	pool := dbtest.Pool(t, dbtest.MigratedPostgres(t))
	db := dbtest.DB(t, pool)
	if err := migrations.Down(t.Context(), db, migrations.Postgres, nil, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := postgres.New(t.Context(), pool, nil); !errors.Is(err, migrations.ErrSchemaOlder) {
		t.Errorf("New returned %v, want ErrSchemaOlder", err)
	}
	if err := migrations.Up(t.Context(), db, migrations.Postgres, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := postgres.New(t.Context(), pool, nil); err != nil {
		t.Errorf("after Up New returned %v", err)
	}
}

func TestNewRefusesASchemaOfANewerLibrary(t *testing.T) {
	pool := dbtest.Pool(t, dbtest.MigratedPostgres(t))
	if _, err := pool.Exec(t.Context(), "INSERT INTO holdfast_migrations (version_id, is_applied) VALUES (99, true)"); err != nil {
		t.Fatal(err)
	}
	_, err := postgres.New(t.Context(), pool, nil)
	if !errors.Is(err, migrations.ErrSchemaNewer) || !strings.Contains(err.Error(), "99") {
		t.Errorf("New returned %v", err)
	}
	if err := migrations.Up(t.Context(), dbtest.DB(t, pool), migrations.Postgres, nil); err != nil {
		t.Errorf("Up on a newer schema returned %v", err)
	}
}

func TestNewRefusesADatabaseThatIsDown(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close() // nobody listens there now
	pool := dbtest.Pool(t, "postgres://user:hush@"+address+"/db")
	_, err = postgres.New(t.Context(), pool, nil)
	if err == nil || !strings.Contains(err.Error(), "connection refused") || strings.Contains(err.Error(), "hush") {
		t.Errorf("New returned %v", err)
	}
}

func TestNewRefusesAPrefixThatIsNoIdentifier(t *testing.T) {
	pool := dbtest.Pool(t, "postgres://127.0.0.1:1/db") // never asked
	for field, cfg := range map[string]*postgres.Config{
		"TablePrefix":      {TablePrefix: `x"y`},
		"Schema":           {Schema: "a.b"},
		"StatementTimeout": {StatementTimeout: -1},
		"at least 1ms":     {StatementTimeout: 5},
		"at most 30s":      {StatementTimeout: time.Minute},
	} {
		if _, err := postgres.New(t.Context(), pool, cfg); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("New returned %v, want an error that names %s", err, field)
		}
	}
}

func TestNewRefusesUnsuitableConnections(t *testing.T) {
	url := dbtest.MigratedPostgres(t)
	for _, mode := range modes {
		text := mode == pgx.QueryExecModeExec || mode == pgx.QueryExecModeSimpleProtocol
		for _, s := range []struct {
			param, value string
			refused      bool
		}{
			{"default_transaction_read_only", "on", true},
			{"default_transaction_read_only", "off", false},
			{"bytea_output", "escape", text},
			{"bytea_output", "hex", false},
		} {
			pool := dbtest.Pool(t, url, dbtest.ExecMode(mode), func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams[s.param] = s.value })
			_, err := postgres.New(t.Context(), pool, nil)
			if refused := err != nil && strings.Contains(err.Error(), s.param+" is "+s.value); refused != s.refused || err != nil && !refused {
				t.Errorf("in mode %v with %s=%s New returned %v", mode, s.param, s.value, err)
			}
		}
	}
}

// The server takes what pgx sends, which is UTF-8, for text of the client's encoding.
func TestNewRefusesEncodingsThatAreConverted(t *testing.T) {
	url := dbtest.MigratedPostgres(t)
	reference := newBackend(t, dbtest.Pool(t, url), nil)
	for encoding, refused := range map[string]bool{"LATIN1": true, "WIN1252": true, "SJIS": true, "SQL_ASCII": false, "UTF8": false} {
		b, err := postgres.New(t.Context(), dbtest.Pool(t, url, func(c *pgxpool.Config) {
			c.ConnConfig.RuntimeParams["client_encoding"] = encoding
		}), nil)
		if refused != (err != nil && strings.Contains(err.Error(), "client_encoding is "+encoding)) {
			t.Errorf("with %s New returned %v", encoding, err)
		}
		if err != nil {
			continue
		}
		rec := newRecord("shop", "Böb")
		if _, err := b.Create(t.Context(), rec, sessionstore.Condition{}); err != nil {
			t.Fatal(err)
		}
		if got, err := reference.Load(t.Context(), rec.Key, 0); err != nil || got.Principal != rec.Principal {
			t.Errorf("with %s others load %+v, error %v", encoding, got, err)
		}
	}
}

func TestSchemaAndPrefixWithAnySearchPath(t *testing.T) {
	url := dbtest.Postgres(t)
	cfg := &postgres.Config{TablePrefix: "web_", Schema: "order"}
	pool := dbtest.Pool(t, url, func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["search_path"] = "nowhere" })
	err := migrations.Up(t.Context(), dbtest.DB(t, pool), migrations.Postgres, &migrations.Config{TablePrefix: cfg.TablePrefix, Schema: cfg.Schema})
	if err != nil {
		t.Fatal(err)
	}
	b := newBackend(t, pool, cfg)
	rec := newRecord("shop", "Bob")
	if _, err := b.Create(t.Context(), rec, sessionstore.Condition{}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Load(t.Context(), rec.Key, 0); err != nil {
		t.Error(err)
	}
	removed, err := b.Delete(t.Context(), sessionstore.Selector{Principal: "Bob"})
	if err != nil || len(removed) != 1 {
		t.Errorf("Delete returned %d records and %v", len(removed), err)
	}
}

package mysql_test

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-sessions/holdfast/internal/dbtest"
	"github.com/holdfast-sessions/holdfast/migrations"
	"github.com/holdfast-sessions/holdfast/sqlbackend/mysql"
)

func TestNewRefusesASchemaThatIsNotTheLibrarys(t *testing.T) {
	for name, database := range servers {
		t.Run(name, func(t *testing.T) {
			ctx, db := t.Context(), dbtest.OpenMySQL(t, database(t))
			if _, err := mysql.New(ctx, db, &mysql.Config{TablePrefix: "other_"}); !errors.Is(err, migrations.ErrSchemaMissing) {
				t.Errorf("without tables New returned %v", err)
			}
			if _, err := db.ExecContext(ctx, "INSERT INTO holdfast_migrations (version_id, is_applied) VALUES (99, true)"); err != nil {
				t.Fatal(err)
			}
			if _, err := mysql.New(ctx, db, nil); !errors.Is(err, migrations.ErrSchemaNewer) || !strings.Contains(err.Error(), "99") {
				t.Errorf("with newer tables New returned %v", err)
			}
			if _, err := db.ExecContext(ctx, "DELETE FROM holdfast_migrations WHERE version_id = 99"); err != nil {
				t.Fatal(err)
			}
			if err := migrations.Down(ctx, db, migrations.MySQL, nil, 1); err != nil {
				t.Fatal(err)
			}
			if _, err := mysql.New(ctx, db, nil); !errors.Is(err, migrations.ErrSchemaOlder) {
				t.Errorf("with older tables New returned %v", err)
			}
			if err := migrations.Down(ctx, db, migrations.MySQL, nil, 0); err != nil {
				t.Fatal(err)
			}
			if _, err := mysql.New(ctx, db, nil); !errors.Is(err, migrations.ErrSchemaMissing) {
				t.Errorf("after Down New returned %v", err)
			}
		})
	}
}

func TestNewRefusesADatabaseThatIsDown(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close() // nobody listens there now
	_, err = mysql.New(t.Context(), dbtest.OpenMySQL(t, "user:hush@tcp("+address+")/db"), nil)
	if err == nil || !strings.Contains(err.Error(), "connection refused") || strings.Contains(err.Error(), "hush") {
		t.Errorf("New returned %v", err)
	}
}

func TestNewRefusesAConfigThatIsWrong(t *testing.T) {
	db := dbtest.OpenMySQL(t, "tcp(127.0.0.1:1)/db") // never asked
	for field, cfg := range map[string]*mysql.Config{
		"TablePrefix":      {TablePrefix: "x`y"},
		"Schema":           {Schema: "web"},
		"StatementTimeout": {StatementTimeout: -1},
		"at least 1ms":     {StatementTimeout: 5},
		"at most 30s":      {StatementTimeout: time.Minute},
	} {
		if _, err := mysql.New(t.Context(), db, cfg); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("New returned %v, want an error that names %s", err, field)
		}
	}
}

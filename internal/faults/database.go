package faults

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/ory/dockertest/v3/docker"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/holdfast-sessions/holdfast/migrations"
)

const (
	databaseName = "holdfast"
	password     = "holdfast"

	// databaseWait is how long a server may take to answer after its start.
	databaseWait = 3 * time.Minute
)

// Databases are those that a short run takes.
var Databases = []string{"postgres", "mysql", "mariadb", "sqlite"}

// Clusters are databases of several servers, of which one is killed: a PostgreSQL
// primary with a synchronous standby, and a Galera cluster of MariaDB.
var Clusters = []string{"standby", "galera"}

// ErrNoServer says that there is neither Docker nor a server named in the
// environment.
var ErrNoServer = errors.New("no database server")

// A database is one that the cluster's nodes share. Each node has a network and a
// user of its own, so that they can be cut off one by one.
type database struct {
	title     string // of Databases or Clusters
	kind      string // the SQL it speaks, one of Databases
	admin     *sql.DB
	container *container // nil if the server is not ours, or not the only one
	servers   []string   // host:port each; none for SQLite
	name      string
	path      string // of SQLite's file
	// failOver kills the server that writes go to, and returns when another one
	// takes them. It can be done once; nil if there is only one server.
	failOver func() error
	close    func() error
}

// openDatabase starts a server, or uses the one that HOLDFAST_TEST_POSTGRES,
// HOLDFAST_TEST_MYSQL or HOLDFAST_TEST_MARIADB names, as package dbtest does, and
// makes the library's tables. dir is for files.
func openDatabase(ctx context.Context, kind, dir string) (*database, error) {
	ctx, cancel := context.WithTimeout(ctx, databaseWait)
	defer cancel()
	switch kind {
	case "sqlite":
		return openSQLite(ctx, dir)
	case "postgres":
		return openPostgres(ctx)
	case "mysql":
		return openMySQL(ctx, kind, "HOLDFAST_TEST_MYSQL", image{
			repository: "mysql", tag: "9", port: "3306/tcp",
			env: []string{"MYSQL_ROOT_PASSWORD=" + password},
			cmd: []string{"mysqld", "--skip-log-bin", "--max-connections=300"}, stop: docker.SIGTERM,
		})
	case "mariadb":
		return openMySQL(ctx, kind, "HOLDFAST_TEST_MARIADB", image{
			repository: "mariadb", tag: "11", port: "3306/tcp",
			env: []string{"MARIADB_ROOT_PASSWORD=" + password},
			cmd: []string{"mariadbd", "--max-connections=300"}, stop: docker.SIGTERM,
		})
	case "standby":
		return openStandby()
	case "galera":
		return openGalera()
	}
	return nil, fmt.Errorf("database %q: want one of %v", kind, slices.Concat(Databases, Clusters))
}

func openSQLite(ctx context.Context, dir string) (*database, error) {
	path := filepath.Join(dir, "sessions.db")
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(20000)&_pragma=journal_mode(WAL)&_txlock=immediate")
	if err != nil {
		return nil, err
	}
	if err := migrations.Up(ctx, db, migrations.SQLite, nil); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &database{title: "sqlite", kind: "sqlite", admin: db, path: path, close: db.Close}, nil
}

func openPostgres(ctx context.Context) (*database, error) {
	d := &database{title: "postgres", kind: "postgres", name: databaseName}
	root := os.Getenv("HOLDFAST_TEST_POSTGRES")
	if root == "" {
		c, err := runContainer(image{
			repository: "postgres", tag: "18", port: "5432/tcp",
			env: []string{"POSTGRES_PASSWORD=" + password},
			cmd: []string{"postgres", "-c", "max_connections=300"}, stop: docker.SIGINT,
		})
		if err != nil {
			return nil, fmt.Errorf("%w: postgres:18: %w", ErrNoServer, err)
		}
		d.container = c
		root = "postgres://postgres:" + password + "@" + c.address + "/postgres?sslmode=disable"
	}
	u, err := url.Parse(root)
	if err != nil {
		return nil, errors.New("HOLDFAST_TEST_POSTGRES is not a URL")
	}
	d.servers = []string{u.Host}
	return d.create(ctx, migrations.Postgres, func(name string) (*sql.DB, error) {
		in := *u
		if name != "" {
			in.Path = "/" + name
		}
		return sql.Open("pgx", in.String())
	})
}

func openMySQL(ctx context.Context, kind, env string, img image) (*database, error) {
	d := &database{title: kind, kind: kind, name: databaseName}
	root := os.Getenv(env)
	if root == "" {
		c, err := runContainer(img)
		if err != nil {
			return nil, fmt.Errorf("%w: %s:%s: %w", ErrNoServer, img.repository, img.tag, err)
		}
		d.container = c
		root = "root:" + password + "@tcp(" + c.address + ")/"
	}
	cfg, err := mysql.ParseDSN(root)
	if err != nil {
		return nil, fmt.Errorf("%s is not a DSN", env)
	}
	cfg.Logger = &mysql.NopLogger{} // a server that is away is no news here
	d.servers = []string{cfg.Addr}
	return d.create(ctx, migrations.MySQL, func(name string) (*sql.DB, error) {
		in := cfg.Clone()
		in.DBName = name
		connector, err := mysql.NewConnector(in)
		if err != nil {
			return nil, err
		}
		return sql.OpenDB(connector), nil
	})
}

// create makes a database of our own on a server, with the library's tables. open
// opens the database of a name, "" for the server's own.
func (d *database) create(ctx context.Context, dialect migrations.Dialect, open func(name string) (*sql.DB, error)) (*database, error) {
	if d.container == nil {
		d.name = fmt.Sprintf("holdfast_faults_%d_%d", os.Getpid(), time.Now().UnixNano()%1e9)
	}
	server, err := open("")
	if err != nil {
		return nil, err
	}
	admin, err := open(d.name)
	if err != nil {
		return nil, err
	}
	d.admin = admin
	d.close = func() error {
		closePool(admin)
		defer closePool(server)
		if d.container != nil {
			return d.container.remove()
		}
		force := map[bool]string{true: " WITH (FORCE)"}[d.kind == "postgres"]
		_, err := server.ExecContext(context.Background(), "DROP DATABASE "+d.name+force)
		return err
	}
	err = func() error {
		if err := answering(ctx, server); err != nil {
			return err
		}
		if _, err := server.ExecContext(ctx, "CREATE DATABASE "+d.name); err != nil {
			return err
		}
		return migrations.Up(ctx, admin, dialect, nil)
	}()
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// answering waits until a server answers twice with a second between: images start
// theirs once for themselves first.
func answering(ctx context.Context, db *sql.DB) error {
	for good := 0; ; {
		ping, cancel := context.WithTimeout(ctx, 3*time.Second)
		err := db.PingContext(ping)
		cancel()
		if good++; err != nil {
			good = 0
		}
		if good == 3 {
			return nil
		}
		if pause(ctx, 500*time.Millisecond) != nil {
			return fmt.Errorf("the database does not answer: %w", cmp.Or(err, ctx.Err()))
		}
	}
}

// user makes a database user for a node, who may do all that the library does.
func (d *database) user(ctx context.Context, name string) error {
	tables, err := d.tables(ctx)
	if err != nil {
		return err
	}
	var statements []string
	if d.kind == "postgres" {
		statements = append(statements, fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", d.grantee(name), password))
	} else {
		statements = append(statements, fmt.Sprintf("CREATE USER %s IDENTIFIED BY '%s'", d.grantee(name), password))
	}
	for _, table := range tables {
		statements = append(statements, fmt.Sprintf("GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO %s", table, d.grantee(name)))
	}
	for _, s := range statements {
		if _, err := d.admin.ExecContext(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

// shared reports whether the server is not ours alone.
func (d *database) shared() bool {
	return d.container == nil && len(d.servers) == 1
}

// closePool closes a pool whose connections may have died with a server that a fault
// killed. To say goodbye to these fails, and means nothing.
func closePool(pool *sql.DB) { _ = pool.Close() }

// login is a node's user, who is unique on a server that others use too.
func (d *database) login(node string) string {
	if d.shared() {
		return strings.TrimPrefix(d.name, "holdfast_faults_") + "_" + node
	}
	return node
}

func (d *database) grantee(node string) string {
	if d.kind == "postgres" {
		return `"` + d.login(node) + `"`
	}
	return fmt.Sprintf("'%s'@'%%'", d.login(node))
}

// dropUser is only needed on a server that is not ours.
func (d *database) dropUser(ctx context.Context, node string) error {
	if !d.shared() {
		return nil
	}
	if d.kind == "postgres" {
		_, err := d.admin.ExecContext(ctx, "DROP OWNED BY "+d.grantee(node))
		if err != nil {
			return err
		}
		_, err = d.admin.ExecContext(ctx, "DROP ROLE "+d.grantee(node))
		return err
	}
	_, err := d.admin.ExecContext(ctx, "DROP USER "+d.grantee(node))
	return err
}

func (d *database) tables(ctx context.Context) (names []string, err error) {
	schema := "DATABASE()"
	if d.kind == "postgres" {
		schema = "current_schema()"
	}
	rows, err := d.admin.QueryContext(ctx, "SELECT table_name FROM information_schema.tables WHERE table_schema = "+schema)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, rows.Err()
}

// url is what a node is given for --database, to connect to one of the addresses.
func (d *database) url(node string, addresses []string) string {
	if d.kind == "sqlite" {
		return "sqlite:" + d.path
	}
	u := url.URL{Scheme: d.kind, User: url.UserPassword(d.login(node), password), Host: strings.Join(addresses, ","), Path: "/" + d.name}
	switch {
	case d.title == "galera":
		u.RawQuery = "wsrep_sync_wait=1"
	case d.kind == "postgres":
		u.RawQuery = "sslmode=disable"
	}
	return u.String()
}

// blind keeps a node from reading events, and from nothing else; or lets it again.
func (d *database) blind(ctx context.Context, node string, blind bool) error {
	verb, preposition := "GRANT", "TO"
	if blind {
		verb, preposition = "REVOKE", "FROM"
	}
	_, err := d.admin.ExecContext(ctx, fmt.Sprintf("%s SELECT ON holdfast_events %s %s", verb, preposition, d.grantee(node)))
	return err
}

// endDoorbells ends the connections that nodes listen on, and returns how many there
// were.
func (d *database) endDoorbells(ctx context.Context) (n int, err error) {
	err = d.admin.QueryRowContext(ctx, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
		WHERE datname = current_database() AND query ILIKE 'listen %'`).Scan(&n)
	return n, err
}

// sessions returns the IDs that the shop's records have.
func (d *database) sessions(ctx context.Context) (map[string]bool, error) {
	rows, err := d.admin.QueryContext(ctx, "SELECT id FROM holdfast_sessions WHERE app = 'shop'")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	ids := make(map[string]bool)
	for rows.Next() {
		var id any
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		text := fmt.Sprintf("%s", id)
		if raw, ok := id.([]byte); ok && len(raw) == 16 {
			h := hex.EncodeToString(raw)
			text = strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
		}
		ids[strings.ToLower(text)] = true
	}
	return ids, rows.Err()
}

// expire makes sessions so old that they expired long ago.
func (d *database) expire(ctx context.Context, ids []string) error {
	const hour = int64(time.Hour / time.Microsecond)
	for _, id := range ids {
		_, err := d.admin.ExecContext(ctx, fmt.Sprintf(
			"UPDATE holdfast_sessions SET accessed_at = accessed_at - %d, created_at = created_at - %[1]d, expires_at = expires_at - %[1]d, expiry_slot = expiry_slot - %[1]d WHERE id = %s",
			hour, d.id(id)))
		if err != nil {
			return fmt.Errorf("expire session: %w", err)
		}
	}
	return nil
}

// id is an ID in a statement.
func (d *database) id(id string) string {
	if d.kind == "postgres" {
		return "'" + id + "'"
	}
	return "x'" + strings.ReplaceAll(id, "-", "") + "'"
}

package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/ory/dockertest/v3"
	"github.com/ory/dockertest/v3/docker"

	"github.com/holdfast-sessions/holdfast/migrations"
)

const (
	onPostgres = "PostgreSQL"
	onMySQL    = "MySQL"

	// connections is the size of every contestant's pool.
	connections = 32
	// lifetime ends the container of a run that was killed.
	lifetime = 2 * time.Hour
)

// A serverKind is a database server that a run may start. Both are as durable as
// they are out of the box: a commit that was acknowledged is on the disk.
type serverKind struct {
	kind string
	env  string // names a server to use instead of a container
	run  dockertest.RunOptions
	port string
	dsn  string // with %s for host:port
}

var serverKinds = map[string]serverKind{
	onPostgres: {
		kind: onPostgres, env: "HOLDFAST_TEST_POSTGRES",
		run: dockertest.RunOptions{
			Repository: "postgres", Tag: "18", Env: []string{"POSTGRES_PASSWORD=holdfast"},
			Cmd: []string{
				"postgres", "-c", "shared_preload_libraries=pg_stat_statements", "-c", "max_connections=400",
				"-c", "shared_buffers=1GB", "-c", "max_wal_size=8GB",
			},
		},
		port: "5432/tcp", dsn: "postgres://postgres:holdfast@%s/postgres?sslmode=disable",
	},
	onMySQL: {
		kind: onMySQL, env: "HOLDFAST_TEST_MYSQL",
		run: dockertest.RunOptions{
			Repository: "mysql", Tag: "9", Env: []string{"MYSQL_ROOT_PASSWORD=holdfast"},
			Cmd: []string{"mysqld", "--max-connections=400", "--innodb-buffer-pool-size=1G", "--innodb-redo-log-capacity=4G"},
		},
		port: "3306/tcp", dsn: "root:holdfast@tcp(%s)/?parseTime=true",
	},
}

// A database is one of this run's own, on some server, with the tables of all
// contestants.
type database struct {
	kind    string
	version string // what the server says it is
	server  string // how to connect to it
	dsn     string
	raw     *sql.DB // to look behind everybody's back
	asked   float64 // statements that statements itself has run
	closers []func()
}

// openDatabase finds or starts a server and makes a database on it.
func openDatabase(ctx context.Context, kind string) (*database, error) {
	d := &database{kind: kind}
	var err error
	if d.server, err = d.find(serverKinds[kind]); err == nil {
		err = d.create(ctx, "")
	}
	if err != nil {
		d.close()
		return nil, fmt.Errorf("%s: %w", kind, err)
	}
	return d, nil
}

// beside makes another database on the same server, which d's close drops.
func (d *database) beside(ctx context.Context, name string) (*database, error) {
	other := &database{kind: d.kind, server: d.server}
	d.closers = append(d.closers, other.close)
	if err := other.create(ctx, "_"+name); err != nil {
		return nil, fmt.Errorf("%s: %w", d.kind, err)
	}
	return other, nil
}

// find returns how to connect to the server, which it starts if need be.
func (d *database) find(k serverKind) (string, error) {
	if dsn := os.Getenv(k.env); dsn != "" {
		return dsn, nil
	}
	pool, err := dockertest.NewPool("")
	if err != nil {
		return "", err
	}
	pool.MaxWait = 2 * time.Minute
	resource, err := pool.RunWithOptions(&k.run, func(host *docker.HostConfig) {
		host.AutoRemove = true
		host.ShmSize = 1 << 30
		// Where MySQL puts what a transaction writes to its log beyond 32 KB; the file
		// systems that containers are made of can be slow.
		host.Tmpfs = map[string]string{"/tmp": ""}
	})
	if err != nil {
		return "", fmt.Errorf("start a container: %w; or name a server in %s", err, k.env)
	}
	d.closers = append(d.closers, func() { pool.Purge(resource) })
	if err := resource.Expire(uint(lifetime / time.Second)); err != nil {
		return "", err
	}
	dsn := fmt.Sprintf(k.dsn, resource.GetHostPort(k.port))
	return dsn, pool.Retry(func() error {
		db, err := openSQL(k.kind, dsn)
		if err != nil {
			return err
		}
		defer db.Close()
		return db.Ping()
	})
}

func openSQL(kind, dsn string) (*sql.DB, error) {
	if kind == onPostgres {
		return sql.Open("pgx", dsn)
	}
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		return nil, err
	}
	cfg.ParseTime = true
	cfg.InterpolateParams = true    // or the driver prepares each statement of those who do not ask for it
	cfg.Logger = &mysql.NopLogger{} // a server that is starting is no news
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector), nil
}

// create makes the database, which close drops, and its tables.
func (d *database) create(ctx context.Context, suffix string) error {
	admin, err := openSQL(d.kind, d.server)
	if err != nil {
		return err
	}
	d.closers = append(d.closers, func() { admin.Close() })
	name := fmt.Sprintf("holdfast_bench_%d%s", os.Getpid(), suffix)
	if _, err := admin.ExecContext(ctx, "CREATE DATABASE "+name); err != nil {
		return err
	}
	d.closers = append(d.closers, func() {
		drop := "DROP DATABASE " + name
		if d.kind == onPostgres {
			drop += " WITH (FORCE)"
		}
		admin.Exec(drop)
	})
	if err := admin.QueryRowContext(ctx, "SELECT version()").Scan(&d.version); err != nil {
		return err
	}
	if d.dsn, err = withDatabase(d.kind, d.server, name); err != nil {
		return err
	}
	d.raw = d.openSQL()
	dialect, tables := migrations.Postgres, postgresTables
	if d.kind == onMySQL {
		dialect, tables = migrations.MySQL, mysqlTables
	}
	if err := migrations.Up(ctx, d.raw, dialect, nil); err != nil {
		return err
	}
	for _, table := range tables {
		if _, err := d.raw.ExecContext(ctx, table); err != nil {
			return err
		}
	}
	return nil
}

func withDatabase(kind, server, name string) (string, error) {
	if kind == onPostgres {
		u, err := url.Parse(server)
		if err != nil {
			return "", errors.New("the PostgreSQL server is not given as a URL")
		}
		u.Path = "/" + name
		return u.String(), nil
	}
	cfg, err := mysql.ParseDSN(server)
	if err != nil {
		return "", err
	}
	cfg.DBName = name
	return cfg.FormatDSN(), nil
}

// openSQL opens a pool for database/sql.
func (d *database) openSQL() *sql.DB {
	db, err := openSQL(d.kind, d.dsn)
	if err != nil {
		panic(err) // the DSN was good enough to create the database
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	d.closers = append(d.closers, func() { db.Close() })
	return db
}

// openPool opens a pool of pgx's own.
func (d *database) openPool(ctx context.Context) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(d.dsn)
	if err != nil {
		return nil, err
	}
	cfg.MaxConns = connections
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	d.closers = append(d.closers, pool.Close)
	return pool, nil
}

// number asks for one number.
func (d *database) number(ctx context.Context, query string, args ...any) (n float64, err error) {
	err = d.raw.QueryRowContext(ctx, query, args...).Scan(&n)
	return n, err
}

// close closes and drops everything, the last first.
func (d *database) close() { d.closeBeyond(0) }

// closeBeyond closes what was opened after there were n things to close.
func (d *database) closeBeyond(n int) {
	for len(d.closers) > n {
		last := len(d.closers) - 1
		d.closers[last]()
		d.closers = d.closers[:last]
	}
}

var _ = stdlib.GetDefaultDriver // registers pgx for database/sql

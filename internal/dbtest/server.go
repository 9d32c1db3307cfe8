package dbtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/ory/dockertest/v3"
	"github.com/ory/dockertest/v3/docker"
)

// A server is a database server that all tests of the binary share.
type server struct {
	env   string // names a server to use instead of a container
	run   dockertest.RunOptions
	tmpfs string // the directory of the data, kept in memory
	port  string
	dsn   string // with %s for host:port
	ping  func(dsn string) error

	mu       sync.Mutex // guards everything below
	resource *dockertest.Resource
	pool     *dockertest.Pool
	found    string
	err      error
}

// Durability is switched off for speed: no test here pulls the plug.
var (
	postgresServer = &server{
		env: "HOLDFAST_TEST_POSTGRES",
		run: dockertest.RunOptions{
			Repository: "postgres", Tag: "18",
			Env: []string{"POSTGRES_PASSWORD=holdfast"},
			Cmd: []string{"postgres", "-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off", "-c", "max_connections=300"},
		},
		tmpfs: "/var/lib/postgresql", port: "5432/tcp",
		dsn: "postgres://postgres:holdfast@%s/postgres?sslmode=disable", ping: pingPostgres,
	}
	mysqlServer = &server{
		env: "HOLDFAST_TEST_MYSQL",
		run: dockertest.RunOptions{
			Repository: "mysql", Tag: "9",
			Env: []string{"MYSQL_ROOT_PASSWORD=holdfast"},
			Cmd: []string{"mysqld", "--skip-log-bin", "--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=OFF", "--max-connections=300"},
		},
		tmpfs: "/var/lib/mysql", port: "3306/tcp",
		dsn: "root:holdfast@tcp(%s)/", ping: pingMySQL,
	}
	mariadbServer = &server{
		env: "HOLDFAST_TEST_MARIADB",
		run: dockertest.RunOptions{
			Repository: "mariadb", Tag: "11",
			Env: []string{"MARIADB_ROOT_PASSWORD=holdfast"},
			Cmd: []string{"mariadbd", "--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=OFF", "--max-connections=300"},
		},
		tmpfs: "/var/lib/mysql", port: "3306/tcp",
		dsn: "root:holdfast@tcp(%s)/", ping: pingMySQL,
	}
)

const (
	startWait = 2 * time.Minute
	// lifetime ends the container of a test binary that was killed.
	lifetime = 20 * time.Minute
)

// url returns how to connect to the server, or skips the test.
func (s *server) url(t testing.TB) string {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.found == "" && s.err == nil {
		s.found, s.err = s.startLocked()
	}
	if s.err == nil {
		return s.found
	}
	unavailable(t, fmt.Sprintf("%s:%s: %v; start Docker, or set %s to a connection string", s.run.Repository, s.run.Tag, s.err, s.env))
	return ""
}

// unavailable skips the test, or fails it if databases are required.
func unavailable(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("HOLDFAST_REQUIRE_DB") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

func (s *server) startLocked() (string, error) {
	if url := os.Getenv(s.env); url != "" {
		return url, nil
	}
	pool, err := connectDocker()
	if err != nil {
		return "", err
	}
	resource, err := pool.RunWithOptions(&s.run, func(host *docker.HostConfig) {
		host.AutoRemove = true
		host.Tmpfs = map[string]string{s.tmpfs: "rw,exec,mode=1777"}
	})
	if err != nil {
		return "", err
	}
	s.pool, s.resource = pool, resource
	if err := resource.Expire(uint(lifetime / time.Second)); err != nil {
		return "", err
	}
	dsn := fmt.Sprintf(s.dsn, resource.GetHostPort(s.port))
	if err := pool.Retry(func() error { return s.ping(dsn) }); err != nil {
		return "", fmt.Errorf("the server does not answer: %w", err)
	}
	return dsn, nil
}

// connectDocker returns a pool of containers, or why there can be none.
func connectDocker() (*dockertest.Pool, error) {
	pool, err := dockertest.NewPool("")
	if err == nil {
		err = pool.Client.Ping()
	}
	if err != nil {
		return nil, fmt.Errorf("no Docker here: %w", err)
	}
	pool.MaxWait = startWait
	return pool, nil
}

// ip is the address of the server for other containers, "" if it is in none.
func (s *server) ip() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.resource == nil {
		return ""
	}
	return s.resource.Container.NetworkSettings.IPAddress
}

// purge removes the containers that this binary started.
func purge() error {
	var errs []error
	for _, s := range []*server{postgresServer, mysqlServer, mariadbServer} {
		s.mu.Lock()
		if s.resource != nil {
			errs = append(errs, s.pool.Purge(s.resource))
			s.pool.Client.HTTPClient.CloseIdleConnections()
			s.resource = nil
		}
		s.mu.Unlock()
	}
	return errors.Join(errs...)
}

func pingPostgres(dsn string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

func pingMySQL(dsn string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		return err
	}
	cfg.Logger = &mysql.NopLogger{} // a server that is starting is no news
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return err
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	return db.PingContext(ctx)
}

// cleanupContext is for work after the test's own context has ended.
func cleanupContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 30*time.Second)
}

package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/holdfast-sessions/holdfast/migrations"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	mysqlbackend "github.com/holdfast-sessions/holdfast/sqlbackend/mysql"
	"github.com/holdfast-sessions/holdfast/sqlbackend/postgres"
	"github.com/holdfast-sessions/holdfast/sqlbackend/sqlite"
)

const (
	databaseForms = "want sqlite:path, postgres://user:password@host/name or mysql://user:password@host/name"

	// connectTimeout is how long a database may take to answer for the first time.
	connectTimeout = 10 * time.Second

	// hostTimeout is how long each of several servers may take. It is so short that one
	// which is switched off does not use up the time of a statement for the others.
	hostTimeout = 2 * time.Second

	// Pools: enough connections to keep a database busy, few enough that many nodes
	// fit into its limit.
	maxConnections = 16
	// A connection is given up after a while, so that a pool follows a failover and
	// no server or firewall in between is first to close it.
	connectionLifetime = 10 * time.Minute
	connectionIdle     = 2 * time.Minute
)

// databaseVariable is the environment variable that stands for --database: command lines
// can be seen by others on the machine.
const databaseVariable = "HOLDFAST_DATABASE"

// databaseAddress returns the value of --database, or of what stands for it.
func databaseAddress(flag string) (string, error) {
	if flag != "" {
		return flag, nil
	}
	if address := os.Getenv(databaseVariable); address != "" {
		return address, nil
	}
	return "", usageError{fmt.Errorf("--database and %s are missing: %s", databaseVariable, databaseForms)}
}

// A backend is one of the library's, which counts its statements.
type backend interface {
	sessionstore.Backend
	Statements() int64
}

// A database is an open backend and how to close it.
type database struct {
	backend backend
	close   func() error
}

// openDatabase opens what --database names, and makes its tables first if it is
// asked to migrate. Its errors name what is wrong and hold no password.
func openDatabase(ctx context.Context, address string, migrate bool) (*database, error) {
	if path, ok := sqlitePath(address); ok {
		return openSQLite(ctx, path)
	}
	s, err := connect(ctx, address)
	if err != nil {
		return nil, err
	}
	if migrate {
		if err := migrations.Up(ctx, s.db, s.dialect, nil); err != nil {
			return nil, s.fail(err)
		}
	}
	backend, err := s.backend(ctx)
	if err != nil {
		return nil, s.fail(advise(err))
	}
	return &database{backend, s.close}, nil
}

// A server is a database server.
type server struct {
	address *url.URL
	dialect migrations.Dialect
	db      *sql.DB
	backend func(context.Context) (backend, error)
	close   func() error
}

// fail closes the server and returns err with the database's name and without passwords.
func (s *server) fail(err error) error { return describe(errors.Join(err, s.close()), s.address) }

func describe(err error, u *url.URL) error {
	return redact(fmt.Errorf("database %s: %w", display(u), err), u)
}

// connect connects to the server that address names, and sees that it answers. Errors name
// the database and hold no password.
func connect(ctx context.Context, address string) (*server, error) {
	scheme, _, ok := strings.Cut(address, "://")
	if !ok {
		return nil, usageError{errors.New("--database: " + databaseForms)}
	}
	var open func(context.Context, *url.URL) (*server, error)
	switch scheme {
	case "postgres", "postgresql":
		open = openPostgres
	case "mysql", "mariadb":
		open = openMySQL
	default:
		return nil, usageError{fmt.Errorf("--database: unknown kind %q: %s", scheme, databaseForms)}
	}
	u, err := parseAddress(address)
	if err != nil || isAmbiguous(u, address) {
		// The error's text, or a part of u, may be half of the password.
		return nil, usageError{errors.New("--database: not a valid URL; in user and password, write characters like / @ : # ? % as %2F and so on")}
	}
	if len(u.Path) < 2 {
		return nil, usageError{fmt.Errorf("--database: %s names no database after the host", u.Redacted())}
	}
	s, err := open(ctx, u)
	if err != nil {
		return nil, describe(err, u)
	}
	s.address = u
	if err := answers(ctx, s.db); err != nil {
		return nil, s.fail(err)
	}
	return s, nil
}

// parseAddress is url.Parse for URLs that may name several hosts with ports, separated
// by commas, of which it knows nothing. They all are in the URL's Host.
func parseAddress(address string) (*url.URL, error) {
	scheme, rest, _ := strings.Cut(address, "://")
	authority := rest
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		authority = rest[:end]
	}
	hosts := authority[strings.LastIndex(authority, "@")+1:]
	if !strings.Contains(hosts, ",") {
		return url.Parse(address)
	}
	for host := range strings.SplitSeq(hosts, ",") {
		if u, err := url.Parse(scheme + "://" + host); err != nil || u.Hostname() == "" {
			return nil, errors.New("a host is empty or malformed")
		}
	}
	user := strings.TrimSuffix(authority, hosts)
	u, err := url.Parse(scheme + "://" + user + rest[len(authority):])
	if err != nil {
		return nil, err
	}
	u.Host = hosts
	return u, nil
}

// hasManyHosts reports whether u names more than one server.
func hasManyHosts(u *url.URL) bool { return strings.Contains(u.Host, ",") }

// isAmbiguous reports whether u may not be what was meant by address: a user or
// password with characters that have another meaning in URLs leaves an @ where none
// belongs, or a fragment, of which no database knows.
func isAmbiguous(u *url.URL, address string) bool {
	at := strings.Count(address, "@")
	return at > 1 || at == 1 && u.User == nil || strings.Contains(address, "#")
}

// display returns u without password and parameters.
func display(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, User: url.User(u.User.Username()), Host: u.Host, Path: u.Path}).String()
}

// advise adds what to do about a schema that is not there.
func advise(err error) error {
	if errors.Is(err, migrations.ErrSchemaMissing) || errors.Is(err, migrations.ErrSchemaOlder) {
		return fmt.Errorf("its tables are missing or old, run this again with --migrate, or holdfast migrate: %w", err)
	}
	return err
}

// A redactedError is an error whose text was cleared of passwords.
type redactedError struct {
	error
	text string
}

func (e redactedError) Error() string { return e.text }
func (e redactedError) Unwrap() error { return e.error }

// redact removes u's passwords from the text of err, where drivers quote an address
// or its parameters. They do so too, but not in every message. What merely looks
// like the password, such as a user of the same name, stays.
func redact(err error, u *url.URL) error {
	text := err.Error()
	hide := func(before, secret, after string) {
		for _, s := range []string{secret, url.QueryEscape(secret), url.PathEscape(secret)} {
			if s != "" {
				text = strings.ReplaceAll(text, before+s+after, before+"xxxxx"+after)
			}
		}
	}
	if p, ok := u.User.Password(); ok {
		hide(":", p, "@")
		hide("password=", p, "")
	}
	for name, values := range u.Query() {
		if strings.Contains(strings.ToLower(name), "password") {
			for _, value := range values {
				hide(name+"=", value, "")
			}
		}
	}
	return redactedError{err, text}
}

// sqlitePath returns the path in address, and whether address is SQLite's.
func sqlitePath(address string) (path string, ok bool) {
	path, ok = strings.CutPrefix(address, "sqlite:")
	return strings.TrimPrefix(path, "//"), ok
}

func openSQLite(ctx context.Context, path string) (*database, error) {
	if path == "" {
		return nil, usageError{errors.New("--database: sqlite: has no path after it")}
	}
	backend, err := sqlite.Open(ctx, path, nil)
	if err != nil {
		return nil, err // which names the path
	}
	return &database{backend, backend.Close}, nil
}

// postgresConfig is the configuration of a pool for u.
func postgresConfig(u *url.URL) (*pgxpool.Config, error) {
	query := u.Query()
	timeout := connectTimeout
	if hasManyHosts(u) {
		timeout = hostTimeout
		if !query.Has("target_session_attrs") {
			with := *u
			query.Set("target_session_attrs", "read-write") // any would do for a replica
			with.RawQuery = query.Encode()
			u = &with
		}
	}
	cfg, err := pgxpool.ParseConfig(u.String())
	if err != nil {
		return nil, err
	}
	if !query.Has("pool_max_conns") {
		cfg.MaxConns = maxConnections
	}
	if cfg.ConnConfig.ConnectTimeout == 0 {
		cfg.ConnConfig.ConnectTimeout = timeout
	}
	return cfg, nil
}

func openPostgres(ctx context.Context, u *url.URL) (*server, error) {
	cfg, err := postgresConfig(u)
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	db := stdlib.OpenDBFromPool(pool)
	return &server{
		dialect: migrations.Postgres,
		db:      db,
		backend: func(ctx context.Context) (backend, error) { return postgres.New(ctx, pool, nil) },
		close: func() error {
			err := db.Close()
			pool.Close()
			return err
		},
	}, nil
}

func openMySQL(_ context.Context, u *url.URL) (*server, error) {
	connector, err := mysqlConnector(u)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(maxConnections)
	db.SetMaxIdleConns(maxConnections)
	db.SetConnMaxLifetime(connectionLifetime)
	db.SetConnMaxIdleTime(connectionIdle)
	return &server{
		dialect: migrations.MySQL,
		db:      db,
		backend: func(ctx context.Context) (backend, error) { return mysqlbackend.New(ctx, db, nil) },
		close:   db.Close,
	}, nil
}

// answers fails if a database is down, before anything else is asked of it.
func answers(ctx context.Context, db *sql.DB) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if err := db.PingContext(ctx); err != nil {
		return fmt.Errorf("cannot connect: %w", err)
	}
	return nil
}

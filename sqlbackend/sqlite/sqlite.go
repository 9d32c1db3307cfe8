// Package sqlite keeps sessions in an SQLite file, through modernc.org/sqlite: no
// server and no cgo.
//
//	backend, err := sqlite.Open(ctx, "sessions.db", nil)
//	…
//	defer backend.Close()
//
// Several processes of one machine may open one file. Writes take turns; reads do
// not wait for them (write-ahead log). A write that returned is on the disk.
package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast-sessions/holdfast/migrations"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sqlbackend"
	"github.com/holdfast-sessions/holdfast/sqlbackend/internal/sqldb"
)

// Memory is the path of a database that lives in memory until it is closed, and is
// nobody else's.
const Memory = ":memory:"

// A Config configures a Backend. The zero Config is valid. [Open] copies it.
type Config struct {
	// TablePrefix begins the names of all tables. Defaults to
	// migrations.DefaultTablePrefix.
	TablePrefix string

	// StatementTimeout bounds each statement and transaction, also while it waits
	// for another process's write. It must be at least 1ms and at most
	// sqlbackend.MaxStatementTimeout. Defaults to sqlbackend.DefaultStatementTimeout.
	StatementTimeout time.Duration

	// RelaxedDurability leaves it to the operating system when the last writes
	// reach the disk (synchronous=NORMAL). A power failure may undo them, then,
	// after a client was told of them; a crash of the program may not. Defaults to
	// false.
	RelaxedDurability bool

	// Readers is how many connections read side by side, at least 1; in memory
	// everything shares one. Defaults to 4.
	Readers int
}

// A Backend is a [sessionstore.Backend] on an SQLite file. It is safe for
// concurrent use. Use [Open]; the zero Backend is not usable.
type Backend struct {
	*sqlbackend.Backend
	write, read *sql.DB
}

// Open opens the database in the file path, which it creates if it does not exist,
// or in [Memory], and brings its schema up to date. A nil cfg is the zero Config.
// It returns migrations.ErrSchemaNewer if a newer version of the library has been
// at the file. The caller closes the Backend.
func Open(ctx context.Context, path string, cfg *Config) (*Backend, error) {
	if cfg == nil {
		cfg = new(Config)
	}
	if path == "" {
		return nil, errors.New("sqlite: path is empty")
	}
	if strings.HasPrefix(path, "file:") {
		return nil, fmt.Errorf("sqlite: path %s is a URI, want the path of a file", path)
	}
	if cfg.Readers < 0 {
		return nil, fmt.Errorf("sqlite: Readers is %d, want at least 1", cfg.Readers)
	}
	if cfg.StatementTimeout != 0 && cfg.StatementTimeout < time.Millisecond {
		return nil, fmt.Errorf("sqlite: StatementTimeout is %v, want at least 1ms", cfg.StatementTimeout)
	}
	b, err := open(ctx, path, *cfg)
	if err != nil {
		return nil, fmt.Errorf("open SQLite database %s: %w", path, err)
	}
	return b, nil
}

func open(ctx context.Context, path string, cfg Config) (_ *Backend, err error) {
	timeout := cmp.Or(cfg.StatementTimeout, sqlbackend.DefaultStatementTimeout)
	b := new(Backend)
	defer func() {
		if err != nil {
			err = errors.Join(err, b.Close())
		}
	}()
	if path == Memory {
		err = b.openMemory(ctx, cfg)
	} else {
		err = b.openFile(ctx, path, cfg, timeout)
	}
	if err != nil {
		return nil, err
	}
	b.Backend, err = sqlbackend.New(ctx, b.database(), dialect(),
		&sqlbackend.Config{TablePrefix: cfg.TablePrefix, StatementTimeout: timeout})
	if err != nil {
		return nil, err
	}
	return b, nil
}

func (b *Backend) openMemory(ctx context.Context, cfg Config) (err error) {
	if b.write, err = openPool(dsn(Memory, cfg, 0), 1); err != nil {
		return err
	}
	b.read = b.write // a second connection would be a second database
	return migrate(ctx, b.write, cfg)
}

func (b *Backend) openFile(ctx context.Context, path string, cfg Config, timeout time.Duration) (err error) {
	// SQLite's own message is "unable to open database file", whatever is wrong with it.
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return errors.New("is a directory, want a file")
	}
	if _, err := os.Stat(filepath.Dir(path)); err != nil {
		return fmt.Errorf("its directory: %w", err)
	}
	waiting := dsn(path, cfg, timeout)
	if err := migrateFile(ctx, waiting, cfg); err != nil {
		return err
	}
	// SQLite has one writer at a time: wait for it here, in order. For other processes
	// a contender waits; SQLite must not, see maxLockPause.
	if b.write, err = openPool(dsn(path, cfg, 0), 1); err != nil {
		return err
	}
	b.read, err = openPool(waiting+"&_pragma=query_only(1)", cmp.Or(cfg.Readers, 4))
	return err
}

func migrateFile(ctx context.Context, dsn string, cfg Config) error {
	db, err := openPool(dsn, 1)
	if err != nil {
		return err
	}
	return errors.Join(migrate(ctx, db, cfg), db.Close())
}

func migrate(ctx context.Context, db *sql.DB, cfg Config) error {
	return migrations.Up(ctx, db, migrations.SQLite, &migrations.Config{TablePrefix: cfg.TablePrefix})
}

func openPool(dsn string, connections int) (*sql.DB, error) {
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db, nil
}

func (b *Backend) database() sqlbackend.DB {
	return newContender(&sqldb.DB{
		Write: b.write, Read: b.read,
		// Takes the write lock at once: a transaction that read first and then wants
		// to write fails if another process wrote between.
		Begin: []string{"BEGIN IMMEDIATE"},
		// SQLite rolls back by itself when a write is interrupted or the disk is full.
		NoTransaction: func(err error) bool { return strings.Contains(err.Error(), "no transaction is active") },
	}, b.read == b.write)
}

func dialect() *sqlbackend.Dialect {
	return &sqlbackend.Dialect{
		Name:       migrations.SQLite,
		Numbered:   "?",
		Snippets:   snippets,
		Statements: statements,
		Classify:   classify,
		ID:         func(id sessionstore.ID) any { return id[:] },
		Text:       func(s string) any { return s },
	}
}

// dsn returns the name of the database in the file path, in which SQLite itself waits
// for locks for busy. The driver sorts pragmas, with busy_timeout first: journal_mode may
// have to wait.
func dsn(path string, cfg Config, busy time.Duration) string {
	synchronous := "FULL"
	if cfg.RelaxedDurability {
		synchronous = "NORMAL"
	}
	pragmas := url.Values{"_pragma": {
		fmt.Sprintf("busy_timeout(%d)", busy.Milliseconds()),
		"journal_mode(WAL)",
		fmt.Sprintf("synchronous(%s)", synchronous),
	}}.Encode()
	if path == Memory {
		return path + "?" + pragmas
	}
	// As a URI, in which a path may contain a question mark.
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: pragmas}).String()
}

// Close closes the file. It may be called more than once. What was running fails,
// and so does what is called later.
func (b *Backend) Close() error {
	var errs []error
	if b.read != nil && b.read != b.write {
		errs = append(errs, b.read.Close())
	}
	if b.write != nil {
		errs = append(errs, b.write.Close()) // last: whoever closes last may tidy the log away
	}
	return errors.Join(errs...)
}

package migrations

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/pressly/goose/v3"
)

// Latest is the version of the schema that this version of the library needs.
const Latest = 3

//go:embed postgres/*.sql mysql/*.sql sqlite/*.sql
var files embed.FS

// A Dialect says which database the tables are made for.
type Dialect string

// The dialects. MySQL stands for MariaDB too.
const (
	Postgres Dialect = "postgres"
	MySQL    Dialect = "mysql"
	SQLite   Dialect = "sqlite"
)

func (d Dialect) quote() (string, error) {
	switch d {
	case Postgres, SQLite:
		return `"`, nil
	case MySQL:
		return "`", nil
	}
	return "", fmt.Errorf("migrations: unknown dialect %q", string(d))
}

// Up brings the schema to the version [Latest]. It creates cfg.Schema if it does
// not exist. A schema that is newer already is left alone, without an error; the
// backend's constructor will say so. A nil cfg is the zero Config. Up leaves db
// open.
func Up(ctx context.Context, db *sql.DB, dialect Dialect, cfg *Config) error {
	p, err := provider(db, dialect, cfg)
	if err != nil {
		return err
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate up: %w", err)
	}
	return nil
}

// Down takes the schema back to version, which must not be negative; 0 drops
// every table of the library except the one that records the version, and all
// sessions with them. It changes nothing, and makes no schema, if that is the version
// already. A nil cfg is the zero Config. Down leaves db open.
func Down(ctx context.Context, db *sql.DB, dialect Dialect, cfg *Config, version int64) error {
	current, err := Version(ctx, db, dialect, cfg)
	if err != nil {
		return err
	}
	if version < 0 || version > current {
		return fmt.Errorf("migrate down to version %d: the schema has version %d", version, current)
	}
	if version == current {
		return nil
	}
	p, err := provider(db, dialect, cfg)
	if err != nil {
		return err
	}
	if _, err := p.DownTo(ctx, version); err != nil {
		return fmt.Errorf("migrate down to version %d: %w", version, err)
	}
	return nil
}

// Version returns the schema's version, 0 if there is none. It changes nothing, takes
// no lock, and works through any pooler; the right to SELECT from the table that
// records the version is enough. A nil cfg is the zero Config. [Check] judges the
// answer.
func Version(ctx context.Context, db *sql.DB, dialect Dialect, cfg *Config) (int64, error) {
	names, err := cfg.Names(dialect)
	if err != nil {
		return 0, err
	}
	store, err := newVersionStore(dialect, names)
	if err != nil {
		return 0, err
	}
	version, err := store.current(ctx, db)
	if err != nil {
		return 0, fmt.Errorf("read the schema's version: %w", err)
	}
	return version, nil
}

func provider(db *sql.DB, dialect Dialect, cfg *Config) (*goose.Provider, error) {
	names, err := cfg.Names(dialect)
	if err != nil {
		return nil, err
	}
	sources, err := render(dialect, names)
	if err != nil {
		return nil, err
	}
	store, err := newVersionStore(dialect, names)
	if err != nil {
		return nil, err
	}
	locker, err := newLocker(dialect, store)
	if err != nil {
		return nil, err
	}
	p, err := goose.NewProvider(goose.DialectCustom, db, sources,
		goose.WithStore(store),
		goose.WithSessionLocker(locker),
		goose.WithDisableGlobalRegistry(true),
		goose.WithLogger(goose.NopLogger()),
	)
	if err != nil {
		return nil, fmt.Errorf("migrations: %w", err)
	}
	return p, nil
}

// A renderedFS is a dialect's files with the configured names in them.
type renderedFS struct {
	fs.FS
	names *strings.Replacer
}

func render(dialect Dialect, names Names) (fs.FS, error) {
	sub, err := fs.Sub(files, string(dialect))
	if err != nil {
		return nil, fmt.Errorf("migrations: %w", err)
	}
	return renderedFS{sub, strings.NewReplacer(
		"{sessions}", names.Sessions, "{events}", names.Events, "{nodes}", names.Nodes, "{prefix}", names.Prefix)}, nil
}

// Open implements [fs.FS].
func (r renderedFS) Open(name string) (fs.File, error) {
	f, err := r.FS.Open(name)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || info.IsDir() {
		return f, err
	}
	text, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	return renderedFile{f, strings.NewReader(r.names.Replace(string(text)))}, nil
}

type renderedFile struct {
	fs.File
	text *strings.Reader
}

func (f renderedFile) Read(b []byte) (int, error) { return f.text.Read(b) }

package migrations

import (
	"cmp"
	"fmt"
	"regexp"
)

// DefaultTablePrefix begins the names of all tables unless a Config says otherwise.
const DefaultTablePrefix = "holdfast_"

// Longest names: PostgreSQL cuts identifiers at 63 bytes and MySQL refuses more
// than 64; the longest suffix is "sessions_principal_idx".
var (
	prefixRE = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,31}$`)
	schemaRE = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`)
)

// A Config says where the tables are. The zero Config, and nil, mean tables that
// begin with [DefaultTablePrefix] in the connection's own schema.
type Config struct {
	// TablePrefix begins the name of every table and index: a to z, 0 to 9 and _,
	// not beginning with a digit, at most 32 bytes. Capital letters are refused
	// because databases disagree on what they mean. Defaults to
	// DefaultTablePrefix.
	TablePrefix string

	// Schema is the PostgreSQL schema that holds the tables: a to z, 0 to 9 and _,
	// not beginning with a digit, at most 63 bytes. Up creates it if it does not
	// exist. It must be empty for other databases. Defaults to "", the first
	// schema of the connection's search_path.
	Schema string
}

// Names are the quoted identifiers that a Config stands for, by the placeholder
// that SQL text uses for them.
type Names struct {
	Prefix     string // {prefix}: not quoted, for names of indexes
	Schema     string // not quoted, "" if none was configured
	Sessions   string // {sessions}
	Events     string // {events}
	Nodes      string // {nodes}
	Migrations string // the table that records the schema's version
}

// Names returns the identifiers for dialect, or an error that names the field
// that is no identifier. A nil Config is the zero Config.
func (c *Config) Names(dialect Dialect) (Names, error) {
	if c == nil {
		c = new(Config)
	}
	quote, err := dialect.quote()
	if err != nil {
		return Names{}, err
	}
	prefix := cmp.Or(c.TablePrefix, DefaultTablePrefix)
	if !prefixRE.MatchString(prefix) {
		return Names{}, fmt.Errorf("migrations: TablePrefix %q is no identifier: it must match %s", prefix, prefixRE)
	}
	qualified := ""
	if c.Schema != "" {
		if dialect != Postgres {
			return Names{}, fmt.Errorf("migrations: Schema %q: only PostgreSQL has schemas, %s has none", c.Schema, dialect)
		}
		if !schemaRE.MatchString(c.Schema) {
			return Names{}, fmt.Errorf("migrations: Schema %q is no identifier: it must match %s", c.Schema, schemaRE)
		}
		qualified = quote + c.Schema + quote + "."
	}
	return Names{
		Prefix:     prefix,
		Schema:     c.Schema,
		Sessions:   qualified + quote + prefix + "sessions" + quote,
		Events:     qualified + quote + prefix + "events" + quote,
		Nodes:      qualified + quote + prefix + "nodes" + quote,
		Migrations: qualified + quote + prefix + "migrations" + quote,
	}, nil
}

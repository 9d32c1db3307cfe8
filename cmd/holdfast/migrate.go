package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-sessions/holdfast/migrations"
)

func newMigrateCommand() *cobra.Command {
	var database string
	var cfg migrations.Config
	cmd := &cobra.Command{
		Use:   "migrate --database URL",
		Short: "Make or update the tables in a database",
		Long: "Makes the tables that sessions are stored in, or brings them to the version that\n" +
			"this build needs. It may run beside nodes that use them, and several times at\n" +
			"once. It is for programs whose own user may not create tables: they need the\n" +
			"rights to SELECT, INSERT, UPDATE and DELETE, and on PostgreSQL USAGE of the schema.\n" +
			"It fails on tables that are newer than this build, and leaves them as they are.\n\n" +
			"Without --database, " + databaseVariable + " says where the database is.",
		Example: "  holdfast migrate --database postgres://owner:password@db/app --schema sessions\n" +
			"  " + databaseVariable + "=mysql://owner:password@db/app holdfast migrate",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			address, err := databaseAddress(database)
			if err != nil {
				return err
			}
			if strings.HasPrefix(address, "sqlite:") {
				return usageError{errors.New("--database: SQLite's tables are made and updated whenever it is opened")}
			}
			s, err := connect(ctx, address)
			if err != nil {
				return err
			}
			was, is, err := bringUp(ctx, s, &cfg)
			if err != nil {
				return s.fail(err)
			}
			if err := s.close(); err != nil {
				return err
			}
			if was == is {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "Nothing to do: the schema has version %d.\n", is)
			} else {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "The schema has version %d now, it was %d.\n", is, was)
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&database, "database", "", "`URL` of the database, as for serve")
	flags.StringVar(&cfg.Schema, "schema", "", "`name` of the PostgreSQL schema to hold the tables, made if it is missing")
	flags.StringVar(&cfg.TablePrefix, "table-prefix", migrations.DefaultTablePrefix, "`text` that the tables' names begin with")
	return cmd
}

// bringUp brings a schema to the version that this build needs, and returns which it was
// and is.
func bringUp(ctx context.Context, s *server, cfg *migrations.Config) (was, is int64, err error) {
	if _, err := cfg.Names(s.dialect); err != nil {
		return 0, 0, usageError{err}
	}
	if was, err = migrations.Version(ctx, s.db, s.dialect, cfg); err != nil {
		return 0, 0, err
	}
	if err := migrations.Up(ctx, s.db, s.dialect, cfg); err != nil {
		return 0, 0, err
	}
	if is, err = migrations.Version(ctx, s.db, s.dialect, cfg); err != nil {
		return 0, 0, err
	}
	// Up leaves a schema that is newer as it is, but nodes will refuse it.
	return was, is, migrations.Check(is)
}

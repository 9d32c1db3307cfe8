package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-sessions/holdfast/idmanager"
	"github.com/holdfast-sessions/holdfast/sessionstore"
)

const (
	defaultListen = "127.0.0.1:8080"

	// defaultDrain is time for a balancer that checks each second and believes the
	// second failure.
	defaultDrain = 3 * time.Second
)

// outagePolicies are what --outage names.
var outagePolicies = map[string]sessionstore.OutagePolicy{
	"fail-closed": sessionstore.FailClosed, "serve-cached": sessionstore.ServeCached,
}

// freshnessModes are what --freshness names.
var freshnessModes = map[string]sessionstore.Freshness{
	"causal": sessionstore.Causal, "strict": sessionstore.Strict,
}

// A serveConfig is the command line of one node.
type serveConfig struct {
	listen, name, database, outage, freshness string
	drain, sweep                              time.Duration
	migrate, secureCookies, logEnds, child    bool
}

func newServeCommand() *cobra.Command {
	var cfg serveConfig
	cmd := &cobra.Command{
		Use:   "serve --node NAME --database URL",
		Short: "Run one node of the shop on a database",
		Long: "Runs one node of the shop on a database until SIGTERM or Ctrl-C. Start as many\n" +
			"as you like on one database, each with a name of its own.\n\n" +
			"Told to stop, it first drains: it goes on serving, but says so at /healthz, where\n" +
			"balancers should look, and asks clients to use another connection. A second\n" +
			"signal ends it at once.\n\n" +
			"The database, in --database or " + databaseVariable + ", is one of\n" +
			"  sqlite:path/to/file\n" +
			"  postgres://user:password@host:5432/name\n" +
			"  mysql://user:password@host:3306/name       (MariaDB too)\n\n" +
			"Several hosts, separated by commas, are a primary with its standbys, or a Galera\n" +
			"cluster: the node uses the first one that accepts writes, and another if that fails.",
		Example: "  holdfast serve --node node1 --database sqlite:sessions.db\n" +
			"  holdfast serve --node node2 --listen :8082 --database postgres://app@db/app --migrate",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runServe(cmd, cfg) },
	}
	flags := cmd.Flags()
	flags.StringVar(&cfg.listen, "listen", defaultListen, "`address` to listen on; port 0 takes any that is free")
	flags.StringVar(&cfg.name, "node", "", "`name` of this node, unlike that of any other on the database")
	flags.StringVar(&cfg.database, "database", "", "`URL` of the database")
	flags.DurationVar(&cfg.drain, "drain", defaultDrain, "`duration` for which to go on serving after the signal to stop")
	flags.StringVar(&cfg.outage, "outage", "fail-closed",
		"`policy` while the database is away: fail-closed, or serve-cached to answer reads from copies")
	flags.StringVar(&cfg.freshness, "freshness", "causal",
		"`mode` of reading: causal, or strict to confirm each session with the database")
	flags.DurationVar(&cfg.sweep, "sweep", idmanager.DefaultSweepInterval, "`duration` between two sweeps of expired sessions")
	flags.BoolVar(&cfg.logEnds, "log-ends", false, "print a line for each session that this node ends: its ID, application and cause")
	flags.BoolVar(&cfg.migrate, "migrate", false, "make or update the database's tables first (SQLite's always are)")
	flags.BoolVar(&cfg.secureCookies, "secure-cookies", false,
		"make browsers send the session's cookies over HTTPS only; for a node behind a proxy that speaks it")
	flags.BoolVar(&cfg.child, "child", false, "be a node of the demo, which tells more on standard input")
	if err := flags.MarkHidden("child"); err != nil {
		panic(err) // there is no such flag
	}
	return cmd
}

// node says what kind of node is wanted, or what is wrong with the command line.
func (cfg serveConfig) node() (nodeConfig, error) {
	outage, known := outagePolicies[cfg.outage]
	freshness, ok := freshnessModes[cfg.freshness]
	var err error
	switch {
	case cfg.name == "":
		err = errors.New("--node is missing: a name for this node, unlike that of any other")
	case sessionstore.ValidateRoute(cfg.name) != nil:
		err = fmt.Errorf("--node %q: want 1 to %d of A-Z a-z 0-9 _ and -", cfg.name, sessionstore.MaxRouteBytes)
	case !known:
		err = fmt.Errorf("--outage %q: want fail-closed or serve-cached", cfg.outage)
	case !ok:
		err = fmt.Errorf("--freshness %q: want causal or strict", cfg.freshness)
	case cfg.sweep <= 0:
		err = fmt.Errorf("--sweep %v: want a duration such as 1m", cfg.sweep)
	case cfg.drain < 0:
		err = fmt.Errorf("--drain %v: want a duration such as 3s, or 0", cfg.drain)
	}
	if err != nil {
		return nodeConfig{}, usageError{err}
	}
	return nodeConfig{
		name: cfg.name, insecureCookies: !cfg.secureCookies, outage: outage, drain: cfg.drain,
		freshness: freshness, sweepInterval: cfg.sweep,
	}, nil
}

func runServe(cmd *cobra.Command, cfg serveConfig) (err error) {
	nodeCfg, err := cfg.node()
	if err != nil {
		return err
	}
	address, err := databaseAddress(cfg.database)
	if err != nil {
		return err
	}
	ctx, out := cmd.Context(), cmd.OutOrStdout()
	nodeCfg.logger = newLogger(cmd)
	if cfg.logEnds {
		nodeCfg.ends = out
	}
	if cfg.child {
		if ctx, err = nodeCfg.adopt(ctx, cmd.InOrStdin()); err != nil {
			return err
		}
	}
	db, err := openDatabase(ctx, address, cfg.migrate)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil // told to stop before it had begun
	case err != nil:
		return err
	}
	defer func() { err = errors.Join(err, db.close()) }()
	n, err := newNode(nodeCfg, db)
	if err != nil {
		return err
	}
	listener, err := listenOn(ctx, cfg.listen)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s http://%s\n", cfg.name, listener.Addr())
	return n.serve(ctx, listener, out)
}

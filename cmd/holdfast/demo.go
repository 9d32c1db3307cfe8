package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-sessions/holdfast/internal/balancer"
	"github.com/holdfast-sessions/holdfast/internal/shop"
	"github.com/holdfast-sessions/holdfast/sqlbackend/sqlite"
)

const (
	defaultNodes = 3
	// maxNodes is what one machine carries without effort.
	maxNodes = 16
	// demoDrain is how long a node of the demo goes on serving when it is stopped;
	// the balancer knows at once, its clients' other connections do not.
	demoDrain = time.Second
	// fleetGrace is how long all nodes may take to end.
	fleetGrace = requestGrace + writeBackGrace + 5*time.Second
	// partingGrace is how long clients may take to notice that the demo has ended.
	partingGrace = time.Second
)

// A demoConfig is the command line of the demo.
type demoConfig struct {
	listen, database string
	nodes            int
}

func newDemoCommand() *cobra.Command {
	var cfg demoConfig
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Open the shop on this machine, with nothing to set up",
		Long: "Opens the shop on this machine until Ctrl-C: several nodes, each a process of\n" +
			"its own, on one database behind a balancer. Its pages let you stop and start\n" +
			"them, and so can whoever reaches the address to listen on.\n\n" +
			"Without --database sessions are in an SQLite database in a temporary\n" +
			"directory, which is removed at the end, unless the demo is killed.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cfg.nodes < 1 || cfg.nodes > maxNodes {
				return usageError{fmt.Errorf("--nodes %d: want 1 to %d", cfg.nodes, maxNodes)}
			}
			if path, ok := sqlitePath(cfg.database); ok && path == sqlite.Memory {
				return usageError{errors.New("--database: the memory of one process is no place for the sessions of several")}
			}
			return runDemo(cmd, cfg)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&cfg.listen, "listen", defaultListen, "`address` to listen on; port 0 takes any that is free")
	flags.IntVar(&cfg.nodes, "nodes", defaultNodes, "`number` of nodes")
	flags.StringVar(&cfg.database, "database", "", "`URL` of another database, as for serve; its tables are made if they are missing")
	return cmd
}

func runDemo(cmd *cobra.Command, cfg demoConfig) (err error) {
	ctx := cmd.Context()
	// First, so that a port that is taken leaves no directory behind.
	front, err := listenOn(ctx, cfg.listen)
	if err != nil {
		return err
	}
	defer front.Close() // without effect once the balancer has closed it
	if cfg.database != "" {
		return onDatabase(cmd, cfg, front, "where --database says")
	}
	dir, err := os.MkdirTemp("", "holdfast-demo-")
	if err != nil {
		return fmt.Errorf("make a directory for the database: %w", err)
	}
	defer func() {
		if removeErr := os.RemoveAll(dir); removeErr != nil {
			err = errors.Join(err, fmt.Errorf("remove the demo's database: %w", removeErr))
		}
	}()
	path := filepath.Join(dir, "sessions.db")
	cfg.database = "sqlite:" + path
	return onDatabase(cmd, cfg, front, "in "+path+" until the end")
}

// onDatabase runs the demo on the database that is configured, which is at place.
func onDatabase(cmd *cobra.Command, cfg demoConfig, front net.Listener, place string) error {
	ctx := cmd.Context()
	// Whatever is wrong with the database is said once, not by every node.
	db, err := openDatabase(ctx, cfg.database, true)
	if err == nil {
		err = db.close()
	}
	if err == nil {
		return serveDemo(cmd, cfg, front, place)
	}
	if ctx.Err() != nil {
		return nil // it was told to stop before it had begun
	}
	return err
}

// serveDemo runs the nodes, and what stands before and behind them, until the
// command's context ends.
func serveDemo(cmd *cobra.Command, cfg demoConfig, front net.Listener, place string) (err error) {
	ctx, logger := cmd.Context(), newLogger(cmd)
	b, err := balancer.New(&balancer.Config{CheckPath: "/healthz", CheckInterval: time.Second / 4, Logger: logger})
	if err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program, to start nodes: %w", err)
	}
	out := &shared{to: cmd.OutOrStdout()}
	f := &fleet{
		program: program, database: cfg.database, balancer: b, told: upbringing{Token: rand.Text()},
		out: out, errs: &shared{to: cmd.ErrOrStderr()},
	}
	control, err := serveLocal(newControl(f, f.told.Token))
	if err != nil {
		return err
	}
	defer control.Close()
	standby, err := serveLocal(shop.NewStandby(f, logger))
	if err != nil {
		return err
	}
	defer standby.Close()
	standby.SetKeepAlivesEnabled(false) // so that its clients find the nodes that come back
	f.told.Control = "http://" + control.Addr
	f.standby = balancer.Node{Name: "standby", Address: standby.Addr, Backup: true}

	var names []string
	for i := range cfg.nodes {
		names = append(names, fmt.Sprintf("node%d", i+1))
	}
	f.add(names...)
	serving := make(chan error, 1)
	defer func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), fleetGrace)
		defer cancel()
		front.Close() // the nodes finish what they have
		err = errors.Join(err, f.shutdown(grace))
		parting, cancel := context.WithTimeout(context.WithoutCancel(ctx), partingGrace)
		defer cancel()
		_ = b.Shutdown(parting) // whoever has not left by then is cut off
		err = errors.Join(err, <-serving)
	}()
	go func() { serving <- b.Serve(context.WithoutCancel(ctx), front) }()
	addresses, err := f.awaitStart(ctx)
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return nil
	}
	var text strings.Builder
	fmt.Fprintf(&text, "front http://%s\n", front.Addr())
	for i, address := range addresses {
		fmt.Fprintf(&text, "%s http://%s\n", names[i], address)
	}
	fmt.Fprintf(&text, "Sessions are %s. Press Ctrl-C to stop.\n", place)
	fmt.Fprint(out, text.String())
	<-ctx.Done()
	return nil
}

// serveLocal serves a handler on a free port of this machine. The server's Addr
// says where; the caller closes it.
func serveLocal(handler http.Handler) (*http.Server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	server := &http.Server{Addr: listener.Addr().String(), Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(listener) }() // until it is closed
	return server, nil
}

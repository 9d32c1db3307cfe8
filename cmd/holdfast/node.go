package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/holdfast-sessions/holdfast/idmanager"
	"github.com/holdfast-sessions/holdfast/internal/shop"
	"github.com/holdfast-sessions/holdfast/sessionstore"
)

const (
	// requestGrace is how long requests in flight may take at the end: more than
	// the longest ?delay and the statements around it.
	requestGrace = 25 * time.Second
	// liveGrace is how long the first answer about events may take.
	liveGrace = 2 * time.Second
	// writeBackGrace is how long writing back what is pending may take.
	writeBackGrace = 15 * time.Second
)

// A nodeConfig says what kind of node to run.
type nodeConfig struct {
	name            string
	insecureCookies bool
	logger          *slog.Logger
	outage          sessionstore.OutagePolicy
	// drain is how long the node goes on serving after it was told to stop, so that
	// balancers see it in time.
	drain time.Duration
	// hurry, once closed, cuts the draining short, since nobody will come any more.
	hurry <-chan struct{}
	// cluster is what the shop's visitors may stop and start, nil for nothing.
	cluster       shop.Cluster
	freshness     sessionstore.Freshness
	sweepInterval time.Duration // 0 means the library's default
	ends          io.Writer     // gets a line for each session that this node ends; nil for none
}

// listeners are those that the configuration asks for.
func (cfg nodeConfig) listeners() []sessionstore.Listener {
	if cfg.ends == nil {
		return nil
	}
	return []sessionstore.Listener{{Destroyed: func(_ context.Context, ev sessionstore.SessionEvent) {
		// One write, so that the lines of concurrent requests do not mix.
		fmt.Fprintf(cfg.ends, "ended %s %s %s\n", ev.Info.Key.ID, ev.Info.Key.App, ev.Cause)
	}}}
}

// A node is one process of the shop.
type node struct {
	ids    *idmanager.Manager
	site   *shop.Site
	server *http.Server
	drain  time.Duration
	hurry  <-chan struct{}
}

// newNode puts a node together. It starts nothing.
func newNode(cfg nodeConfig, db *database) (*node, error) {
	ids, err := idmanager.New(db.backend, &idmanager.Config{Node: cfg.name, SweepInterval: cfg.sweepInterval, Logger: cfg.logger})
	if err != nil {
		return nil, err
	}
	site, err := shop.New(ids, &shop.Config{
		Statements: db.backend.Statements, InsecureCookie: cfg.insecureCookies, Outage: cfg.outage,
		Cluster: cfg.cluster, Freshness: cfg.freshness, Listeners: cfg.listeners(), Logger: cfg.logger,
	})
	if err != nil {
		return nil, err
	}
	return &node{ids: ids, site: site, drain: cfg.drain, hurry: cfg.hurry, server: &http.Server{
		Handler:           parting(ids, site),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      60 * time.Second, // counts the longest ?delay and the database's timeouts
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(cfg.logger.Handler(), slog.LevelWarn),
	}}, nil
}

// parting asks clients of a node that drains to come back on another connection,
// which a balancer then leads elsewhere. It asks response by response, because
// SetKeepAlivesEnabled would close connections that are idle, on one of which a
// request may be on its way.
func parting(ids *idmanager.Manager, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ids.Draining() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// serve answers requests on the listener, which it closes, until ctx ends or the
// node's name turns out to be another's. Then it drains, lets requests in flight
// finish, writes back what is pending (P14), and says on out what that was.
func (n *node) serve(ctx context.Context, listener net.Listener, out io.Writer) error {
	background := context.WithoutCancel(ctx)
	stopping, stop := context.WithCancel(ctx)
	defer stop()
	serving, running := make(chan error, 1), make(chan error, 1)
	go func() {
		defer stop()
		running <- n.ids.Run(background)
	}()
	n.awaitLive(stopping)
	go func() { serving <- n.server.Serve(listener) }()

	var errs []error
	select {
	case <-stopping.Done():
		errs = append(errs, n.part(background, serving))
	case err := <-serving:
		errs = append(errs, fmt.Errorf("serve: %w", err))
	}

	before := n.site.Touched()
	grace, cancel := context.WithTimeout(background, writeBackGrace)
	defer cancel()
	if err := n.ids.Shutdown(grace); err != nil {
		errs = append(errs, fmt.Errorf("not everything was written back: %w", err))
	}
	if err := <-running; !errors.Is(err, sessionstore.ErrClosed) { // unless Shutdown came before Run had begun
		errs = append(errs, err)
	}
	written := n.site.Touched() - before
	fmt.Fprintf(out, "Stopped. Written back: %d access %s.\n", written, cmp.Or(map[int64]string{1: "time"}[written], "times"))
	return errors.Join(errs...)
}

// part drains, so that balancers and clients go elsewhere while the listener is still
// open to those that have not noticed yet, and then lets requests in flight finish.
// serving gives the outcome of the server's Serve.
func (n *node) part(ctx context.Context, serving <-chan error) error {
	n.ids.Drain()
	drained := time.NewTimer(n.drain)
	defer drained.Stop()
	select {
	case <-drained.C:
	case <-n.hurry:
	case err := <-serving:
		return fmt.Errorf("serve: %w", err)
	}
	grace, cancel := context.WithTimeout(ctx, requestGrace)
	defer cancel()
	err := n.server.Shutdown(grace)
	if err != nil {
		err = errors.Join(fmt.Errorf("requests were still running after %v: %w", requestGrace, err), n.server.Close())
	}
	<-serving
	return err
}

// awaitLive waits until cached copies may answer, so that the first visitors do not
// ask the database in vain; not for long, because it would be right all the same.
func (n *node) awaitLive(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, liveGrace)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !n.ids.Live() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// listenOn is net.Listen with errors that say what to do.
func listenOn(ctx context.Context, address string) (net.Listener, error) {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s is taken by another program; choose another address with --listen, 127.0.0.1:0 for any free port", address)
	}
	if err != nil {
		err = fmt.Errorf("--listen %s: %w", address, err)
	}
	if _, ok := errors.AsType[*net.AddrError](err); ok { // no address at all
		return nil, usageError{err}
	}
	return listener, err
}

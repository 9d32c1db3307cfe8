package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// A contestant is a shop that keeps its sessions in its own way.
type contestant struct {
	name    string
	handler http.Handler
}

const scsIdle = 20 * time.Minute

func contestantBare() contestant { return contestant{"bare handler", http.HandlerFunc(bare)} }

func (d *database) contestantHoldfast(ctx context.Context, cfg *sessionstore.Config) (contestant, error) {
	n, err := d.node(ctx, nil, cfg, holdfastShop)
	if err != nil {
		return contestant{}, err
	}
	name := "holdfast"
	if cfg != nil && cfg.Freshness == sessionstore.Strict {
		name += " (Strict)"
	}
	return contestant{name, n.handler}, nil
}

func (d *database) contestantSCS(ctx context.Context, idle time.Duration) (contestant, error) {
	h, err := d.scs(ctx, idle)
	name := "scs/pgxstore"
	if d.kind == onMySQL {
		name = "scs/mysqlstore"
	}
	if idle > 0 {
		name += " + IdleTimeout"
	}
	return contestant{name, h}, err
}

func (d *database) contestantHandWritten(ctx context.Context) (contestant, error) {
	h, err := d.handWritten(ctx)
	return contestant{"hand-written UPDATE", h}, err
}

// entrants returns the contestants of a database that save to it.
func (d *database) entrants(ctx context.Context) ([]contestant, error) {
	var all []contestant
	add := func(c contestant, err error) error {
		all = append(all, c)
		if err != nil {
			return fmt.Errorf("%s on %s: %w", c.name, d.kind, err)
		}
		return nil
	}
	if err := add(d.contestantHoldfast(ctx, nil)); err != nil {
		return nil, err
	}
	if err := add(d.contestantHandWritten(ctx)); err != nil {
		return nil, err
	}
	if err := add(d.contestantSCS(ctx, 0)); err != nil {
		return nil, err
	}
	if d.kind == onPostgres {
		if err := add(d.contestantSCS(ctx, scsIdle)); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// inProcess returns clients that have a session each.
func (c contestant) inProcess(n int) ([]client, error) {
	clients := make([]client, n)
	for i := range clients {
		clients[i] = newInProcess(c.handler)
		if err := clients[i].do(pathStart); err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return clients, nil
}

// overTCP serves the contestant on loopback and returns clients that have a
// connection and a session each, and what ends it all.
func (c contestant) overTCP(n int) (clients []client, stop func(), err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	server := &http.Server{Handler: c.handler}
	go server.Serve(listener)
	for range n {
		client, err := newOverTCP(listener.Addr().String())
		if err == nil {
			err = client.do(pathStart)
		}
		if err != nil {
			server.Close()
			return nil, nil, fmt.Errorf("%s: %w", c.name, err)
		}
		clients = append(clients, client)
	}
	return clients, func() { server.Close() }, nil
}

// against makes a contest of requesting path.
func (c contestant) against(clients []client, path string) contest {
	return contest{c.name, func(d time.Duration) (*sample, error) {
		s, err := drive(clients, path, d)
		if err == nil {
			err = wantSessions(clients)
		}
		return s, err
	}}
}

// wantSessions returns an error if a client's last page was not that of its session: an
// empty one is quicker.
func wantSessions(clients []client) error {
	user := newContent().User
	for _, c := range clients {
		if !strings.HasPrefix(string(c.body()), user+" ") {
			return fmt.Errorf("a client has lost its session and reads %q", c.body())
		}
	}
	return nil
}

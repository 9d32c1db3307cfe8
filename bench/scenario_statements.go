package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/holdfast-sessions/holdfast/idmanager"
)

// countStatements lets the databases count what requests cost them.
func (b *bench) countStatements(ctx context.Context) ([]*section, error) {
	var sections []*section
	for _, d := range b.databases {
		s, err := b.countStatementsOn(ctx, d)
		if err != nil {
			return nil, fmt.Errorf("count statements on %s: %w", d.kind, err)
		}
		sections = append(sections, s)
	}
	return sections, nil
}

// statements returns how many statements the database has run that read or change
// rows, this one not counted; on MySQL, where prepared statements have no text to
// be told by, for all databases of the server.
func (d *database) statements(ctx context.Context) (float64, error) {
	if d.kind == onMySQL {
		n, err := d.number(ctx, `
SELECT SUM(COUNT_STAR) FROM performance_schema.events_statements_summary_global_by_event_name
WHERE EVENT_NAME = 'statement/com/Execute' OR EVENT_NAME RLIKE '^statement/sql/(select|insert|update|delete|replace)'`)
		d.asked++
		return n - d.asked, err
	}
	return d.number(ctx, `
SELECT coalesce(sum(calls), 0) FROM pg_stat_statements
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND query LIKE $1`, "%holdfast\\_sessions%")
}

// unhurried is a node that hardly ever polls, so that only requests cause statements.
var unhurried = idmanager.Config{
	PollInterval: 10 * time.Minute, FeedTimeout: 30 * time.Minute, EventRetention: 4 * time.Hour, SweepInterval: -1, HeartbeatInterval: -1,
}

func (b *bench) countStatementsOn(ctx context.Context, d *database) (*section, error) {
	if d.kind == onPostgres {
		if _, err := d.raw.ExecContext(ctx, "CREATE EXTENSION IF NOT EXISTS pg_stat_statements"); err != nil {
			return nil, err
		}
	}
	step("statements, %s", d.kind)
	n, err := d.node(ctx, &unhurried, nil, holdfastShop)
	if err != nil {
		return nil, err
	}
	other, err := d.node(ctx, &unhurried, nil, holdfastShop)
	if err != nil {
		return nil, err
	}
	shop := contestant{"holdfast", n.handler}
	clients, err := shop.inProcess(64)
	if err != nil {
		return nil, err
	}
	s := &section{
		title:   "Statements per request, counted by " + d.kind,
		text:    "Statements that read or change rows, by the server's own count. Polling of events is not among them: time causes it, and no request.",
		columns: []string{"", "requests", "statements", "per request"},
	}
	per := make(map[string]float64)
	count := func(what string, requests int, run func() error) error {
		before, err := d.statements(ctx)
		if err != nil {
			return err
		}
		saved := n.manager.Stats().Saved
		if err := run(); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		after, err := d.statements(ctx)
		if err != nil {
			return err
		}
		if requests == 0 {
			requests = int(n.manager.Stats().Saved - saved)
		}
		ran := after - before
		per[what] = ran / float64(requests)
		s.rows = append(s.rows, []string{what, number(float64(requests), 0), number(ran, 0), number(per[what], 3)})
		return nil
	}
	times := func(c client, path string) func() error {
		return func() error {
			for range 1000 {
				if err := c.do(path); err != nil {
					return err
				}
			}
			return nil
		}
	}
	malformed := newInProcess(n.handler)
	malformed.set("session=" + "no-token-has-ever-looked-like-this")
	malformed.carry()
	burst := func() error {
		var wg sync.WaitGroup
		errs := make([]error, 1000)
		start := make(chan struct{})
		for i := range errs {
			c := newInProcess(other.handler)
			clients[0].copyTo(c)
			wg.Go(func() { <-start; errs[i] = c.do(pathRead) })
		}
		close(start)
		wg.Wait()
		for _, err := range errs {
			if err != nil {
				return err
			}
		}
		return nil
	}
	for _, c := range []struct {
		what     string
		requests int
		run      func() error
	}{
		{"no cookie", 1000, times(newInProcess(n.handler), pathRead)},
		{"malformed cookie", 1000, times(malformed, pathRead)},
		{"cached read", 1000, times(clients[0], pathRead)},
		{"save, one client", 1000, times(clients[0], pathSave)},
		{"save, 64 clients", 0, func() error { _, err := drive(clients, pathSave, b.slice); return err }},
		{"1,000 reads at once of one session, not cached", 1000, burst},
	} {
		if err := count(c.what, c.requests, c.run); err != nil {
			return nil, err
		}
	}
	s.targets = []target{
		atMost("statements for anonymous requests", per["no cookie"]+per["malformed cookie"], 0).digits(0),
		atMost("statements for cached reads", per["cached read"], 0).digits(0),
		atMost("statements per save by 64 clients", per["save, 64 clients"], 1).digits(3),
		atMost("statements for the burst", 1000*per["1,000 reads at once of one session, not cached"], 1).digits(0),
	}
	return s, nil
}

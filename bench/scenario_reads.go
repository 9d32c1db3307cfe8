package main

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// cachedReads is the cost of reading a session that the process has at hand.
func (b *bench) cachedReads(ctx context.Context) ([]*section, error) {
	dir, err := os.MkdirTemp("", "gorilla")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	all := []contestant{contestantBare()}
	if d := b.on(onPostgres); d != nil {
		for _, enter := range []func() (contestant, error){
			func() (contestant, error) { return d.contestantHoldfast(ctx, nil) },
			func() (contestant, error) { return contestant{"scs/memstore", scsMemory()}, nil },
			func() (contestant, error) { return d.contestantSCS(ctx, 0) },
			func() (contestant, error) { return d.contestantSCS(ctx, scsIdle) },
			func() (contestant, error) { return contestant{"gorilla/FilesystemStore", newGorilla(dir)}, nil },
		} {
			c, err := enter()
			if err != nil {
				return nil, err
			}
			all = append(all, c)
		}
	}
	s := &section{
		title:   "Cached reads, in process",
		text:    "A page that reads two attributes of a session of 1 KB, through the whole middleware, without a network. \"Above bare\" is what the session adds to the handler: time of one client, and allocations.",
		columns: []string{"", "1 client", "64 clients", "above bare", "allocations above bare", "64 clients, reading the cart too"},
	}
	var one, many, carts []contest
	allocations := make([]float64, len(all))
	for i, c := range all {
		clients, err := c.inProcess(64)
		if err != nil {
			return nil, err
		}
		allocations[i] = testing.AllocsPerRun(500, func() {
			if err := clients[0].do(pathRead); err != nil {
				panic(err)
			}
		})
		one = append(one, c.against(clients[:1], pathRead))
		many = append(many, c.against(clients, pathRead))
		carts = append(carts, c.against(clients, pathCart))
	}
	step("cached reads in process")
	at1, err := b.compare(one...)
	if err != nil {
		return nil, err
	}
	at64, err := b.compare(many...)
	if err != nil {
		return nil, err
	}
	cart64, err := b.compare(carts...)
	if err != nil {
		return nil, err
	}
	above := func(name string) time.Duration {
		return time.Duration(1e9/at1.of(name) - 1e9/at1.of("bare handler"))
	}
	for i, c := range all {
		s.rows = append(s.rows, []string{
			c.name, number(at1.of(c.name), 0) + "/s", number(at64.of(c.name), 0) + "/s",
			duration(above(c.name)), number(allocations[i]-allocations[0], 0), number(cart64.of(c.name), 0) + "/s",
		})
	}
	if len(all) > 1 {
		s.targets = []target{
			atMost("µs above the bare handler", float64(above("holdfast"))/1e3, 3).digits(2),
			atMost("allocations above the bare handler", allocations[1]-allocations[0], 12).digits(0),
			atLeast("times scs/memstore at 64 clients", at64.ratio("holdfast", "scs/memstore"), 8),
			atLeast("times scs/pgxstore at 64 clients", at64.ratio("holdfast", "scs/pgxstore"), 20),
		}
	}
	s.charts = []drawing{throughput("Cached reads in process, 64 clients", at64)}
	return []*section{s}, nil
}

// strictReads confirms every request's session with the database.
func (b *bench) strictReads(ctx context.Context) ([]*section, error) {
	d := b.on(onPostgres)
	if d == nil {
		return nil, nil
	}
	strict, err := d.contestantHoldfast(ctx, &sessionstore.Config{Freshness: sessionstore.Strict})
	if err != nil {
		return nil, err
	}
	scs, err := d.contestantSCS(ctx, 0)
	if err != nil {
		return nil, err
	}
	var contests []contest
	for _, c := range []contestant{strict, scs} {
		clients, err := c.inProcess(64)
		if err != nil {
			return nil, err
		}
		contests = append(contests, c.against(clients, pathRead))
	}
	step("strict reads in process")
	rs, err := b.compare(contests...)
	if err != nil {
		return nil, err
	}
	return []*section{{
		title:   "Strict reads, in process, PostgreSQL, 64 clients",
		text:    "Every request asks the database, as scs always does.",
		columns: latencyColumns,
		rows:    latencyRows(rs),
		targets: []target{atLeast("times scs/pgxstore", rs.ratio(strict.name, scs.name), 2)},
		charts:  []drawing{throughput("Strict reads in process, PostgreSQL, 64 clients", rs)},
	}}, nil
}

var latencyColumns = []string{"", "per second", "p50", "p99"}

func latencyRows(rs results) (rows [][]string) {
	for _, r := range rs {
		rows = append(rows, []string{
			r.name, number(r.perSecond(), 0), duration(r.quantile(0.5)), duration(r.quantile(0.99)),
		})
	}
	return rows
}

func clientsOf(n int) string {
	if n == 1 {
		return "1 client"
	}
	return fmt.Sprintf("%d clients", n)
}

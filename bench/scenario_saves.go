package main

import (
	"context"
)

// saves is the cost of changing a session durably, without a network to the client.
func (b *bench) saves(ctx context.Context) ([]*section, error) {
	var sections []*section
	for _, d := range b.databases {
		s, err := b.savesOn(ctx, d)
		if err != nil {
			return nil, err
		}
		sections = append(sections, s)
	}
	return sections, nil
}

func (b *bench) savesOn(ctx context.Context, d *database) (*section, error) {
	all, err := d.entrants(ctx)
	if err != nil {
		return nil, err
	}
	counts := []int{1, 64, 128}
	s := &section{
		title:   "Saves, in process, " + d.kind,
		text:    "Each request increments a counter in a session of 1 KB of its client's own, and is answered when that is on the disk.",
		columns: []string{"", "1 client", "p50", "64 clients", "p50", "p99", "128 clients", "p50", "p99"},
	}
	clients := make([][]client, len(all))
	for i, c := range all {
		if clients[i], err = c.inProcess(counts[len(counts)-1]); err != nil {
			return nil, err
		}
		s.rows = append(s.rows, []string{c.name})
	}
	at := map[int]results{}
	for _, n := range counts {
		var contests []contest
		for i, c := range all {
			contests = append(contests, c.against(clients[i][:n], pathSave))
		}
		step("saves in process, %s, %s", d.kind, clientsOf(n))
		if at[n], err = b.compare(contests...); err != nil {
			return nil, err
		}
		for i, r := range at[n] {
			s.rows[i] = append(s.rows[i], number(r.perSecond(), 0)+"/s", duration(r.quantile(0.5)))
			if n > 1 {
				s.rows[i] = append(s.rows[i], duration(r.quantile(0.99)))
			}
		}
		if n > 1 {
			s.charts = append(s.charts, throughput("Saves in process, "+d.kind+", "+clientsOf(n), at[n]))
		}
	}
	if d.kind == onMySQL {
		s.targets = []target{atLeast("times scs/mysqlstore at 64 clients", at[64].ratio("holdfast", "scs/mysqlstore"), 3)}
		return s, nil
	}
	s.targets = []target{
		atLeast("times scs/pgxstore at 64 clients", at[64].ratio("holdfast", "scs/pgxstore"), 5),
		atLeast("times a hand-written UPDATE at 128 clients", at[128].ratio("holdfast", "hand-written UPDATE"), 3),
		atMost("times its latency at 1 client", at[1].ratio("hand-written UPDATE", "holdfast"), 1.2).digits(2),
	}
	return s, nil
}

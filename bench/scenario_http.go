package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
)

// httpClients is how many keep-alive connections the HTTP scenarios have.
const httpClients = 128

// overHTTP is what clients see.
func (b *bench) overHTTP(ctx context.Context) ([]*section, error) {
	var sections []*section
	if d := b.on(onPostgres); d != nil {
		s, err := b.readsOverHTTP(ctx, d)
		if err != nil {
			return nil, err
		}
		sections = append(sections, s)
	}
	for _, d := range b.databases {
		s, err := b.savesOverHTTP(ctx, d)
		if err != nil {
			return nil, err
		}
		sections = append(sections, s)
	}
	return sections, nil
}

func (b *bench) readsOverHTTP(ctx context.Context, d *database) (*section, error) {
	dir, err := os.MkdirTemp("", "gorilla")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	entrants, err := d.entrants(ctx)
	if err != nil {
		return nil, err
	}
	for i := range entrants {
		if entrants[i].name == "hand-written UPDATE" {
			entrants[i].name = "hand-written map"
		}
	}
	const sent = "bare handler, sent the same cookies"
	all := append([]contestant{contestantBare(), {sent, http.HandlerFunc(bareWithCookies)}}, entrants...)
	all = append(all, contestant{"scs/memstore", scsMemory()}, contestant{"gorilla/FilesystemStore", newGorilla(dir)})
	step("cached reads over HTTP")
	rs, err := b.compareOverTCP(all, pathRead)
	if err != nil {
		return nil, err
	}
	return &section{
		title:   fmt.Sprintf("Reads over HTTP, PostgreSQL, %d keep-alive clients on loopback", httpClients),
		text:    "The same pages through net/http's server. The hand-written map is one that nothing bounds and no other node can change.",
		columns: latencyColumns,
		rows:    latencyRows(rs),
		targets: []target{
			atLeast("of the bare handler's throughput", rs.ratio("holdfast", "bare handler"), 0.9).digits(2),
			atLeast("of its throughput when it is sent the same cookies", rs.ratio("holdfast", sent), 0.9).digits(2),
		},
		charts: []drawing{throughput(fmt.Sprintf("Reads over HTTP, %d clients", httpClients), rs)},
	}, nil
}

func (b *bench) savesOverHTTP(ctx context.Context, d *database) (*section, error) {
	all, err := d.entrants(ctx)
	if err != nil {
		return nil, err
	}
	step("saves over HTTP, %s", d.kind)
	rs, err := b.compareOverTCP(all, pathSave)
	if err != nil {
		return nil, err
	}
	s := &section{
		title:   fmt.Sprintf("Durable saves over HTTP, %s, %d keep-alive clients on loopback", d.kind, httpClients),
		columns: latencyColumns,
		rows:    latencyRows(rs),
		charts:  []drawing{throughput(fmt.Sprintf("Durable saves over HTTP, %s, %d clients", d.kind, httpClients), rs)},
	}
	if d.kind == onMySQL {
		s.targets = []target{atLeast("times scs/mysqlstore", rs.ratio("holdfast", "scs/mysqlstore"), 4)}
		return s, nil
	}
	s.targets = []target{
		atLeast("times scs/pgxstore", rs.ratio("holdfast", "scs/pgxstore"), 4),
		atLeast("times a hand-written UPDATE with a cache", rs.ratio("holdfast", "hand-written UPDATE"), 3),
	}
	return s, nil
}

func (b *bench) compareOverTCP(all []contestant, path string) (results, error) {
	var contests []contest
	for _, c := range all {
		clients, stop, err := c.overTCP(httpClients)
		if err != nil {
			return nil, err
		}
		defer stop()
		contests = append(contests, c.against(clients, path))
	}
	return b.compare(contests...)
}

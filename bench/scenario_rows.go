package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/holdfast-sessions/holdfast/idmanager"
	"github.com/holdfast-sessions/holdfast/sessionstore"
)

const (
	// fewRows is what a table of many rows is compared with.
	fewRows = 10_000

	// bufferPool is what MySQL gets to hold ten million small sessions in memory, or a
	// million of 1 KB. InnoDB reads past the system's page cache.
	bufferPool = 6 << 30
)

// smallShop gives sessions a few dozen bytes, so that many fit on the disk.
func smallShop(w http.ResponseWriter, r *http.Request) {
	v := holdfastVisit{sessionstore.FromContext(r.Context())}
	if r.URL.Path == pathStart {
		userAttr.Set(v.Session, newContent().User)
	}
	shop(w, strings.TrimPrefix(r.URL.Path, pathStart), v)
}

// manyRows compares a table of very many sessions with one of a few.
func (b *bench) manyRows(ctx context.Context) error {
	if err := b.open(ctx, onPostgres, onMySQL); err != nil {
		return err
	}
	var sections []*section
	for _, d := range b.databases {
		s, err := b.manyRowsOn(ctx, d)
		if err != nil {
			return fmt.Errorf("%s: %w", d.kind, err)
		}
		sections = append(sections, s)
	}
	return b.report(b.named("rows"), "Many sessions", sections)
}

func (d *database) growBufferPool(ctx context.Context) error {
	_, err := d.raw.ExecContext(ctx, fmt.Sprintf("SET GLOBAL innodb_buffer_pool_size = %d", bufferPool))
	return err
}

// A rowCost is what loads and saves cost beside so many rows.
type rowCost struct {
	rows        int
	load, save  *result
	table, keys float64 // bytes
}

func (b *bench) manyRowsOn(ctx context.Context, d *database) (*section, error) {
	// The cache is off for loads; saves go to sessions that were just loaded.
	cold, err := d.node(ctx, &idmanager.Config{SweepInterval: -1}, &sessionstore.Config{CacheBytes: -1}, smallShop)
	if err != nil {
		return nil, err
	}
	if d.kind == onMySQL {
		if err := d.growBufferPool(ctx); err != nil {
			return nil, err
		}
	}
	shop := contestant{"holdfast", cold.handler}
	crowd, err := newCrowd(d, shop)
	if err != nil {
		return nil, err
	}
	var costs []*rowCost
	have := 0
	for _, rows := range []int{fewRows, b.records} {
		step("%d sessions in %s", rows, d.kind)
		if err := crowd.add(ctx, have+1, rows, past{}); err != nil {
			return nil, err
		}
		have = rows
		if err := crowd.settle(ctx); err != nil {
			return nil, err
		}
		cost, err := b.costBeside(ctx, d, crowd, shop, rows)
		if err != nil {
			return nil, err
		}
		costs = append(costs, cost)
	}
	s := &section{
		title: fmt.Sprintf("%s sessions beside %s, %s", number(float64(b.records), 0), number(fewRows, 0), d.kind),
		text: "Cold loads and saves of sessions chosen at random among all, by 8 clients, in process, nothing cached by the node. " +
			"Sessions are small (about 100 bytes of attributes), so that the disk holds them.",
		columns: []string{"sessions", "loads/s", "p50", "p99", "saves/s (each after a load)", "p50", "p99", "table", "indexes"},
	}
	for _, c := range costs {
		s.rows = append(s.rows, []string{
			number(float64(c.rows), 0),
			number(c.load.perSecond(), 0), duration(c.load.quantile(0.5)), duration(c.load.quantile(0.99)),
			number(c.save.perSecond(), 0), duration(c.save.quantile(0.5)), duration(c.save.quantile(0.99)),
			number(c.table/(1<<20), 0) + " MiB", number(c.keys/(1<<20), 0) + " MiB",
		})
	}
	few, many := costs[0], costs[1]
	s.targets = []target{
		atMost("times the cost of a load", few.load.perSecond()/many.load.perSecond(), 1.5).digits(2),
		atMost("times the cost of a save", few.save.perSecond()/many.save.perSecond(), 1.5).digits(2),
	}
	return s, nil
}

func (b *bench) costBeside(ctx context.Context, d *database, crowd *crowd, shop contestant, rows int) (*rowCost, error) {
	const workers = 8
	clients := make([]*inProcess, workers)
	for i := range clients {
		clients[i] = newInProcess(shop.handler)
	}
	if _, err := crowd.member(shop, rows); err != nil {
		return nil, err
	}
	visit := func(path string) contest {
		return contest{path, func(d time.Duration) (*sample, error) {
			return driveFunc(workers, d, func(i int) error {
				if err := crowd.join(clients[i], 1+rand.N(rows)); err != nil {
					return err
				}
				return clients[i].do(path)
			})
		}}
	}
	rs, err := b.compare(visit(pathRead), visit(pathSave))
	if err != nil {
		return nil, err
	}
	c := &rowCost{rows: rows, load: rs[0], save: rs[1]}
	table, keys := "SELECT pg_table_size('holdfast_sessions')", "SELECT pg_indexes_size('holdfast_sessions')"
	if d.kind == onMySQL {
		const of = " FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'holdfast_sessions'"
		table, keys = "SELECT DATA_LENGTH"+of, "SELECT INDEX_LENGTH"+of
	}
	if c.table, err = d.number(ctx, table); err != nil {
		return nil, err
	}
	c.keys, err = d.number(ctx, keys)
	return c, err
}

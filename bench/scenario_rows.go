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

// A crowded is a table with so many sessions, and what loads and saves cost there.
type crowded struct {
	rows        int
	d           *database
	crowd       *crowd
	clients     []*inProcess
	load, save  *result
	table, keys float64 // bytes
}

func (b *bench) manyRowsOn(ctx context.Context, d *database) (*section, error) {
	if d.kind == onMySQL {
		if err := d.growBufferPool(ctx); err != nil {
			return nil, err
		}
	}
	small, err := d.beside(ctx, "few")
	if err != nil {
		return nil, err
	}
	few, many := &crowded{rows: fewRows, d: small}, &crowded{rows: b.records, d: d}
	for _, c := range []*crowded{few, many} {
		if err := c.fill(ctx); err != nil {
			return nil, err
		}
	}
	if err := b.compareRows(few, many); err != nil {
		return nil, err
	}
	s := &section{
		title: fmt.Sprintf("%s sessions beside %s, %s", number(float64(b.records), 0), number(fewRows, 0), d.kind),
		text: "Cold loads and saves of sessions chosen at random among all, by 8 clients, in process, nothing cached by the node. " +
			"Sessions are small (some 40 bytes of attributes), so that the disk holds them. The two tables are in two databases of one server.",
		columns: []string{"sessions", "loads/s", "p50", "p99", "saves/s (each after a load)", "p50", "p99", "table", "indexes"},
	}
	for _, c := range []*crowded{few, many} {
		if err := c.measure(ctx); err != nil {
			return nil, err
		}
		s.rows = append(s.rows, []string{
			number(float64(c.rows), 0),
			number(c.load.perSecond(), 0), duration(c.load.quantile(0.5)), duration(c.load.quantile(0.99)),
			number(c.save.perSecond(), 0), duration(c.save.quantile(0.5)), duration(c.save.quantile(0.99)),
			number(c.table/(1<<20), 0) + " MiB", number(c.keys/(1<<20), 0) + " MiB",
		})
	}
	loads, saves := results{few.load, many.load}, results{few.save, many.save}
	s.targets = []target{
		atMost("times the cost of a load", loads.ratio(few.load.name, many.load.name), 1.5).digits(2),
		atMost("times the cost of a save", saves.ratio(few.save.name, many.save.name), 1.5).digits(2),
	}
	return s, nil
}

// fill inserts the rows, and makes clients of the table.
func (c *crowded) fill(ctx context.Context) error {
	step("%d sessions in %s", c.rows, c.d.kind)
	// The cache is off for loads; saves go to sessions that were just loaded.
	cold, err := c.d.node(ctx, &idmanager.Config{SweepInterval: -1}, &sessionstore.Config{CacheBytes: -1}, smallShop)
	if err != nil {
		return err
	}
	shop := contestant{"holdfast", cold.handler}
	if c.crowd, err = newCrowd(c.d, shop); err != nil {
		return err
	}
	if err := c.crowd.add(ctx, 1, c.rows, past{}); err != nil {
		return err
	}
	if err := c.crowd.settle(ctx); err != nil {
		return err
	}
	if _, err := c.crowd.member(shop, c.rows); err != nil {
		return err
	}
	const workers = 8
	for range workers {
		c.clients = append(c.clients, newInProcess(shop.handler))
	}
	return nil
}

// compareRows has loads and saves in both tables take turns.
func (b *bench) compareRows(few, many *crowded) error {
	step("loads and saves")
	rs, err := b.compare(few.visit(pathRead), many.visit(pathRead), few.visit(pathSave), many.visit(pathSave))
	if err != nil {
		return err
	}
	few.load, many.load, few.save, many.save = rs[0], rs[1], rs[2], rs[3]
	return nil
}

// visit has the clients request a page with sessions that they have not used before.
func (c *crowded) visit(path string) contest {
	return contest{fmt.Sprintf("%s of %d", path, c.rows), func(d time.Duration) (*sample, error) {
		return driveFunc(len(c.clients), d, func(i int) error {
			if err := c.crowd.join(c.clients[i], 1+rand.N(c.rows)); err != nil {
				return err
			}
			return c.clients[i].do(path)
		})
	}}
}

// measure finds out how large the table is.
func (c *crowded) measure(ctx context.Context) (err error) {
	table, keys := "SELECT pg_table_size('holdfast_sessions')", "SELECT pg_indexes_size('holdfast_sessions')"
	if c.d.kind == onMySQL {
		const of = " FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'holdfast_sessions'"
		table, keys = "SELECT DATA_LENGTH"+of, "SELECT INDEX_LENGTH"+of
	}
	if c.table, err = c.d.number(ctx, table); err != nil {
		return err
	}
	c.keys, err = c.d.number(ctx, keys)
	return err
}

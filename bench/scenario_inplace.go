package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// inPlaceSessions is among how many sessions the saves and touches are spread.
const inPlaceSessions = 50_000

// inPlace shows that updates leave the indexes alone.
func (b *bench) inPlace(ctx context.Context) error {
	if err := b.open(ctx, onPostgres); err != nil {
		return err
	}
	d := b.on(onPostgres)
	if d == nil {
		return errors.New("inplace is about PostgreSQL")
	}
	hot, err := b.hotUpdates(ctx, d)
	if err != nil {
		return err
	}
	wal, err := b.writeAheadLog(ctx, d)
	if err != nil {
		return err
	}
	return b.report("inplace", "Updates in place", []*section{hot, wal})
}

// indexBytes returns the size of an index.
func (d *database) indexBytes(ctx context.Context, name string) (float64, error) {
	return d.number(ctx, "SELECT pg_relation_size($1::regclass)", name)
}

func (b *bench) hotUpdates(ctx context.Context, d *database) (*section, error) {
	n, err := d.node(ctx, nil, nil, holdfastShop)
	if err != nil {
		return nil, err
	}
	shop := contestant{"holdfast", n.handler}
	step("%d sessions", inPlaceSessions)
	crowd, err := newCrowd(d, shop)
	if err != nil {
		return nil, err
	}
	if err := crowd.add(ctx, 1, inPlaceSessions, past{}); err != nil {
		return nil, err
	}
	if err := crowd.settle(ctx); err != nil {
		return nil, err
	}
	const workers = 64
	members := make([][]*inProcess, workers)
	for row := 1; row <= inPlaceSessions; row++ {
		m, err := crowd.member(shop, row)
		if err != nil {
			return nil, err
		}
		members[row%workers] = append(members[row%workers], m)
	}
	indexes := []string{"holdfast_sessions_pkey", "holdfast_sessions_expiry_idx"}
	before := make([]float64, len(indexes))
	for i, name := range indexes {
		if before[i], err = d.indexBytes(ctx, name); err != nil {
			return nil, err
		}
	}
	if _, err := d.raw.ExecContext(ctx, "SELECT pg_stat_reset()"); err != nil {
		return nil, err
	}
	saves, touches := b.records/2, b.records/2
	step("%d saves and %d touches", saves, touches)
	touching := make(chan error, 1)
	go func() { touching <- touchCrowd(ctx, n, touches) }()
	done := make([]int, workers)
	_, err = driveFunc(workers, time.Hour, func(i int) error {
		if done[i] >= saves/workers {
			return errFinished
		}
		done[i]++
		return members[i][done[i]%len(members[i])].do(pathSave)
	})
	if err != nil && !errors.Is(err, errFinished) {
		return nil, err
	}
	if err := <-touching; err != nil {
		return nil, err
	}
	s := &section{
		title: fmt.Sprintf("%s saves and touches among %s sessions", number(float64(b.records), 0), number(inPlaceSessions, 0)),
		text:  "Half of them saves by 64 clients, half touches in batches of 256, at the same time. A HOT update finds room in the row's own page and tells no index.",
	}
	// The statistics arrive within a second or so.
	var updates, hot float64
	for deadline := time.Now().Add(20 * time.Second); updates < float64(saves)*0.99+float64(touches)*0.5 && time.Now().Before(deadline); time.Sleep(500 * time.Millisecond) {
		const both = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'holdfast_sessions'"
		if err := d.raw.QueryRowContext(ctx, both).Scan(&updates, &hot); err != nil {
			return nil, err
		}
	}
	s.columns = []string{"", "before", "after"}
	s.rows = [][]string{{"updates", "", number(updates, 0)}, {"of them HOT", "", number(hot, 0)}}
	s.targets = []target{atLeast("% of updates are HOT", 100*hot/updates, 95)}
	for i, name := range indexes {
		after, err := d.indexBytes(ctx, name)
		if err != nil {
			return nil, err
		}
		s.rows = append(s.rows, []string{name, number(before[i]/1024, 0) + " KiB", number(after/1024, 0) + " KiB"})
		s.targets = append(s.targets, atMost("% growth of "+name, 100*(after/before[i]-1), 10))
	}
	return s, nil
}

var errFinished = errors.New("finished")

// touchCrowd writes back uses of sessions, in batches that have as little to do
// with their order in the table as those of nodes.
func touchCrowd(ctx context.Context, n *node, touches int) error {
	const batch = 256
	rows := rand.Perm(inPlaceSessions)
	for i := 0; i < touches; i += batch {
		list := make([]sessionstore.Touch, batch)
		for j := range list {
			list[j].Key = sessionstore.Key{ID: crowdID(rows[(i+j)%len(rows)] + 1), App: "shop"}
		}
		if err := n.backend.Touch(ctx, list); err != nil {
			return err
		}
	}
	return nil
}

// writeAheadLog measures what a save writes to the disk.
func (b *bench) writeAheadLog(ctx context.Context, d *database) (*section, error) {
	all, err := d.entrants(ctx)
	if err != nil {
		return nil, err
	}
	s := &section{
		title:   "Write-ahead log per save, PostgreSQL",
		text:    fmt.Sprintf("Sessions of 1 KB, 16 for each client; medians of %d rounds of %v, after a checkpoint and a round that warms up.", b.rounds, b.slice),
		columns: []string{"", "saves", "bytes per save by 64 clients", "by one client"},
	}
	for _, c := range all {
		step("write-ahead log of %s", c.name)
		clients, err := c.inProcess(1024)
		if err != nil {
			return nil, err
		}
		row := []string{c.name}
		for _, workers := range []int{64, 1} {
			saves, bytes, err := b.walPerSave(ctx, d, clients[:16*workers])
			if err != nil {
				return nil, err
			}
			if workers > 1 {
				row = append(row, number(saves, 0))
			}
			row = append(row, number(bytes, 0))
		}
		s.rows = append(s.rows, row)
	}
	return s, nil
}

// walPerSave lets one worker for each 16 clients save, and returns how many saves
// that were in all and how many bytes each added to the log.
func (b *bench) walPerSave(ctx context.Context, d *database, clients []client) (saves, bytes float64, err error) {
	if _, err := d.raw.ExecContext(ctx, "CHECKPOINT"); err != nil {
		return 0, 0, err
	}
	var rounds []float64
	turn := make([]int, len(clients)/16)
	for range b.rounds + 1 {
		const position = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')"
		before, err := d.number(ctx, position)
		if err != nil {
			return 0, 0, err
		}
		sample, err := driveFunc(len(turn), b.slice, func(i int) error {
			turn[i]++
			return clients[i*16+turn[i]%16].do(pathSave)
		})
		if err != nil {
			return 0, 0, err
		}
		after, err := d.number(ctx, position)
		if err != nil {
			return 0, 0, err
		}
		saves += float64(sample.ops)
		rounds = append(rounds, (after-before)/float64(sample.ops))
	}
	return saves, medianOf(rounds[1:]), nil
}

package main

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/holdfast-sessions/holdfast/idmanager"
)

const (
	sweepClients = 16 // save at a steady pace beside the sweep

	// sweepPeriod is in which the expired sessions began.
	sweepPeriod = 24 * time.Hour
)

// sweeps removes a crowd of expired sessions beside live traffic.
func (b *bench) sweeps(ctx context.Context) error {
	if err := b.open(ctx, onPostgres, onMySQL); err != nil {
		return err
	}
	var sections []*section
	for _, d := range b.databases {
		s, err := b.sweepOn(ctx, d)
		if err != nil {
			return fmt.Errorf("sweep %s: %w", d.kind, err)
		}
		sections = append(sections, s)
	}
	return b.report(b.named("sweep"), "Sweeping", sections)
}

// paced lets clients save, each about once in a pace, and measures how long that takes.
// Failures are counted: some may be the sweep's doing.
func paced(clients []client, pace time.Duration, until func() bool) (latency histogram, failed int) {
	var wg sync.WaitGroup
	var mu sync.Mutex // guards latency and failed
	for _, c := range clients {
		wg.Go(func() {
			var h histogram
			bad := 0
			for !until() {
				time.Sleep(pace/2 + rand.N(pace))
				start := time.Now()
				if c.do(pathSave) != nil {
					bad++
					continue
				}
				h.add(time.Since(start))
			}
			mu.Lock()
			defer mu.Unlock()
			latency.merge(&h)
			failed += bad
		})
	}
	wg.Wait()
	return latency, failed
}

func (b *bench) sweepOn(ctx context.Context, d *database) (*section, error) {
	if d.kind == onMySQL {
		// Without them, the default on few processors, a commit now and then waits for
		// 100 ms although its log is on the disk, whoever commits.
		if _, err := d.raw.ExecContext(ctx, "SET GLOBAL innodb_log_writer_threads = ON"); err != nil {
			return nil, err
		}
		if err := d.growBufferPool(ctx); err != nil {
			return nil, err
		}
	}
	n, err := d.node(ctx, &idmanager.Config{SweepInterval: -1}, nil, holdfastShop)
	if err != nil {
		return nil, err
	}
	shop := contestant{"holdfast", n.handler}
	crowd, err := newCrowd(d, shop)
	if err != nil {
		return nil, err
	}
	step("%d expired sessions in %s", b.records, d.kind)
	ended := past{
		older: 2*time.Hour + 40*b.visit, // so that even the longest visit is over
		apart: sweepPeriod / time.Duration(b.records),
		used:  b.visit,
	}
	if err := crowd.add(ctx, 1, b.records, ended); err != nil {
		return nil, err
	}
	if err := crowd.settle(ctx); err != nil {
		return nil, err
	}
	clients, err := shop.inProcess(sweepClients)
	if err != nil {
		return nil, err
	}
	// Before and after the sweep, as what else the machine does may change meanwhile.
	// The better one counts: afterwards PostgreSQL may be vacuuming what was swept.
	quiet := func() (histogram, int) {
		end := time.Now().Add(15 * time.Second)
		return paced(clients, b.pace, func() bool { return time.Now().After(end) })
	}
	step("saves without a sweep")
	before, failedBefore := quiet()

	step("sweep")
	if err := d.forgetStatements(ctx); err != nil {
		return nil, err
	}
	sweeper, err := d.node(ctx, &idmanager.Config{SweepInterval: 10 * time.Millisecond, SweepTime: b.sweepTime}, nil, holdfastShop)
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	swept := make(chan error, 1)
	var took time.Duration
	done := make(chan struct{})
	go func() {
		defer close(done)
		swept <- waitSwept(ctx, sweeper, b.records)
		took = time.Since(begin)
	}()
	during, failedDuring := paced(clients, b.pace, func() bool {
		select {
		case <-done:
			return true
		default:
			return false
		}
	})
	if err := <-swept; err != nil {
		return nil, err
	}
	longest, err := d.longestStatement(ctx)
	if err != nil {
		return nil, err
	}
	step("saves after the sweep")
	after, failedAfter := quiet()

	without := min(before.quantile(0.99), after.quantile(0.99))
	perSecond := float64(b.records) / took.Seconds()
	row := func(name string, h histogram, failed int) []string {
		return []string{name, number(float64(h.n), 0), duration(h.quantile(0.5)), duration(h.quantile(0.99)), duration(h.longest), number(float64(failed), 0)}
	}
	return &section{
		title: fmt.Sprintf("%s expired sessions swept beside live traffic, %s", number(float64(b.records), 0), d.kind),
		text: fmt.Sprintf("The expired sessions began within %v and were used for %v on average. %d clients save, each about every %v. Swept in %.1f s: %s sessions per second, by one node with no listeners, SweepTime %v. Longest statement meanwhile: %s.",
			sweepPeriod, b.visit, sweepClients, b.pace, took.Seconds(), number(perSecond, 0), cmp.Or(b.sweepTime, idmanager.DefaultSweepTime), duration(longest)),
		columns: []string{"", "saves", "p50", "p99", "longest", "failed"},
		rows: [][]string{
			row("without the sweep, before", before, failedBefore),
			row("during the sweep", during, failedDuring),
			row("without the sweep, after", after, failedAfter),
		},
		targets: []target{
			atLeast("sessions swept per second", perSecond, 20_000).digits(0),
			atMost("times the p99 of saves without the sweep", float64(during.quantile(0.99))/float64(without), 2).digits(2),
			atMost("longest statement in seconds", longest.Seconds(), 1).digits(2),
			atMost("failed saves", float64(failedBefore+failedDuring+failedAfter), 0).digits(0),
		},
	}, nil
}

// waitSwept waits until the sweeper has announced that many.
func waitSwept(ctx context.Context, sweeper *node, records int) error {
	for deadline := time.Now().Add(10 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		destroyed := sweeper.manager.Stats().Destroyed
		if destroyed >= int64(records) {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("after 10 minutes, %d of %d are swept", destroyed, records)
		}
	}
}

// forgetStatements lets longestStatement speak only of what runs from now on.
func (d *database) forgetStatements(ctx context.Context) error {
	statements := []string{"CREATE EXTENSION IF NOT EXISTS pg_stat_statements", "SELECT pg_stat_statements_reset()"}
	if d.kind == onMySQL {
		statements = []string{"TRUNCATE performance_schema.events_statements_summary_by_digest"}
	}
	for _, statement := range statements {
		if _, err := d.raw.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// longestStatement returns how long the slowest statement about sessions took.
func (d *database) longestStatement(ctx context.Context) (time.Duration, error) {
	if d.kind == onMySQL {
		ps, err := d.number(ctx, `
SELECT COALESCE(MAX(MAX_TIMER_WAIT), 0) FROM performance_schema.events_statements_summary_by_digest
WHERE SCHEMA_NAME = DATABASE() AND DIGEST_TEXT LIKE '%holdfast\_sessions%'`)
		return time.Duration(ps / 1000), err
	}
	ms, err := d.number(ctx, `
SELECT coalesce(max(max_exec_time), 0) FROM pg_stat_statements
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND query LIKE $1`, "%holdfast\\_sessions%")
	return time.Duration(ms * 1e6), err
}

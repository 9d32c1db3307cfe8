package sqlbackend_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-sessions/holdfast/internal/dbtest"
	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// BenchmarkGroups compares calls that travel in groups with the same calls one by
// one, in interleaved rounds, and reports medians per second and their ratios:
//
//	go test ./sqlbackend -run '^$' -bench Groups -benchtime 1x
func BenchmarkGroups(b *testing.B) {
	for _, name := range []string{"PostgreSQL", "MySQL", "MariaDB", "SQLite"} {
		b.Run(name, func(b *testing.B) {
			db := databases[name](b)
			on := db.open(b).(groupBackend)
			for _, callers := range []int{1, 16, 64, 128} {
				b.Run(fmt.Sprintf("saves/%d", callers), func(b *testing.B) {
					ways := map[string]func(int) func(int) error{
						"grouped": saver(b, on, callers, on.Update),
						"single":  saver(b, on, callers, on.UpdateAlone),
					}
					if db.url != "" {
						ways["byhand"] = saver(b, on, callers, byHand(b, db))
					}
					compare(b, ways, callers)
				})
				b.Run(fmt.Sprintf("loads/%d", callers), func(b *testing.B) {
					compare(b, map[string]func(int) func(int) error{
						"grouped": loader(b, on, callers, on.Load),
						"single":  loader(b, on, callers, on.LoadAlone),
					}, callers)
				})
				b.Run(fmt.Sprintf("creates/%d", callers), func(b *testing.B) {
					compare(b, map[string]func(int) func(int) error{
						"grouped": creator(on.Create), "single": creator(on.CreateAlone),
					}, callers)
				})
			}
		})
	}
}

const (
	benchRounds = 5
	benchRound  = 500 * time.Millisecond
)

// compare runs each way for a while with callers at once, in turns. A way makes a
// caller's function; that is given the number of the call.
func compare(b *testing.B, ways map[string]func(caller int) func(call int) error, callers int) {
	rates := make(map[string][]float64)
	for range b.N {
		for range benchRounds {
			for name, way := range ways {
				rates[name] = append(rates[name], rate(b, way, callers))
			}
		}
	}
	median := func(name string) float64 {
		slices.Sort(rates[name])
		return rates[name][len(rates[name])/2]
	}
	for name := range ways {
		b.ReportMetric(median(name), name+"/s")
	}
	for name := range ways {
		if name != "grouped" {
			b.ReportMetric(median("grouped")/median(name), "times-"+name)
		}
	}
	b.ReportMetric(0, "ns/op")
}

func rate(b *testing.B, way func(int) func(int) error, callers int) float64 {
	var calls atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for i := range callers {
		do := way(i)
		wg.Go(func() {
			for n := 0; time.Since(start) < benchRound; n++ {
				if err := do(n); err != nil {
					b.Error(err)
					return
				}
				calls.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(calls.Load()) / time.Since(start).Seconds()
}

// saver makes callers that each save a session of their own again and again.
func saver(b *testing.B, on backend, callers int, update func(context.Context, *sessionstore.Record, sessionstore.Condition) error) func(int) func(int) error {
	records := make([]*sessionstore.Record, callers)
	for i := range records {
		records[i] = newRecord(newID(), "shop", "")
		create(b, on, records[i], sessionstore.Condition{})
		records[i].Version = 1
	}
	return func(i int) func(int) error {
		rec := records[i]
		return func(int) error {
			err := update(context.Background(), rec, sessionstore.Condition{Version: rec.Version, SecretHash: rec.SecretHash})
			rec.Version++
			return err
		}
	}
}

// byHand is the least that a conditional save can be.
func byHand(b *testing.B, db database) func(context.Context, *sessionstore.Record, sessionstore.Condition) error {
	pool := dbtest.Pool(b, db.url)
	return func(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) error {
		tag, err := pool.Exec(ctx, `UPDATE holdfast_sessions SET version = version + 1, data = $1
			WHERE id = $2 AND app = $3 AND version = $4 AND secret_hash = $5`,
			rec.Data, rec.Key.ID.String(), rec.Key.App, int64(cond.Version), rec.SecretHash[:])
		if err == nil && tag.RowsAffected() != 1 {
			err = sessionstore.ErrConflict
		}
		return err
	}
}

// loader makes callers that each ask for a session of their own that was not modified,
// as in Strict freshness.
func loader(b *testing.B, on backend, callers int, load func(context.Context, sessionstore.Key, sessionstore.Version) (*sessionstore.Record, error)) func(int) func(int) error {
	records := make([]*sessionstore.Record, callers)
	for i := range records {
		records[i] = newRecord(newID(), "shop", "")
		create(b, on, records[i], sessionstore.Condition{})
	}
	return func(i int) func(int) error {
		return func(int) error {
			if found, err := load(context.Background(), records[i].Key, 1); found == nil {
				return err
			}
			return nil
		}
	}
}

// creator makes callers that each create sessions.
func creator(create func(context.Context, *sessionstore.Record, sessionstore.Condition) (time.Time, error)) func(int) func(int) error {
	return func(int) func(int) error {
		return func(int) error {
			_, err := create(context.Background(), newRecord(newID(), "shop", ""), sessionstore.Condition{})
			return err
		}
	}
}

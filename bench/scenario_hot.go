package main

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// hotClients is how many connections change one session at once.
const hotClients = 32

// savedShop is the shop for clients that want to know what they have stored: it
// answers after the commit, with the number that is this increment's own.
func savedShop(w http.ResponseWriter, r *http.Request) {
	s := sessionstore.FromContext(r.Context())
	if r.URL.Path == pathSave {
		holdfastVisit{s}.increment()
		if err := s.Save(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		v := holdfastVisit{s}
		answer(w, v.user(), v.count(), 0)
		return
	}
	shop(w, r.URL.Path, holdfastVisit{s})
}

// hotSession has many clients increment one counter.
func (b *bench) hotSession(ctx context.Context) ([]*section, error) {
	d := b.on(onPostgres)
	if d == nil {
		return nil, nil
	}
	var contests []contest
	reports := make(map[string]*counterReport)
	for _, c := range []struct {
		name  string
		nodes int
		enter func() (contestant, error)
	}{
		{"holdfast, one node", 1, func() (contestant, error) { return d.contestantSaved(ctx) }},
		{"holdfast, two nodes", 2, func() (contestant, error) { return d.contestantSaved(ctx) }},
		{"hand-written compare-and-set", 1, func() (contestant, error) { return d.contestantHandWritten(ctx) }},
		{"scs/pgxstore", 1, func() (contestant, error) { return d.contestantSCS(ctx, 0) }},
	} {
		var clients []client
		for range c.nodes {
			entrant, err := c.enter()
			if err != nil {
				return nil, err
			}
			some, stop, err := entrant.overTCP(hotClients / c.nodes)
			if err != nil {
				return nil, err
			}
			defer stop()
			clients = append(clients, some...)
		}
		for _, other := range clients[1:] {
			clients[0].copyTo(other)
		}
		report := &counterReport{}
		reports[c.name] = report
		contests = append(contests, contest{c.name, func(d time.Duration) (*sample, error) { return report.increment(clients, d) }})
	}
	step("one hot session")
	rs, err := b.compare(contests...)
	if err != nil {
		return nil, err
	}
	s := &section{
		title: fmt.Sprintf("One hot session over HTTP, PostgreSQL, %d clients", hotClients),
		text: "All clients increment one counter of one session; every sixteenth request only reads it. \"Lost\" are increments that were acknowledged and are not in the counter; " +
			"\"older than told\" are answers below what the same client had been told before. The two nodes are two ID managers with pools of their own in one process, half of the clients on each.",
		columns: append(latencyColumns, "increments", "lost", "older than told"),
		rows:    latencyRows(rs),
		charts:  []drawing{throughput("Increments of one session over HTTP, 32 clients", rs)},
	}
	for i, r := range rs {
		report := reports[r.name]
		s.rows[i] = append(s.rows[i], number(float64(report.acknowledged.Load()), 0), number(float64(report.lost), 0), number(float64(report.older.Load()), 0))
	}
	ours := []*counterReport{reports["holdfast, one node"], reports["holdfast, two nodes"]}
	s.targets = []target{
		atLeast("increments per second on one node", rs.of("holdfast, one node"), 10_000).digits(0),
		atLeast("increments per second on two nodes", rs.of("holdfast, two nodes"), 2_000).digits(0),
		atMost("increments lost", float64(ours[0].lost+ours[1].lost), 0).digits(0),
		atMost("answers older than told", float64(ours[0].older.Load()+ours[1].older.Load()), 0).digits(0),
	}
	return []*section{s}, nil
}

func (d *database) contestantSaved(ctx context.Context) (contestant, error) {
	n, err := d.node(ctx, nil, nil, savedShop)
	if err != nil {
		return contestant{}, err
	}
	return contestant{"holdfast", n.handler}, nil
}

// A counterReport is what became of a counter.
type counterReport struct {
	acknowledged, older atomic.Int64
	lost                int64
}

func counterOf(c client) (int64, error) {
	fields := strings.Fields(string(c.body()))
	if len(fields) != 3 {
		return 0, fmt.Errorf("unexpected answer %q", c.body())
	}
	return strconv.ParseInt(fields[1], 10, 64)
}

// highest returns the newest counter that any client reads.
func highest(clients []client) (n int64, err error) {
	for _, c := range clients {
		if err := c.do(pathRead); err != nil {
			return 0, err
		}
		read, err := counterOf(c)
		if err != nil {
			return 0, err
		}
		n = max(n, read)
	}
	return n, nil
}

// increment lets all clients increment the counter for a while, and counts what
// is in it before and after.
func (r *counterReport) increment(clients []client, d time.Duration) (*sample, error) {
	before, err := highest(clients)
	if err != nil {
		return nil, err
	}
	var (
		wg      sync.WaitGroup
		mu      sync.Mutex // guards s and failed
		s       = new(sample)
		failed  error
		begin   = time.Now()
		already = r.acknowledged.Load()
	)
	for _, c := range clients {
		wg.Go(func() {
			var h histogram
			err := r.incrementFor(c, begin.Add(d), &h)
			mu.Lock()
			defer mu.Unlock()
			s.latency.merge(&h)
			failed = cmp.Or(failed, err)
		})
	}
	wg.Wait()
	s.ops, s.elapsed = s.latency.n, time.Since(begin)
	if failed != nil {
		return nil, failed
	}
	after, err := highest(clients)
	r.lost += r.acknowledged.Load() - already - (after - before)
	return s, err
}

func (r *counterReport) incrementFor(c client, end time.Time, h *histogram) error {
	told := int64(0)
	for i := 1; ; i++ {
		start := time.Now()
		if start.After(end) {
			return nil
		}
		path := pathSave
		if i%16 == 0 {
			path = pathRead
		}
		if err := c.do(path); err != nil {
			return err
		}
		n, err := counterOf(c)
		if err != nil {
			return err
		}
		if n < told || path == pathSave && n == told {
			r.older.Add(1)
		}
		told = n
		if path == pathSave {
			r.acknowledged.Add(1)
			h.add(time.Since(start))
		}
	}
}

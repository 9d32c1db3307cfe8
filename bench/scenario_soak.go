package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"runtime"
	"runtime/metrics"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-sessions/holdfast/idmanager"
	"github.com/holdfast-sessions/holdfast/sessionstore"
)

const (
	soakNodes   = 3
	soakClients = 12
	soakSamples = 120
)

const (
	pathLogin  = "/login"
	pathLogout = "/logout"
)

func soakShop(w http.ResponseWriter, r *http.Request) {
	s := sessionstore.FromContext(r.Context())
	v := holdfastVisit{s}
	if changes := r.URL.Path == pathLogin || r.URL.Path == pathSave; changes && v.user() == "" {
		v.start(newContent()) // its session has expired: the next one is to be as large
	}
	switch r.URL.Path {
	case pathLogin:
		s.SetPrincipal(fmt.Sprintf("user-%d", rand.N(1000)))
	case pathLogout:
		s.Invalidate()
	}
	shop(w, r.URL.Path, v)
}

// soak compresses an hour: timeouts are short, so that sessions come and go.
func (b *bench) soak(ctx context.Context) error {
	if err := b.open(ctx, onPostgres); err != nil {
		return err
	}
	d := b.on(onPostgres)
	if d == nil {
		return errors.New("soak runs on PostgreSQL")
	}
	const idle = time.Minute
	nodes := make([]contestant, soakNodes)
	managers := make([]*sessionstore.Manager, soakNodes)
	for i := range nodes {
		n, err := d.node(ctx, &idmanager.Config{SweepInterval: 5 * time.Second, EventRetention: time.Minute},
			&sessionstore.Config{IdleTimeout: idle, Lifetime: time.Hour}, soakShop)
		if err != nil {
			return err
		}
		nodes[i], managers[i] = contestant{fmt.Sprintf("node %d", i+1), n.handler}, n.manager
	}
	w := &soaking{nodes: nodes, jars: make([]atomic.Pointer[jar], b.records), busy: new(jar)}
	step("%d sessions begin", b.records)
	w.begin()
	step("soak for %v", b.duration)
	ctx, cancel := context.WithTimeout(ctx, b.duration)
	defer cancel()
	var wg sync.WaitGroup
	for range soakClients {
		wg.Go(func() { w.visit(ctx) })
	}
	series, err := w.watch(ctx, d, managers, b.duration/soakSamples)
	cancel()
	wg.Wait()
	if err != nil {
		return err
	}
	failed, kinds := w.failed.summary()
	s := &section{
		title: fmt.Sprintf("%v of mixed traffic on %d nodes, PostgreSQL", b.duration, soakNodes),
		text: fmt.Sprintf("%d clients visit %s browsers at random, each request on a random node: 80 %% read, 15 %% save, 3 %% log in, 2 %% log out. "+
			"Each browser has begun a session before the time begins. The idle timeout is %v, so most sessions expire and are swept; "+
			"the first quarter is warm-up. The nodes share a process. "+
			"%s requests, %s of them answered with an error%s.",
			soakClients, number(float64(b.records), 0), idle, number(float64(w.requests.Load()), 0), number(float64(failed), 0), kinds),
		columns: []string{"", "after warm-up", "in the end", "growth"},
	}
	for _, c := range series {
		early, late := plateau(c.points)
		s.rows = append(s.rows, []string{c.title, number(early, 0) + c.unit, number(late, 0) + c.unit, number(100*(late/max(early, 1)-1), 1) + " %"})
		s.charts = append(s.charts, c.curve)
		if c.bounded {
			s.targets = append(s.targets, atMost("% growth of "+c.title, 100*(late/max(early, 1)-1), 10))
		}
	}
	return b.report("soak", "Soak", []*section{s})
}

// plateau returns the medians of the second and of the last quarter.
func plateau(points []float64) (early, late float64) {
	n := len(points)
	return medianOf(append([]float64(nil), points[n/4:n/2]...)), medianOf(append([]float64(nil), points[n*3/4:]...))
}

// soaking is the traffic. A browser is a jar, absent while somebody uses it.
type soaking struct {
	nodes    []contestant
	jars     []atomic.Pointer[jar]
	busy     *jar // stands in for a jar that is in use
	requests atomic.Int64
	failed   failures
}

// failures counts errors by what they say.
type failures struct {
	mu    sync.Mutex // guards count
	count map[string]int
}

func (f *failures) add(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.count == nil {
		f.count = make(map[string]int)
	}
	f.count[strings.TrimSpace(err.Error())]++
}

// summary returns how many there were, and how many of each kind.
func (f *failures) summary() (n int, kinds string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, kind := range slices.Sorted(maps.Keys(f.count)) {
		n += f.count[kind]
		kinds += fmt.Sprintf("; %d × %q", f.count[kind], kind)
	}
	return n, kinds
}

// begin gives each browser a session. What the browsers hold is on the same heap.
func (w *soaking) begin() {
	var wg sync.WaitGroup
	var begun atomic.Int64
	for range soakClients {
		wg.Go(func() {
			clients := w.clients()
			for i := begun.Add(1) - 1; i < int64(len(w.jars)); i = begun.Add(1) - 1 {
				c := clients[rand.N(len(clients))]
				c.jar = jar{}
				c.carry()
				if err := c.do(pathStart); err != nil {
					w.failed.add(err)
				}
				left := c.jar.clone()
				w.jars[i].Store(&left)
			}
		})
	}
	wg.Wait()
}

// clients returns one for each node.
func (w *soaking) clients() []*inProcess {
	clients := make([]*inProcess, len(w.nodes))
	for i, n := range w.nodes {
		clients[i] = newInProcess(n.handler)
	}
	return clients
}

func (w *soaking) visit(ctx context.Context) {
	clients := w.clients()
	for ctx.Err() == nil {
		i := rand.N(len(w.jars))
		j := w.jars[i].Swap(w.busy)
		if j == w.busy { // another client's turn
			continue
		}
		c := clients[rand.N(len(clients))]
		c.jar = *j
		c.carry()
		path := pathRead
		switch p := rand.N(100); {
		case len(j.names) == 0:
			path = pathStart
		case p < 2:
			path = pathLogout
		case p < 5:
			path = pathLogin
		case p < 20:
			path = pathSave
		}
		w.requests.Add(1)
		if err := c.do(path); err != nil {
			w.failed.add(err)
		}
		left := c.jar.clone()
		w.jars[i].Store(&left)
	}
}

// A watched curve is one that must not grow, or one that is only shown.
type watched struct {
	curve
	bounded bool
	now     func() (float64, error)
}

func (w *soaking) watch(ctx context.Context, d *database, managers []*sessionstore.Manager, every time.Duration) ([]*watched, error) {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	query := func(q string) func() (float64, error) {
		return func() (float64, error) { return d.number(context.Background(), q) }
	}
	last, lastAt := int64(0), time.Now()
	series := []*watched{
		{curve: curve{title: "live heap", unit: " MiB"}, bounded: true, now: func() (float64, error) {
			metrics.Read(live)
			return float64(live[0].Value.Uint64()) / (1 << 20), nil
		}},
		{curve: curve{title: "goroutines"}, bounded: true, now: func() (float64, error) { return float64(runtime.NumGoroutine()), nil }},
		{curve: curve{title: "connections"}, bounded: true, now: query("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")},
		{curve: curve{title: "rows in the events table"}, bounded: true, now: query("SELECT count(*) FROM holdfast_events")},
		{curve: curve{title: "rows in the sessions table"}, now: query("SELECT count(*) FROM holdfast_sessions")},
		{curve: curve{title: "size of the sessions table", unit: " MiB"}, now: query("SELECT pg_total_relation_size('holdfast_sessions') / 1048576.0")},
		{curve: curve{title: "sessions cached"}, now: func() (n float64, _ error) {
			for _, m := range managers {
				n += float64(m.Stats().CachedSessions)
			}
			return n, nil
		}},
		{curve: curve{title: "requests per second"}, now: func() (float64, error) {
			n, at := w.requests.Load(), time.Now()
			rate := float64(n-last) / at.Sub(lastAt).Seconds()
			last, lastAt = n, at
			return rate, nil
		}},
	}
	for _, s := range series {
		s.every = every.Seconds()
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return series, nil
		case <-ticker.C:
		}
		for _, s := range series {
			value, err := s.now()
			if err != nil {
				return nil, err
			}
			s.points = append(s.points, value)
		}
	}
}

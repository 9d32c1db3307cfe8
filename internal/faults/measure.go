package faults

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// A Delays is how long nodes went on honouring sessions that had ended on another.
type Delays struct {
	Database string
	While    string // what else went on
	// Refused is when a node first refused the session, Shown when it last began to
	// show it, 0 if never, both since its end was acknowledged, sorted. Between the
	// two lies what a refusal takes: the timeout of a statement where the database
	// cannot be reached.
	Refused, Shown []time.Duration
}

// MeasureDelays measures from when the client that logs out on one node has its
// answer, until another node, asked again and again, has refused the session's
// cookies: with idle nodes, under the load of cfg.Browsers browsers of each kind,
// and with a node that cannot read events, or cannot reach the database at all.
func MeasureDelays(ctx context.Context, cfg Config, samples int) (all []Delays, err error) {
	c, err := openQuiet(ctx, &cfg)
	if err != nil {
		return nil, err
	}
	defer func() { err = closeQuiet(c, &cfg, err) }()
	r := &run{cluster: c, seed: cfg.Seed}
	r.tally.begin("none", r.clock())
	measure := func(while string, samples int, before, after func() error) error {
		d := Delays{Database: cfg.Database, While: while}
		for range samples {
			if err := r.delay(ctx, &d, before); err != nil {
				return fmt.Errorf("%s: %w", while, err)
			}
			if err := after(); err != nil {
				return err
			}
		}
		d.Refused, d.Shown = sorted(d.Refused), sorted(d.Shown)
		cfg.Log("%s, %s: %d times measured", cfg.Database, while, len(d.Refused))
		all = append(all, d)
		return nil
	}
	leave := func() error { return nil }
	if err := measure("idle", samples, leave, leave); err != nil {
		return all, err
	}
	loaded, stop := context.WithCancel(ctx)
	defer r.wg.Wait()
	defer stop()
	for range cfg.Browsers {
		for _, kind := range browserKinds {
			r.wg.Go(func() { r.browse(loaded, kind) })
		}
	}
	if err := measure("under load", samples, leave, leave); err != nil {
		return all, err
	}
	stop()
	r.wg.Wait()
	if c.db.kind == "sqlite" {
		return all, nil // what keeps it from reading events keeps it from all
	}

	victims := r.members[1:] // the sessions end on the first
	each := func(f func(m *member) error) func() error {
		return func() (err error) {
			for _, m := range victims {
				err = errors.Join(err, f(m))
			}
			return err
		}
	}
	const few = 4 // each takes FeedTimeout
	if err := measure("the other nodes cannot read events", few,
		each(func(m *member) error { return c.db.blind(ctx, m.name, true) }),
		each(func(m *member) error {
			err := c.db.blind(ctx, m.name, false)
			return errors.Join(err, pause(ctx, 2*time.Second))
		})); err != nil {
		return all, err
	}
	return all, measure("the other nodes cannot reach the database", few,
		each(func(m *member) error { m.setNetwork(stalled); return nil }),
		func() error {
			for _, m := range victims {
				m.setNetwork(forwarding)
			}
			return errors.Join(r.recover(ctx), pause(ctx, 2*time.Second))
		})
}

// openQuiet starts a cluster for measuring, without the race detector.
func openQuiet(ctx context.Context, cfg *Config) (c *cluster, err error) {
	cfg.Nodes, cfg.Browsers = cmp.Or(cfg.Nodes, 3), cmp.Or(cfg.Browsers, 2)
	cfg.Seed = cmp.Or(cfg.Seed, uint64(time.Now().UnixNano()))
	if cfg.Log == nil {
		cfg.Log = func(string, ...any) {}
	}
	if cfg.Dir, err = os.MkdirTemp("", "holdfast-faults-"); err != nil {
		return nil, err
	}
	return open(ctx, cfg, false)
}

// closeQuiet ends it, and keeps the logs if err says that something went wrong.
func closeQuiet(c *cluster, cfg *Config, err error) error {
	if err = errors.Join(err, c.close(), c.db.close()); err != nil {
		return fmt.Errorf("%w; logs are in %s", err, cfg.Dir)
	}
	return os.RemoveAll(cfg.Dir)
}

// delay ends a session on the first node, after before, and notes how long each of
// the others honoured it. An answer that is none, because the database cannot be
// reached, is a refusal.
func (r *run) delay(ctx context.Context, d *Delays, before func() error) (err error) {
	c := newClient(true, nil)
	defer c.close()
	v := &visit{user: fmt.Sprintf("visitor%d", r.serial.Add(1))}
	by, others := r.members[0], r.members[1:]
	var ok bool
	if v.id, ok = r.login(ctx, c, by, v.user, &v.held); !ok {
		return errors.New("cannot log in")
	}
	for _, m := range others {
		cached := false
		for range 100 {
			shown, err := r.askQuietly(ctx, c, m, v.held).view()
			if cached = err == nil && shown.Source == "cache"; cached {
				break
			}
			pause(ctx, 20*time.Millisecond)
		}
		if !cached {
			return fmt.Errorf("%s does not keep a copy", m.name)
		}
	}
	if err := before(); err != nil {
		return err
	}
	if !r.ask(ctx, c, by, put, "POST", "/api/logout", "", v.held).ok() {
		return errors.New("cannot log out")
	}
	ended := r.clock()
	var mu sync.Mutex // guards d and err
	var wg sync.WaitGroup
	for _, m := range others {
		wg.Go(func() {
			c := newClient(true, nil)
			defer c.close()
			for last := time.Duration(0); ; {
				a := r.askQuietly(ctx, c, m, v.held)
				shown, _ := a.view() // of an error it is the zero view
				if !a.ok() || shown.Principal == "" {
					mu.Lock()
					defer mu.Unlock()
					d.Refused = append(d.Refused, a.ended-ended)
					d.Shown = append(d.Shown, last)
					return
				}
				last = a.began - ended
				if a.began-ended > time.Minute {
					mu.Lock()
					defer mu.Unlock()
					err = fmt.Errorf("%s still honours the session", m.name)
					return
				}
				pause(ctx, time.Millisecond)
			}
		})
	}
	wg.Wait()
	return err
}

// PrintDelays writes a table in Markdown.
func PrintDelays(w io.Writer, all []Delays) {
	fmt.Fprintln(w, "| Database | while | samples | refused: p50 | p99 | longest | last shown: p50 | longest |")
	fmt.Fprintln(w, "|---|---|---:|---:|---:|---:|---:|---:|")
	for _, d := range all {
		fmt.Fprintf(w, "| %s | %s | %d | %v | %v | %v | %v | %v |\n", d.Database, d.While, len(d.Refused),
			percentile(d.Refused, 50), percentile(d.Refused, 99), percentile(d.Refused, 100),
			percentile(d.Shown, 50), percentile(d.Shown, 100))
	}
}

// A Share is how many reads of sequential clients the database was asked for.
type Share struct {
	Balancing string // "sticky" or "round robin"
	Writes    string // what part of the requests write
	Reads     int
	Asked     int // reads for which a statement ran
}

// MeasureReads lets a client send its requests one by one, either to the node that
// its token names or to all in turn, and counts the reads that asked the database.
func MeasureReads(ctx context.Context, cfg Config, requests int) (shares []Share, err error) {
	c, err := openQuiet(ctx, &cfg)
	if err != nil {
		return nil, err
	}
	defer func() { err = closeQuiet(c, &cfg, err) }()
	r := &run{cluster: c, seed: cfg.Seed}
	for _, every := range []int{0, 20, 5, 2} {
		for _, sticky := range []bool{true, false} {
			s := Share{Balancing: "round robin", Writes: "none"}
			if sticky {
				s.Balancing = "sticky"
			}
			if every > 0 {
				s.Writes = fmt.Sprintf("1 of %d", every)
			}
			if err := r.countReads(ctx, &s, requests, every, sticky); err != nil {
				return shares, err
			}
			shares = append(shares, s)
		}
	}
	return shares, nil
}

func (r *run) countReads(ctx context.Context, s *Share, requests, every int, sticky bool) error {
	c := newClient(true, nil)
	defer c.close()
	var held cookies
	user := fmt.Sprintf("visitor%d", r.serial.Add(1))
	if _, ok := r.login(ctx, c, r.members[0], user, &held); !ok {
		return errors.New("cannot log in")
	}
	loads, err := r.loads(ctx, c)
	if err != nil {
		return err
	}
	for i := range requests {
		m := r.members[i%len(r.members)]
		for _, n := range r.members {
			if sticky && n.name == held.route() {
				m = n
			}
		}
		var a answer
		if every > 0 && i%every == 0 {
			a = c.do(ctx, r.clock, "POST", m.url+"/api/counters/n", "", held)
		} else {
			a = r.askQuietly(ctx, c, m, held)
			s.Reads++
			if strings.Contains(string(a.body), `"source":"database"`) {
				s.Asked++
			}
		}
		if !a.ok() {
			return fmt.Errorf("%s: %d %s: %w", m.name, a.status, a.body, a.err)
		}
		a.set.apply(&held)
	}
	after, err := r.loads(ctx, c)
	if err == nil && after-loads < int64(s.Asked) {
		err = fmt.Errorf("answers speak of %d questions, nodes of %d", s.Asked, after-loads)
	}
	return err
}

// loads returns how often the nodes have asked the database for a session.
func (r *run) loads(ctx context.Context, c *client) (n int64, err error) {
	for _, m := range r.members {
		var stats struct {
			Loads int64 `json:"loads"`
		}
		a := c.do(ctx, r.clock, "GET", m.url+"/api/stats", "", cookies{})
		if err := a.decode(&stats); err != nil {
			return 0, fmt.Errorf("statistics of %s: %w", m.name, err)
		}
		n += stats.Loads
	}
	return n, nil
}

// PrintReads writes a table in Markdown.
func PrintReads(w io.Writer, shares []Share) {
	fmt.Fprintln(w, "| Balancing | requests that write | reads | reads that ran a statement |")
	fmt.Fprintln(w, "|---|---|---:|---:|")
	for _, s := range shares {
		fmt.Fprintf(w, "| %s | %s | %d | %.1f %% |\n", s.Balancing, s.Writes, s.Reads, 100*float64(s.Asked)/float64(s.Reads))
	}
}

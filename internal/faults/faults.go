package faults

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Config says what to run.
type Config struct {
	// Database is one of [Databases] or [Clusters].
	Database string
	// Nodes defaults to 3.
	Nodes int
	// Strict makes the nodes confirm each read with the database.
	Strict bool
	// Browsers is how many of each kind there are. Defaults to 2.
	Browsers int
	// Faults are the names of those to inject, in this order. Defaults to all that
	// the database knows.
	Faults []string
	// Duration makes a long run: faults are drawn at random until it is over.
	// Defaults to 0: each once.
	Duration time.Duration
	// Seed decides what is random. Defaults to the time.
	Seed uint64
	// Binary is the holdfast command, from [Build]. Defaults to one built for the run.
	Binary string
	// Dir gets the nodes' logs. Defaults to a directory that is removed if nothing
	// was found.
	Dir string
	// Log is told what happens. Defaults to nobody.
	Log func(format string, args ...any)
}

// Run starts a cluster, sets clients on it, injects faults and checks what the
// clients saw. A broken promise is in the report; an error means that the harness
// itself could not go on, [ErrNoServer] that there is no database.
func Run(ctx context.Context, cfg Config) (report *Report, err error) {
	cfg.Nodes, cfg.Browsers = cmp.Or(cfg.Nodes, 3), cmp.Or(cfg.Browsers, 2)
	cfg.Seed = cmp.Or(cfg.Seed, uint64(time.Now().UnixNano()))
	if cfg.Log == nil {
		cfg.Log = func(string, ...any) {}
	}
	if cfg.Dir == "" {
		if cfg.Dir, err = os.MkdirTemp("", "holdfast-faults-"); err != nil {
			return nil, err
		}
		defer func() {
			if err == nil && len(report.Violations) == 0 {
				os.RemoveAll(cfg.Dir)
			}
		}()
	}
	began := time.Now()
	c, err := open(ctx, &cfg, true)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.close(), c.db.close()) }()
	cfg.Log("%s: %d nodes behind %s, seed %d, logs in %s", cfg.Database, cfg.Nodes, c.front, cfg.Seed, cfg.Dir)

	r := &run{cluster: c, seed: cfg.Seed}
	if err := r.work(ctx, &cfg); err != nil {
		return nil, err
	}
	if err := r.expire(ctx); err != nil {
		return nil, err
	}
	r.recheck(ctx)
	stored, err := c.db.sessions(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.shutdown(ctx); err != nil {
		r.violate("P14", "", "nodes did not end in good order: %v", err)
	}
	r.judge(stored)
	report = r.report(&cfg)
	report.Took = time.Since(began)
	return report, nil
}

// open starts what cfg asks for. The caller closes the cluster and its database.
func open(ctx context.Context, cfg *Config, race bool) (c *cluster, err error) {
	if cfg.Binary == "" {
		if cfg.Binary, err = Build(ctx, cfg.Dir, race, race); err != nil {
			return nil, err
		}
	}
	db, err := openDatabase(ctx, cfg.Database, cfg.Dir)
	if err != nil {
		return nil, err
	}
	c, err = startCluster(ctx, db, cfg.Binary, cfg.Dir, cfg.Nodes, cfg.Strict)
	if err != nil {
		return nil, errors.Join(err, db.close())
	}
	return c, nil
}

// work sets clients on the cluster and injects faults.
func (r *run) work(ctx context.Context, cfg *Config) error {
	chosen, err := choose(cfg, r.db)
	if err != nil {
		return err
	}
	r.tally.begin("start", r.clock())
	working, stop := context.WithCancel(ctx)
	defer r.wg.Wait()
	defer stop()
	for range cfg.Browsers {
		for _, kind := range browserKinds {
			r.wg.Go(func() { r.browse(working, kind) })
		}
		r.wg.Go(func() { r.visitors(working) })
	}
	expiring := make(chan error, 1)
	r.wg.Go(func() { expiring <- r.forget(working) })

	rnd := r.random(0)
	if cfg.Duration == 0 {
		for _, f := range chosen {
			if err := r.phase(ctx, cfg, f, rnd); err != nil {
				return err
			}
		}
	} else {
		for end := time.Now().Add(cfg.Duration); time.Now().Before(end); {
			i := rnd.IntN(len(chosen))
			if err := r.phase(ctx, cfg, chosen[i], rnd); err != nil {
				return err
			}
			if chosen[i].Once {
				chosen = slices.Delete(chosen, i, i+1)
			}
		}
	}
	stop()
	r.wg.Wait()
	r.tally.end(r.clock())
	return ctx.Err()
}

// choose returns the faults to inject.
func choose(cfg *Config, db *database) (chosen []Fault, err error) {
	known := make(map[string]bool)
	for _, f := range Faults() {
		known[f.Name] = true
		if f.On != nil && !slices.Contains(f.On, db.title) || f.OwnServer && db.container == nil {
			continue
		}
		if len(cfg.Faults) == 0 || slices.Contains(cfg.Faults, f.Name) {
			chosen = append(chosen, f)
		}
	}
	for _, name := range cfg.Faults {
		if !known[name] {
			return nil, fmt.Errorf("fault %q is unknown", name)
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("none of %v can be injected into %s here", cfg.Faults, db.kind)
	}
	return chosen, nil
}

// settle is how long clients go on undisturbed after each fault.
const settle = time.Second

// phase injects a fault, heals it, and waits until the cluster works again.
func (r *run) phase(ctx context.Context, cfg *Config, f Fault, rnd *rand.Rand) error {
	p := r.tally.begin(f.Name, r.clock())
	cfg.Log("%s: at %v: %s: %s", cfg.Database, p.Began.Round(time.Second), f.Name, f.What)
	heal, err := f.inject(ctx, r, rnd)
	if err == nil {
		err = pause(ctx, f.Hold)
	}
	if heal != nil {
		err = errors.Join(err, heal(context.WithoutCancel(ctx)))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", f.Name, err)
	}
	healed := r.clock()
	if err := r.recover(ctx); err != nil {
		return fmt.Errorf("after %s: %w", f.Name, err)
	}
	p.Recovered = r.clock() - healed
	for _, m := range r.members {
		if err := r.balanced(ctx, m); err != nil {
			return fmt.Errorf("after %s: %w", f.Name, err)
		}
	}
	if err := pause(ctx, settle); err != nil {
		return err
	}
	if f.Seamless && p.Failed() > 0 {
		r.violate("P14", "", "%s: clients saw errors: %s", f.Name, p.errorText())
	}
	return nil
}

// forgetInterval is how often forgotten sessions are made to expire.
const forgetInterval = 3 * time.Second

// forget makes sessions expire that their visitors left without a word, until ctx
// ends. Its errors are those of a database that is away.
func (r *run) forget(ctx context.Context) error {
	done := 0
	for pause(ctx, forgetInterval) == nil {
		r.mu.Lock()
		visits := slices.Clone(r.forgotten)
		r.mu.Unlock()
		for _, v := range visits[done:] {
			if r.db.expire(ctx, []string{v.id}) != nil {
				break
			}
			done++
		}
	}
	return nil
}

// expire makes the sessions expire that were forgotten last, while nothing goes
// wrong, and waits until they are swept.
func (r *run) expire(ctx context.Context) error {
	const calm = 20
	waiting, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	c := newClient(false, nil)
	defer c.close()
	var ids []string
	for range calm {
		v := &visit{user: fmt.Sprintf("visitor%d", r.serial.Add(1)), calm: true}
		for ok := false; !ok; {
			v.held = cookies{} // of a login whose outcome is unknown
			if v.id, ok = r.login(ctx, c, r.next(), v.user, &v.held); !ok && pause(waiting, 100*time.Millisecond) != nil {
				return errors.New("after all faults: cannot log in")
			}
		}
		r.forgotten = append(r.forgotten, v)
		ids = append(ids, v.id)
	}
	if err := r.db.expire(ctx, ids); err != nil {
		return err
	}
	for {
		stored, err := r.db.sessions(ctx)
		if err != nil {
			return err
		}
		left := slices.ContainsFunc(ids, func(id string) bool { return stored[id] })
		if !left {
			return nil
		}
		if pause(waiting, 200*time.Millisecond) != nil {
			r.violate("P11", "", "expired sessions are not swept")
			return nil
		}
	}
}

// recheck presents the cookies of all ended sessions once more, to every node.
func (r *run) recheck(ctx context.Context) {
	c := newClient(true, nil)
	defer c.close()
	for _, v := range r.visits {
		if !v.ended {
			continue
		}
		for _, m := range r.members {
			a := r.askQuietly(ctx, c, m, v.held)
			if shown, err := a.view(); !a.ok() || err != nil || shown.Principal != "" {
				if r.clock()-v.at > r.staleness() {
					r.violate("P3", v.id, "at last %s shows %q: %d %s", m.name, shown.Principal, a.status, a.body)
				}
			}
		}
	}
}

func (r *run) askQuietly(ctx context.Context, c *client, m *member, held cookies) answer {
	return c.do(ctx, r.clock, "GET", m.url+"/api/session", "", held)
}

// judge checks all that was recorded. stored are the sessions left in the database.
func (r *run) judge(stored map[string]bool) {
	for _, h := range r.histories {
		r.violations = append(r.violations, h.check(r.strict)...)
	}
	announced := make(map[string][]string)
	for _, e := range r.endings() {
		key := e.id + " " + e.app
		announced[key] = append(announced[key], e.node+" "+e.cause)
	}
	for key, by := range announced {
		if len(by) > 1 {
			r.violate("P11", key, "announced more than once: %v", by)
		}
	}
	for _, v := range slices.Concat(r.visits, r.forgotten) {
		if v.ended && stored[v.id] {
			r.violate("P3", v.id, "is stored after its end")
		}
		if (v.ended || v.calm) && len(announced[v.id+" shop"]) == 0 {
			r.violate("P11", v.id, "its end was never announced")
		}
	}
	for _, m := range r.members {
		found, err := m.faultsInLog()
		if err != nil {
			r.violate("P1", "", "%v", err)
		}
		for _, text := range found {
			r.violate("P1", "", "%s", text)
		}
	}
}

func (r *run) report(cfg *Config) *Report {
	rep := &Report{
		Database: cfg.Database, Nodes: cfg.Nodes, Freshness: "causal", Seed: cfg.Seed,
		Phases: slices.DeleteFunc(slices.Clone(r.tally.phases), func(p *Phase) bool { return p.Requests == 0 }), Sessions: len(r.histories),
		Logins: r.logins, Exposed: r.exposed, Undone: r.undone, Delays: sorted(r.delays),
	}
	if cfg.Strict {
		rep.Freshness = "strict"
	}
	for _, name := range browserKinds {
		k := Kind{Name: name}
		for _, h := range r.histories {
			if h.kind == name {
				k.add(h)
			}
		}
		rep.Kinds = append(rep.Kinds, k)
	}
	for _, h := range r.histories {
		rep.Ops += len(h.ops)
		lost := h.lost()
		for _, p := range r.tally.during(h.ops[0].call, h.ops[len(h.ops)-1].end) {
			p.Sessions++
			p.Lost += lost
		}
	}
	for _, v := range r.visits {
		if v.ended {
			rep.Ended++
		}
	}
	rep.Expired = len(r.forgotten)
	for _, v := range r.violations {
		rep.Violations = append(rep.Violations, v.String())
	}
	if len(rep.Violations) > 0 {
		text := strings.Join(rep.Violations, "\n\n") + "\n"
		os.WriteFile(filepath.Join(cfg.Dir, "violations.txt"), []byte(text), 0o600)
	}
	return rep
}

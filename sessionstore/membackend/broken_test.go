package membackend

import (
	"context"
	"iter"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/backendtest"
)

// brokenEnv tells the test binary, started by itself, to run the suite on the
// broken backends.
const brokenEnv = "HOLDFAST_TEST_BROKEN"

// A broken backend breaks one sentence: one method is replaced, mostly by one
// that spoils what the right one did.
type broken struct {
	*Backend
	muting        int64 // guarded by the Backend's lock; see mute
	load          func(ctx context.Context, key sessionstore.Key, known sessionstore.Version) (*sessionstore.Record, error)
	create        func(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) (time.Time, error)
	update        func(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) error
	touch         func(ctx context.Context, touches []sessionstore.Touch) error
	delete        func(ctx context.Context, sel sessionstore.Selector) ([]*sessionstore.Record, error)
	list          func(ctx context.Context, sel sessionstore.Selector) iter.Seq2[sessionstore.Info, error]
	deleteExpired func(ctx context.Context, sweep sessionstore.Sweep) ([]*sessionstore.Record, bool, error)
	heard         func(ctx context.Context, after sessionstore.Cursor) ([]sessionstore.Event, sessionstore.Cursor, error)
	register      func(ctx context.Context, node sessionstore.Node) (sessionstore.Node, error)
	unregister    func(ctx context.Context, name string, instance uuid.UUID) error
}

func (b *broken) RegisterNode(ctx context.Context, node sessionstore.Node) (sessionstore.Node, error) {
	if b.register != nil {
		return b.register(ctx, node)
	}
	return b.Backend.RegisterNode(ctx, node)
}

func (b *broken) UnregisterNode(ctx context.Context, name string, instance uuid.UUID) error {
	if b.unregister != nil {
		return b.unregister(ctx, name, instance)
	}
	return b.Backend.UnregisterNode(ctx, name, instance)
}

func (b *broken) Events(ctx context.Context, after sessionstore.Cursor) ([]sessionstore.Event, sessionstore.Cursor, error) {
	if b.heard != nil {
		return b.heard(ctx, after)
	}
	return b.Backend.Events(ctx, after)
}

func (b *broken) Load(ctx context.Context, key sessionstore.Key, known sessionstore.Version) (*sessionstore.Record, error) {
	if b.load != nil {
		return b.load(ctx, key, known)
	}
	return b.Backend.Load(ctx, key, known)
}

func (b *broken) Create(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) (time.Time, error) {
	if b.create != nil {
		return b.create(ctx, rec, cond)
	}
	return b.Backend.Create(ctx, rec, cond)
}

func (b *broken) Update(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) error {
	if b.update != nil {
		return b.update(ctx, rec, cond)
	}
	return b.Backend.Update(ctx, rec, cond)
}

func (b *broken) Touch(ctx context.Context, touches []sessionstore.Touch) error {
	if b.touch != nil {
		return b.touch(ctx, touches)
	}
	return b.Backend.Touch(ctx, touches)
}

func (b *broken) Delete(ctx context.Context, sel sessionstore.Selector) ([]*sessionstore.Record, error) {
	if b.delete != nil {
		return b.delete(ctx, sel)
	}
	return b.Backend.Delete(ctx, sel)
}

func (b *broken) List(ctx context.Context, sel sessionstore.Selector) iter.Seq2[sessionstore.Info, error] {
	if b.list != nil {
		return b.list(ctx, sel)
	}
	return b.Backend.List(ctx, sel)
}

func (b *broken) DeleteExpired(ctx context.Context, sweep sessionstore.Sweep) ([]*sessionstore.Record, bool, error) {
	if b.deleteExpired != nil {
		return b.deleteExpired(ctx, sweep)
	}
	return b.Backend.DeleteExpired(ctx, sweep)
}

// A fault is a way to be broken and the subtests that fail for it: all of those
// named and no other. What fails among the concurrent subtests depends on how
// calls overlap: of those any may fail, and if no other is named, at least one
// of those named must.
type fault struct {
	name  string
	wreck func(b *broken)
	fails []string
}

// TestBrokenBackends proves that the suite has teeth: each broken backend fails
// exactly the subtests that it should. The failures are those of another process,
// because a testing.T has no way to expect one.
func TestBrokenBackends(t *testing.T) {
	faults := slices.Concat(readFaults, writeFaults, endingFaults, valueFaults, raceFaults, eventFaults, nodeFaults)
	if os.Getenv(brokenEnv) != "" {
		for _, f := range faults {
			t.Run(f.name, func(t *testing.T) {
				t.Parallel()
				backendtest.Run(t, backendtest.Options{
					New: func(*testing.T) sessionstore.Backend {
						b := &broken{Backend: New()}
						f.wreck(b)
						return b
					},
					Advance: func(_ *testing.T, b sessionstore.Backend, d time.Duration) { b.(*broken).Advance(d) },
				})
			})
		}
		return
	}

	failed, out := failures(t, "", "-test.short", "-test.parallel=4")
	messages := regexp.MustCompile(`The specification says: "`).FindAll(out, -1)
	if len(messages) < len(faults) {
		t.Errorf("%d broken backends fail with only %d citations", len(faults), len(messages))
	}
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			got := failed[strings.ReplaceAll(f.name, " ", "_")]
			var want []string
			for _, name := range f.fails {
				want = append(want, strings.ReplaceAll(name, " ", "_"))
			}
			certain, bitten := 0, false
			for _, name := range want {
				switch failed := slices.Contains(got, name); {
				case strings.HasPrefix(name, "Concurrent"):
					bitten = bitten || failed
				case failed:
					certain++
				default:
					certain++
					t.Errorf("passes %s", name)
				}
			}
			// The calls of so short a run may not have overlapped.
			for try := 0; certain == 0 && !bitten && try < 5; try++ {
				again, _ := failures(t, "/^"+regexp.QuoteMeta(strings.ReplaceAll(f.name, " ", "_"))+"$/^Concurrent")
				for _, got := range again {
					bitten = bitten || slices.ContainsFunc(got, func(name string) bool { return slices.Contains(want, name) })
				}
			}
			if certain == 0 && !bitten {
				t.Errorf("passes all of %q", want)
			}
			for _, name := range got {
				if !slices.Contains(want, name) && !strings.HasPrefix(name, "Concurrent") {
					t.Errorf("fails %s", name)
				}
			}
		})
	}
}

// failures runs the broken backends, or those that the pattern matches, and returns which
// subtests each of them fails.
func failures(t *testing.T, pattern string, flags ...string) (failed map[string][]string, out []byte) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, append(flags, "-test.run=^TestBrokenBackends$"+pattern, "-test.v")...)
	cmd.Env = append(os.Environ(), brokenEnv+"=1")
	out, err = cmd.CombinedOutput()
	if err == nil && pattern == "" {
		t.Fatalf("no broken backend fails:\n%s", out)
	}
	if crash := regexp.MustCompile(`(?m)^(panic:|fatal error:|WARNING: DATA RACE).*`).Find(out); crash != nil {
		t.Fatalf("the broken backends crashed: %s\n%s", crash, out)
	}
	failed = make(map[string][]string)
	for _, m := range regexp.MustCompile(`(?m)^ *--- FAIL: TestBrokenBackends/([^/\s]+)/([^/\s]+/[^/\s]+) `).FindAllSubmatch(out, -1) {
		failed[string(m[1])] = append(failed[string(m[1])], string(m[2]))
	}
	return failed, out
}

// locked calls f with the lock held, for faults that reach into the store.
func (b *broken) locked(f func(now time.Time)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(b.nowLocked())
}

// with calls f with the record under key, live or not, if there is one.
func (b *broken) with(key sessionstore.Key, f func(r *sessionstore.Record, now time.Time)) {
	b.locked(func(now time.Time) {
		if r := b.sessions[key.ID][key.App]; r != nil {
			f(r, now)
		}
	})
}

// stored returns a copy of the record under key, live or not, or nil.
func (b *broken) stored(key sessionstore.Key) (rec *sessionstore.Record) {
	b.with(key, func(r *sessionstore.Record, now time.Time) { rec = copyOf(r, now) })
	return rec
}

// remembered returns copies of what is stored under id.
func (b *broken) remembered(id sessionstore.ID) (recs []*sessionstore.Record) {
	b.locked(func(now time.Time) {
		for _, r := range b.sessions[id] {
			recs = append(recs, copyOf(r, now))
		}
	})
	return recs
}

// restore puts back what was remembered, but for the records that keep is true of.
func (b *broken) restore(recs []*sessionstore.Record, keep func(*sessionstore.Record) bool) {
	b.locked(func(time.Time) {
		for _, r := range recs {
			if keep(r) {
				continue
			}
			if now := b.sessions[r.Key.ID][r.Key.App]; now != nil {
				b.removeLocked(now)
			}
			b.putLocked(r)
		}
	})
}

package main

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/google/uuid"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// A library is a backend that makes up the sessions it is asked for, so that the
// memory measured is the cache's alone.
type library struct {
	sessionstore.Backend
	hash sessionstore.SecretHash
	data []byte
}

func (l *library) Load(_ context.Context, key sessionstore.Key, _ sessionstore.Version) (*sessionstore.Record, error) {
	now := time.Now().UTC().Truncate(time.Microsecond)
	rec := &sessionstore.Record{SecretHash: l.hash, Data: append([]byte(nil), l.data...), Now: now}
	rec.Key = sessionstore.Key{ID: key.ID, App: "shop"}
	rec.Version, rec.Principal = 1, fmt.Sprintf("user-%x", key.ID[12:])
	rec.CreatedAt, rec.AccessedAt = now, now
	rec.Idle, rec.Lifetime = 30*time.Minute, 24*time.Hour
	rec.ExpiresAt = now.Add(rec.Idle)
	return rec, nil
}

func (l *library) Touch(context.Context, []sessionstore.Touch) error { return nil }

// memory measures what cached sessions take.
func (b *bench) memory(ctx context.Context) error {
	s := &section{
		title: "Memory of 100,000 cached sessions",
		text: "Growth of the live heap, per session: with a use that is not written back yet, and after the touch interval. " +
			"\"Believed\" is the cache's own estimate, by which it keeps its bound.",
		columns: []string{"data", "heap, use pending", "heap", "above the data", "believed", "goroutines more"},
	}
	worst := 0.0
	for _, content := range []struct {
		name       string
		attributes int
		size       int
	}{{"3 attributes, 1 KB", 3, 330}, {"1 attribute, 16 B", 1, 16}, {"20 attributes, 4 KB", 20, 200}} {
		row, above, err := cachedMemory(ctx, content.name, content.attributes, content.size)
		if err != nil {
			return err
		}
		s.rows = append(s.rows, row)
		if content.attributes == 3 {
			worst = max(worst, above)
		}
	}
	s.targets = []target{atMost("bytes above the data", worst, 700).digits(0)}
	scan, err := b.scan(ctx)
	if err != nil {
		return err
	}
	return b.report("memory", "Memory", []*section{s, scan})
}

// envelope encodes attributes as they are stored, by way of the library itself.
func envelope(attributes, size int) []byte {
	data := []byte{1}
	for i := range attributes {
		name := fmt.Sprintf("attribute%02d", i)
		data = append(data, byte(len(name)))
		data = append(data, name...)
		if size < 128 {
			data = append(data, byte(size))
		} else {
			data = append(data, byte(size)|0x80, byte(size>>7))
		}
		value := make([]byte, size)
		for j := range value {
			value[j] = '0'
		}
		data = append(data, value...)
	}
	return data
}

func heap() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// use begins and ends a request of a session, as the middleware does.
func use(ctx context.Context, n *node, token sessionstore.Token) error {
	s, err := n.manager.Begin(ctx, sessionstore.Claim{Token: token, Version: 1})
	if err != nil {
		return err
	}
	if !s.Claimed() {
		return fmt.Errorf("the session is refused")
	}
	n.manager.Release(s)
	return nil
}

func newLibrary(attributes, size int) (*library, sessionstore.Token) {
	token := sessionstore.NewToken(sessionstore.ID{1}, "")
	return &library{hash: token.SecretHash(), data: envelope(attributes, size)}, token
}

// tokenFor is the model's token for another session.
func tokenFor(model sessionstore.Token) (sessionstore.Token, error) {
	s, err := retoken(model.Reveal(), sessionstore.ID(uuid.Must(uuid.NewV7())))
	if err != nil {
		return sessionstore.Token{}, err
	}
	return sessionstore.ParseToken(s)
}

func cachedMemory(ctx context.Context, name string, attributes, size int) (row []string, above float64, err error) {
	const sessions = 100_000
	step("memory of %s", name)
	lib, model := newLibrary(attributes, size)
	n, err := startNode(lib, nil, &sessionstore.Config{CacheBytes: 4 << 30}, holdfastShop)
	if err != nil {
		return nil, 0, err
	}
	goroutines, before := runtime.NumGoroutine(), heap()
	for range sessions {
		token, err := tokenFor(model)
		if err != nil {
			return nil, 0, err
		}
		if err := use(ctx, n, token); err != nil {
			return nil, 0, err
		}
	}
	pending := (heap() - before) / sessions
	more := runtime.NumGoroutine() - goroutines
	if err := n.stop(); err != nil { // writes the uses back
		return nil, 0, err
	}
	idle := (heap() - before) / sessions
	stats := n.manager.Stats()
	if stats.CachedSessions < sessions*99/100 {
		return nil, 0, fmt.Errorf("%d of %d sessions are cached", stats.CachedSessions, sessions)
	}
	above = idle - float64(len(lib.data))
	runtime.KeepAlive(n)
	return []string{
		fmt.Sprintf("%s (%d B stored)", name, len(lib.data)), number(pending, 0), number(idle, 0), number(above, 0),
		number(float64(stats.CachedBytes)/float64(stats.CachedSessions), 0), number(float64(more), 0),
	}, above, nil
}

// scan uses a million sessions once each, through a cache that holds a few.
func (b *bench) scan(ctx context.Context) (*section, error) {
	const bound = sessionstore.DefaultCacheBytes
	step("a scan of %d sessions", b.records)
	lib, model := newLibrary(3, 330)
	n, err := startNode(lib, nil, &sessionstore.Config{TouchInterval: time.Second}, holdfastShop)
	if err != nil {
		return nil, err
	}
	before := heap()
	var hot []sessionstore.Token
	highest, highestBelieved := 0.0, 0.0
	for i := range b.records {
		token, err := tokenFor(model)
		if err != nil {
			return nil, err
		}
		if len(hot) < 1000 {
			hot = append(hot, token)
		}
		if err := use(ctx, n, token); err != nil {
			return nil, err
		}
		if i%20 == 0 { // some sessions go on being used
			if err := use(ctx, n, hot[i/20%len(hot)]); err != nil {
				return nil, err
			}
		}
		if (i+1)%(max(20, b.records)/20) == 0 {
			highestBelieved = max(highestBelieved, float64(n.manager.Stats().CachedBytes))
			if i+1 == b.records {
				break
			}
			highest = max(highest, heap()-before)
		}
	}
	atHits := n.manager.Stats().CacheHits
	for _, token := range hot {
		if err := use(ctx, n, token); err != nil {
			return nil, err
		}
	}
	hits := n.manager.Stats().CacheHits - atHits
	if err := n.stop(); err != nil {
		return nil, err
	}
	highest = max(highest, heap()-before)
	idle := heap() - before
	cached := n.manager.Stats().CachedSessions
	runtime.KeepAlive(n)
	return &section{
		title:   fmt.Sprintf("A scan of %s sessions through a cache of 64 MiB", number(float64(b.records), 0)),
		text:    "Each session is used once, and a thousand of them again and again. The heap while scanning includes the uses of the last second, which wait to be written back outside of the cache.",
		columns: []string{"", ""},
		rows: [][]string{
			{"sessions cached at the end", number(float64(cached), 0)},
			{"most the cache believed to hold", number(highestBelieved/(1<<20), 1) + " MiB"},
			{"heap above the start, while scanning, at most", number(highest/(1<<20), 1) + " MiB"},
			{"heap above the start, in the end", number(idle/(1<<20), 1) + " MiB"},
			{"of the 1,000 sessions in steady use still cached", number(float64(hits), 0)},
		},
		targets: []target{
			atMost("% of the bound in the cache's own belief", 100*highestBelieved/bound, 110),
			atMost("% of the bound on the heap", 100*idle/bound, 110),
		},
	}, nil
}

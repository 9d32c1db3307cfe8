package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-sessions/holdfast/idmanager"
)

// A run is clients at work on a cluster, and what they saw.
type run struct {
	*cluster
	tally  tally
	seed   uint64
	serial atomic.Int64 // numbers what must be unique: values, users, clients
	wg     sync.WaitGroup

	mu         sync.Mutex // guards what follows
	histories  []*history
	visits     []*visit
	forgotten  []*visit // sessions whose visitors left without a word
	violations []violation
	delays     []time.Duration // from an end until other nodes refuse
	undone     int             // logins that a late response undid
	exposed    int             // logins that a response would have undone, had it been later
	logins     int
}

// random returns a source of random numbers of its own, the same in each run with
// the same seed.
func (r *run) random(stream int64) *rand.Rand {
	return rand.New(rand.NewPCG(r.seed, uint64(stream)))
}

func (r *run) violate(promise, session string, format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.violations = append(r.violations, violation{promise, session, r.clock(), fmt.Sprintf(format, args...)})
}

// ask sends a request through the balancer, which counts, or to a node.
func (r *run) ask(ctx context.Context, c *client, m *member, act action, method, path, body string, held cookies) answer {
	url := r.front
	if m != nil {
		url = m.url
	}
	a := c.do(ctx, r.clock, method, url+path, body, held)
	if m == nil {
		cached := act == read && a.ok() && strings.Contains(string(a.body), `"source":"cache"`)
		r.tally.count(act, a, cached)
	}
	switch kind := a.kind(); kind {
	case "", gaveUp, "refused", "timeout", "connection lost", "409", "503":
	default:
		r.violate("P1", "", "%s %s was answered %s: %s", method, path, kind, a.body)
	}
	return a
}

// Kinds of browsers.
const (
	sequential = "sequential browser"     // one request at a time
	parallel   = "parallel browser"       // some tabs, whose requests overlap; told in order
	ordinary   = "ordinary browser"       // the same, with the jar of a browser: the last response applied wins
	shuffled   = "shuffled browser"       // the same, and responses are applied late, twice and out of order
	devices    = "two devices, one token" // each with a jar of its own
)

var browserKinds = []string{sequential, parallel, ordinary, shuffled, devices}

const (
	// opsPerTab bounds a session's history, so that checking it stays cheap.
	opsPerTab = 25
	// maxUnknown does so too.
	maxUnknown = 5
	// think is the longest pause between a tab's requests.
	think = 120 * time.Millisecond
)

// browse is a client that uses one session after the other until ctx ends.
func (r *run) browse(ctx context.Context, kind string) {
	rnd := r.random(r.serial.Add(1))
	for ctx.Err() == nil {
		if !r.life(ctx, kind, rnd) {
			pause(ctx, 100*time.Millisecond) // it is the cluster that needs a rest
		}
	}
}

// life begins a session, uses it in tabs, and reads at last what is left of it. It
// reports whether the session came about.
func (r *run) life(ctx context.Context, kind string, rnd *rand.Rand) bool {
	tabs := 3
	if kind == sequential {
		tabs = 1
	}
	clients := make([]*client, tabs)
	for i := range clients {
		clients[i] = newClient(rnd.IntN(2) == 0, nil)
		if rnd.IntN(8) == 0 {
			clients[i].wait = hurry
		}
		defer clients[i].close()
	}
	h := &history{kind: kind, overtaken: kind == ordinary || kind == shuffled || kind == devices}
	user := fmt.Sprintf("user%d", r.serial.Add(1))
	held, ok := r.begin(ctx, clients[0], h, user)
	if !ok {
		return false
	}
	jars := []*jar{{held: held, latest: kind == parallel}}
	switch kind {
	case shuffled:
		jars[0].shuffle = r.random(r.serial.Add(1))
	case devices:
		jars = append(jars, &jar{held: held, latest: true})
		jars[0].latest = true
	}
	var wg sync.WaitGroup
	for i, c := range clients {
		stream := r.random(r.serial.Add(1))
		wg.Go(func() {
			for n := 0; n < opsPerTab && ctx.Err() == nil && h.unknowns() < maxUnknown; n++ {
				r.step(ctx, c, h, jars[i%len(jars)], user, stream)
				pause(ctx, time.Duration(stream.Int64N(int64(think))))
			}
		})
	}
	wg.Wait()
	r.last(context.WithoutCancel(ctx), h, jars[0].present(), user)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.histories = append(r.histories, h)
	return true
}

// begin begins a session and logs in. If it does not know what came of that, it
// gives up: the session may have a secret that nobody holds.
func (r *run) begin(ctx context.Context, c *client, h *history, user string) (held cookies, ok bool) {
	first := op{client: int(r.serial.Add(1)), action: put, name: "a", value: r.value()}
	a := r.ask(ctx, c, nil, put, "PUT", "/api/attributes/a", quote(first.value), held)
	if !a.ok() {
		return held, false
	}
	a.set.apply(&held)
	first.call, first.end, first.seen = a.began, a.ended, a.set.told()
	h.record(first)
	id, ok := r.login(ctx, c, nil, user, &held)
	h.id, h.start = id, held.told()
	return held, ok
}

// login logs in through the balancer or on a node, and returns the session's ID.
func (r *run) login(ctx context.Context, c *client, m *member, user string, held *cookies) (id string, ok bool) {
	a := r.ask(ctx, c, m, put, "POST", "/api/login", `{"user":`+quote(user)+`}`, *held)
	if !a.ok() {
		return "", false
	}
	a.set.apply(held)
	var told struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(a.body, &told); err != nil || told.ID == "" {
		r.violate("P1", "", "login was answered %q", a.body)
		return "", false
	}
	return told.ID, true
}

func (r *run) value() string { return fmt.Sprintf("v%d", r.serial.Add(1)) }

func quote(text string) string { return `"` + text + `"` }

// step is one request of a tab.
func (r *run) step(ctx context.Context, c *client, h *history, j *jar, user string, rnd *rand.Rand) {
	// A request begins when its browser looks which cookies it holds, and ends when
	// those of the response are in the jar: until then other tabs present the old ones.
	o := op{client: int(r.serial.Add(1)), call: r.clock()}
	name := []string{"a", "b"}[rnd.IntN(2)]
	presented := j.present()
	o.told = presented.told()
	var a answer
	switch rnd.IntN(4) {
	case 0:
		o.action, o.name, o.value = put, name, r.value()
		a = r.ask(ctx, c, nil, put, "PUT", "/api/attributes/"+name, quote(o.value), presented)
	case 1:
		o.action, o.name = add, "n"
		a = r.ask(ctx, c, nil, add, "POST", "/api/counters/n", "", presented)
	default:
		a := r.ask(ctx, c, nil, read, "GET", "/api/session", "", presented)
		j.receive(a.set)
		o.action, o.end = read, r.clock()
		r.see(h, o, a, user)
		return
	}
	j.receive(a.set)
	o.end, o.outcome = r.clock(), a.outcome()
	if o.outcome == done {
		o.seen = a.set.told()
		if o.action == add {
			var told struct {
				Value int64 `json:"value"`
			}
			if err := json.Unmarshal(a.body, &told); err != nil {
				r.violate("P1", h.id, "counter was answered %q", a.body)
			}
			o.counted = told.Value
		}
		r.sameSession(h, presented, a)
	}
	h.record(o)
}

// sameSession wants an acknowledged write to have gone into the session that the
// client presented, not into one begun for it.
func (r *run) sameSession(h *history, presented cookies, a answer) {
	if a.set.token != nil && !sameID(*a.set.token, presented.token) {
		r.violate("P1", h.id, "%s: a write was acknowledged into another session", h.kind)
	}
}

// sameID reports whether two tokens are of one session: their first characters are
// its ID.
func sameID(a, b string) bool {
	const idChars = 21 // of base64: 126 of 128 bits
	return len(a) >= idChars && len(b) >= idChars && a[:idChars] == b[:idChars]
}

// read reads the whole session from a node.
func (r *run) read(ctx context.Context, c *client, h *history, m *member, presented cookies, user string) bool {
	a := r.ask(ctx, c, m, read, "GET", "/api/session", "", presented)
	o := op{client: int(r.serial.Add(1)), action: read, told: presented.told(), call: a.began, end: a.ended}
	return r.see(h, o, a, user)
}

// see records what a read was answered, if it was.
func (r *run) see(h *history, o op, a answer, user string) bool {
	if !a.ok() {
		return false
	}
	v, err := a.view()
	if err == nil {
		o.state, err = v.state()
	}
	if err != nil {
		r.violate("P13", h.id, "session was answered %q: %v", a.body, err)
		return false
	}
	o.seen, o.node = v.Version, v.Node
	if v.ID != h.id || v.Principal != user {
		h.vanish()
		r.violate("P4", h.id, "%s: logged out by accident: %s saw session %q of %q, want %q of %q, told of version %d", h.kind, v.Node, v.ID, v.Principal, h.id, user, o.told)
		return false
	}
	h.record(o)
	return true
}

// last reads what every node says is stored, after all else.
func (r *run) last(ctx context.Context, h *history, held cookies, user string) {
	c := newClient(false, nil)
	defer c.close()
	c.wait = 10 * time.Second
	for _, m := range r.members {
		for range 3 {
			if _, _, down := m.now(); down || r.read(ctx, c, h, m, held.unversioned(), user) {
				break
			}
		}
	}
}

// staleness is how long a node may honour what has ended elsewhere: FeedTimeout, by
// default, after which it asks.
func (r *run) staleness() time.Duration {
	if r.strict {
		return 0
	}
	return idmanager.DefaultFeedTimeout
}

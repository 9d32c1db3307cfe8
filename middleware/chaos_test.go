package middleware_test

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-sessions/holdfast/idmanager"
	"github.com/holdfast-sessions/holdfast/middleware"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
)

// TestChaos lets browsers do what they like with two applications on three nodes, whose lines
// to the database they share fail (see line), and which are stopped, killed and started. Each
// answer is held against what is known (see model).
//
//	HOLDFAST_TEST_CHAOS=10m      how long; by default 3 s
//	HOLDFAST_TEST_CHAOS_SEED=7   the first round's seed, by default a random one
//
// The seed settles what browsers and lines do, but not how goroutines take turns. So it may
// take a failure some rounds, of which each has the next seed, to come back.
func TestChaos(t *testing.T) {
	length, err := time.ParseDuration(cmp.Or(os.Getenv("HOLDFAST_TEST_CHAOS"), "3s"))
	if err != nil {
		t.Fatal(err)
	}
	seed, err := strconv.ParseUint(cmp.Or(os.Getenv("HOLDFAST_TEST_CHAOS_SEED"), strconv.Itoa(rand.IntN(1_000_000))), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	answers := make(map[string]int)
	for start := time.Now(); time.Since(start) < length; seed++ {
		synctest.Test(t, func(t *testing.T) { newWorld(t, seed, answers).run() })
		if t.Failed() {
			t.Fatalf("with HOLDFAST_TEST_CHAOS_SEED=%d", seed)
		}
	}
	t.Logf("answers: %v", answers)
	for _, what := range []string{"read 200", "add 200", "save 200", "login 200", "logout 200", "old 200", "stream 200"} {
		if answers[what] == 0 {
			t.Errorf("no exchange was %q", what)
		}
	}
}

const (
	chaosTime = time.Minute           // in which browsers send requests
	calmTime  = time.Minute           // after it, in which all that has happened is heard of
	handled   = "by the handler"      // in each page of a handler, and in none of the error handler
	travel    = 20 * time.Millisecond // is what a request takes at most, and so is it for an answer
)

// A world is one round.
type world struct {
	*model
	seed   uint64
	memory *membackend.Backend
	logs   *logs
	ghosts sync.WaitGroup
	nodes  []*chaosNode  // those that serve; guarded by mu
	over   chan struct{} // closed when streams are to end
}

func newWorld(t *testing.T, seed uint64, answers map[string]int) *world {
	return &world{
		model: &model{
			t: t, start: time.Now(), answers: answers,
			sessions: make(map[sessionstore.ID]*sessionModel), counts: make(map[sessionstore.Key]*countModel),
			replaced:   make(map[sessionstore.SecretHash]ending),
			principals: make(map[sessionstore.SecretHash]map[string]string),
			removed:    make(map[part]int), announced: make(map[part]int),
		},
		seed: seed, memory: membackend.New(), logs: &logs{}, over: make(chan struct{}),
	}
}

func (w *world) run() {
	var browsers []*chaosBrowser
	var all sync.WaitGroup
	for i := range 3 {
		random := w.random(i)
		n := w.begin(fmt.Sprint("n", i), random.Uint64())
		all.Go(func() { w.trouble(n, random) })
	}
	for i := range 6 { // of four users, who may have three sessions each
		b := &chaosBrowser{w: w, browser: newBrowser(), user: fmt.Sprint("user", i%4), rand: w.random(100 + i)}
		browsers = append(browsers, b)
		all.Go(b.surf)
	}
	all.Wait()
	time.Sleep(calmTime)
	w.ghosts.Wait()

	close(w.over)
	for _, b := range browsers {
		b.requests.Wait()
		for _, n := range w.nodes { // whoever was logged in is so everywhere
			x := &exchange{browser: b, op: "read", key: sessionstore.Key{App: "shop"}, node: n, fresh: true}
			b.send(x)
			b.exchange(x)
		}
	}
	for _, x := range w.history {
		if x.op == "stream" && x.version > 0 && x.status == http.StatusOK && !x.node.isGone() {
			if _, err := w.memory.Load(w.t.Context(), x.key, 0); x.heard != (err != nil) {
				w.failf(x.id, "a stream has heard of its session's end: %v\n\t%v", x.heard, x)
			}
		}
	}
	for id := range w.sessions {
		if err := w.nodes[0].ids.Invalidate(w.t.Context(), id); err != nil {
			w.t.Error(err)
		}
	}
	w.judgeEnd(w.logs.String())
	for _, n := range w.nodes {
		if err := n.ids.Shutdown(w.t.Context()); err != nil {
			w.t.Error(err)
		}
	}
}

func (w *world) random(i int) *rand.Rand { return rand.New(rand.NewPCG(w.seed, uint64(i))) }

// A chaosNode is a process with two applications.
type chaosNode struct {
	name     string
	line     *line
	ids      *idmanager.Manager
	apps     map[string]http.Handler
	requests sync.WaitGroup
	stopping chan struct{} // closed when it is to serve no more
}

func (n *chaosNode) isGone() bool {
	select {
	case <-n.stopping:
		return true
	default:
		return false
	}
}

// begin starts a node.
func (w *world) begin(name string, seed uint64) *chaosNode {
	n := &chaosNode{name: name, apps: make(map[string]http.Handler), stopping: make(chan struct{})}
	n.line = &line{Backend: w.memory, model: w.model, ghosts: &w.ghosts, rand: rand.New(rand.NewPCG(seed, 0))}
	logger := slog.New(slog.NewTextHandler(w.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	if n.ids, err = idmanager.New(n.line, &idmanager.Config{Node: name, SweepInterval: 5 * time.Second, Logger: logger}); err != nil {
		panic(err)
	}
	listeners := []sessionstore.Listener{{Destroyed: w.destroyed}}
	cache := []int64{0, 0, 10_000, -1}[w.seed%4] // bytes: the default, less than there are sessions, none
	for app, cfg := range map[string]*sessionstore.Config{
		"shop": {TouchInterval: 10 * time.Second, MaxSessions: 3, LimitPolicy: sessionstore.EvictOldest, CacheBytes: cache, Listeners: listeners, Logger: logger},
		// Its parts of sessions expire, and are begun anew.
		"office": {IdleTimeout: 8 * time.Second, CacheBytes: cache, Listeners: listeners, Logger: logger},
	} {
		manager, err := sessionstore.New(n.ids, app, cfg)
		if err != nil {
			panic(err)
		}
		sessions, err := middleware.New(manager, &middleware.Config{InsecureCookie: true, Logger: logger})
		if err != nil {
			panic(err)
		}
		act := http.Handler(handler(w.act))
		fresh := sessions.RequireFresh(act)
		n.apps[app] = sessions.Handler(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if exchangeOf(r).fresh {
				fresh.ServeHTTP(rw, r)
			} else {
				act.ServeHTTP(rw, r)
			}
		}))
	}
	go func() {
		if err := n.ids.Run(context.Background()); err != nil {
			w.t.Error(err)
		}
	}()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nodes = append(w.nodes, n)
	return n
}

// trouble changes the weather of a node's line, and now and then ends the node and begins
// another one of its name.
func (w *world) trouble(n *chaosNode, random *rand.Rand) {
	pause := func(d time.Duration) { time.Sleep(time.Duration(random.Int64N(int64(d)))) }
	for time.Since(w.start) < chaosTime {
		pause(6 * time.Second)
		n.line.set(weather(random.IntN(int(dead))))
		switch random.IntN(12) {
		case 0:
			n.line.set(dead)
		case 1:
			n.ids.Drain()
			pause(3 * time.Second)
		default:
			continue
		}
		w.mu.Lock()
		w.nodes = slices.DeleteFunc(w.nodes, func(other *chaosNode) bool { return other == n })
		w.mu.Unlock()
		close(n.stopping)
		n.requests.Wait()
		_ = n.ids.Shutdown(context.Background()) // may fail, as the line does
		pause(5 * time.Second)
		n = w.begin(n.name, random.Uint64())
	}
	n.line.set(calm)
}

func (l *line) pause(d time.Duration) {
	_, d = l.look(d)
	time.Sleep(d)
}

// A chaosBrowser has one jar and one user, and sends several requests at a time.
type chaosBrowser struct {
	w        *world
	rand     *rand.Rand
	user     string
	requests sync.WaitGroup
	*browser

	// What follows is guarded by the world's mu.
	past     []string        // Cookie headers of before its logins and logouts
	changes  int             // logins and logouts that it has sent
	open     int             // of these, how many are under way
	certain  bool            // it is logged in to the shop, and has sent no other login or logout since
	id       sessionstore.ID // of the session in which it was told that it is
	loggedIn time.Time       // when it was told
}

// An exchange is a request and its answer.
type exchange struct {
	browser *chaosBrowser
	op      string
	key     sessionstore.Key // the application, and the session once the handler has seen it
	node    *chaosNode
	fresh   bool // it confirms the session with the database
	past    bool // it is sent with cookies of before
	hangsUp bool

	sent    time.Time
	header  string             // Cookie
	token   sessionstore.Token // in it
	told    sessionstore.Version
	changes int  // the browser's then
	certain bool // likewise
	acked   int  // increments that were acknowledged then

	id        sessionstore.ID // what the handler has seen
	claimed   bool
	version   sessionstore.Version
	principal string
	count     int
	heard     bool // of a stream: of the session's end

	end    time.Time
	status int                // 0 if no answer came
	given  sessionstore.Token // by the answer's cookies
	now    sessionstore.Version
}

func (x *exchange) String() string {
	ms := func(t time.Time) int64 { return t.Sub(x.browser.w.start).Milliseconds() }
	name := func(t sessionstore.Token) string {
		hash := t.SecretHash()
		return fmt.Sprintf("%.4s.%s", fmt.Sprintf("%x", hash[:]), t.Route())
	}
	return fmt.Sprintf("%5d to %5d ms: %s at %s %s %s (fresh %v, past %v, certain %v) with %s version %d: claimed %v, %v version %d count %d principal %q: %d with %s version %d",
		ms(x.sent), ms(x.end), x.browser.user, x.node.name, x.op, x.key.App, x.fresh, x.past, x.certain, name(x.token), x.told,
		x.claimed, x.id, x.version, x.count, x.principal, x.status, name(x.given), x.now)
}

type exchangeKey struct{}

func exchangeOf(r *http.Request) *exchange { return r.Context().Value(exchangeKey{}).(*exchange) }

// surf sends random requests, often several at a time.
func (b *chaosBrowser) surf() {
	ops := strings.Fields("read read read read add add add add add save save login login logout stream forget")
	for time.Since(b.w.start) < chaosTime {
		pause := []time.Duration{800 * time.Millisecond, travel, travel}[b.rand.IntN(3)]
		time.Sleep(time.Duration(b.rand.Int64N(int64(pause))))
		x := &exchange{browser: b, op: ops[b.rand.IntN(len(ops))], key: sessionstore.Key{App: "shop"}, fresh: b.rand.IntN(5) == 0}
		if b.rand.IntN(3) == 0 && x.op != "stream" {
			x.key.App = "office"
		}
		x.past = (x.op == "read" || x.op == "add") && b.rand.IntN(5) == 0
		x.hangsUp = x.op != "stream" && b.rand.IntN(20) == 0
		if x.op == "forget" {
			b.forget()
		} else if b.send(x) {
			b.requests.Go(func() { b.exchange(x) })
		}
	}
}

// forget throws the token away.
func (b *chaosBrowser) forget() {
	b.w.mu.Lock()
	defer b.w.mu.Unlock()
	b.certain, b.changes = false, b.changes+1
	b.keep([]*http.Cookie{{Name: "session", MaxAge: -1}})
}

// send settles what the request carries. It fails if there is nobody to send it to.
func (b *chaosBrowser) send(x *exchange) bool {
	b.w.mu.Lock()
	defer b.w.mu.Unlock()
	if len(b.w.nodes) == 0 || x.past && len(b.past) == 0 {
		return false
	}
	x.node = cmp.Or(x.node, b.w.nodes[b.rand.IntN(len(b.w.nodes))])
	x.node.requests.Add(1)
	x.sent, x.header = time.Now(), b.header()
	if x.past {
		x.header = b.past[b.rand.IntN(len(b.past))]
	}
	cookies, _ := http.ParseCookie(x.header)
	x.token = tokenIn(cookies)
	x.told = versionIn(cookies, x.key.App, x.token.ID())
	x.acked = len(b.w.count(sessionstore.Key{ID: x.token.ID(), App: x.key.App}).acked)
	if x.op == "login" || x.op == "logout" {
		b.past = append(b.past, x.header)
		b.certain, b.changes, b.open = false, b.changes+1, b.open+1
	}
	x.changes, x.certain = b.changes, b.certain && !x.past
	return true
}

// tokenIn returns the token among cookies.
func tokenIn(cookies []*http.Cookie) (token sessionstore.Token) {
	for _, c := range cookies {
		if c.Name == "session" {
			token, _ = sessionstore.ParseToken(c.Value)
		}
	}
	return token
}

// versionIn returns which version of a session the client is told of by cookies.
func versionIn(cookies []*http.Cookie, app string, id sessionstore.ID) (v sessionstore.Version) {
	for _, c := range cookies {
		if digits, tag, _ := strings.Cut(c.Value, "."); c.Name == "session-v-"+app && strings.HasSuffix(id.String(), tag) {
			n, _ := strconv.ParseInt(digits, 10, 64)
			v = sessionstore.Version(n)
		}
	}
	return v
}

// exchange lets a node serve the request, and its browser receive the answer.
func (b *chaosBrowser) exchange(x *exchange) {
	x.node.line.pause(travel)
	ctx, hangUp := context.WithCancel(context.WithValue(context.Background(), exchangeKey{}, x))
	defer hangUp()
	if x.hangsUp {
		go func() { x.node.line.pause(travel); hangUp() }()
	}
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
	r.Header.Set("Cookie", x.header)
	rec := httptest.NewRecorder()
	x.node.apps[x.key.App].ServeHTTP(rec, r)
	x.node.requests.Done()
	x.node.line.pause(travel)

	b.w.mu.Lock()
	defer b.w.mu.Unlock()
	x.end = time.Now()
	b.w.history = append(b.w.history, x)
	if x.op == "login" || x.op == "logout" {
		b.open--
	}
	if now, _ := x.node.line.look(1); x.hangsUp || now == dead {
		return
	}
	set := rec.Result().Cookies()
	x.status = rec.Code
	x.given, x.now = tokenIn(set), versionIn(set, x.key.App, x.id)
	what := x.op
	if x.past {
		what = "old"
	} else {
		b.keep(set)
	}
	b.w.answers[fmt.Sprint(what, " ", x.status)]++
	b.w.judge(x, rec.Body.String())
}

// act is every handler.
func (w *world) act(rw http.ResponseWriter, r *http.Request, s *sessionstore.Session) {
	x := exchangeOf(r)
	w.mu.Lock()
	x.id, x.claimed, x.version, x.principal = s.ID(), s.Claimed(), s.Version(), s.Principal()
	x.key.ID = x.id
	x.count, _ = visits.Get(s)
	session := w.session(x.id)
	session.mayEnd = session.mayEnd || x.op == "logout"
	tried := &w.count(x.key).tried
	w.mu.Unlock()
	add := func() {
		w.mu.Lock()
		*tried++
		w.mu.Unlock()
		visits.Update(s, func(n int) int { return n + 1 })
	}
	switch x.op {
	case "add":
		add()
	case "save":
		add()
		if err := s.Save(r.Context()); err != nil {
			http.Error(rw, err.Error(), http.StatusServiceUnavailable)
			return
		}
		add()
	case "login":
		s.SetPrincipal(x.browser.user)
	case "logout":
		s.Invalidate()
	case "stream":
		rw.(http.Flusher).Flush()
		select {
		case <-s.Done():
			x.heard = true
		case <-w.over:
		case <-x.node.stopping:
		}
	}
	io.WriteString(rw, handled)
}

package middleware_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-sessions/holdfast/idmanager"
	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// A model is what TestChaos knows: what browsers were told, and what the database has done.
// What came of a request that was answered by an error, or by nobody, it does not know.
type model struct {
	t     *testing.T
	start time.Time

	mu       sync.Mutex // guards what follows, and what is in it
	history  []*exchange
	answers  map[string]int // how many exchanges ended how
	sessions map[sessionstore.ID]*sessionModel
	counts   map[sessionstore.Key]*countModel
	// replaced are the secrets of before a login, if its answer was received.
	replaced map[sessionstore.SecretHash]ending
	// principals are who was stored under a secret, by application, "" while anonymous.
	principals map[sessionstore.SecretHash]map[string]string
	// removed counts the records of whose removal a node was told, and announced those of
	// whose end its listeners were.
	removed, announced map[part]int
}

// A part is a record. An application may have several under one key, one after the other.
type part struct {
	key     sessionstore.Key
	created time.Time
}

type sessionModel struct {
	mayEnd bool   // by a logout that was tried, or as one too many of its user
	ended  ending // by a logout whose answer was received
}

// A countModel is about the counter in one application's part of a session.
type countModel struct {
	tried   int                    // increments that handlers have made
	acked   []sessionstore.Version // those that were acknowledged, by the version that has them, 0 if unknown
	final   int                    // what listeners have read when the part ended
	unheard int                    // removals whose answer was lost, so that no listener hears of them
}

// An ending is when and where something ended. The zero ending has not taken place.
type ending struct {
	at   time.Time
	node *chaosNode
}

// binds reports whether a request must know of it: at once on the same node and if it asks
// the database, else when nobody has heard events for too long (P6).
func (e ending) binds(x *exchange) bool {
	return !e.at.IsZero() && x.sent.After(e.at) &&
		(x.fresh || x.node == e.node || x.sent.Sub(e.at) > idmanager.DefaultFeedTimeout)
}

func (m *model) session(id sessionstore.ID) *sessionModel {
	if m.sessions[id] == nil {
		m.sessions[id] = &sessionModel{}
	}
	return m.sessions[id]
}

func (m *model) count(key sessionstore.Key) *countModel {
	if m.counts[key] == nil {
		m.counts[key] = &countModel{}
	}
	return m.counts[key]
}

// failf reports the first broken promise, and all that was asked and said about a session.
func (m *model) failf(id sessionstore.ID, format string, args ...any) {
	if m.t.Failed() {
		return
	}
	var b strings.Builder
	for _, x := range m.history {
		if x.id == id || x.token.ID() == id || x.given.ID() == id {
			fmt.Fprintf(&b, "\n\t%v", x)
		}
	}
	m.t.Errorf(format+"\nabout session %v:%s", append(args, id, b.String())...)
}

// judge holds an answer against what is known, and learns from it.
func (m *model) judge(x *exchange, body string) {
	b, ok := x.browser, x.status == http.StatusOK
	if strings.Contains(body, handled) != ok {
		m.failf(x.id, "P1: an answer of status %d shows %q", x.status, body)
	}
	if e := m.replaced[x.given.SecretHash()]; !e.at.IsZero() && x.sent.Sub(e.at) > idmanager.DefaultFeedTimeout {
		m.failf(x.id, "P7: a secret is given that was replaced\n\t%v", x)
	}
	// A browser that has no cookie of the session, and asks while its login is on its way, may
	// get a session that takes the login's place, and so may the token do that a node sends
	// again because another is gone. No server can tell.
	again := x.given.SecretHash() == x.token.SecretHash() && x.sent.Before(b.loggedIn)
	if !x.past && x.op != "login" && !x.given.IsZero() && (x.token.ID() != b.id || again) {
		b.certain = false
	}
	if x.certain && b.certain && x.changes == b.changes && !m.session(b.id).mayEnd {
		switch {
		case !ok && x.status != http.StatusServiceUnavailable,
			ok && (!x.claimed || x.id != b.id || x.key.App == "shop" && x.principal != b.user):
			m.failf(b.id, "%s is logged in, and is not\n\t%v", b.user, x)
		}
	}
	if !ok {
		return
	}
	if x.claimed {
		m.judgeClaim(x)
	}
	switch x.op {
	case "add":
		c := m.count(x.key)
		c.acked = append(c.acked, x.now)
	case "save": // the first of the two is in an earlier version
		c := m.count(x.key)
		c.acked = append(c.acked, 0, x.now)
	case "login":
		if _, known := m.replaced[x.token.SecretHash()]; x.claimed && x.given.ID() == x.token.ID() && !known {
			m.replaced[x.token.SecretHash()] = ending{x.end, x.node}
		}
		// A login in the office says nothing of the shop, unless that is known already.
		if x.changes == b.changes && b.open == 0 && !x.given.IsZero() && (x.key.App == "shop" || x.given.ID() == b.id) {
			b.certain, b.id, b.loggedIn = true, x.given.ID(), x.end
		}
	case "logout":
		if s := m.session(x.id); x.claimed && s.ended.at.IsZero() {
			s.ended = ending{x.end, x.node}
		}
	}
}

// judgeClaim judges what a request has seen of a session that it was told is its client's.
func (m *model) judgeClaim(x *exchange) {
	if m.session(x.id).ended.binds(x) {
		m.failf(x.id, "P3, P6: a session that has ended is shown\n\t%v", x)
	}
	if m.replaced[x.token.SecretHash()].binds(x) {
		m.failf(x.id, "P6, P7: a secret of before a login is accepted\n\t%v", x)
	}
	if x.key.App == "office" { // its parts expire, and versions begin anew
		return
	}
	if x.version < x.told {
		m.failf(x.id, "P4: the client was told of a later version\n\t%v", x)
	}
	c := m.count(x.key)
	least, most := 0, c.tried
	for i, v := range c.acked {
		if v > 0 && v <= x.version || x.fresh && i < x.acked {
			least++
		} else if v > x.version {
			most--
		}
	}
	if x.count < least || x.count > most {
		m.failf(x.id, "P2, P4: the count must be %d to %d\n\t%v", least, most, x)
	}
}

// judgeEnd is called when all sessions have ended.
func (m *model) judgeEnd(log string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, c := range m.counts {
		if c.unheard == 0 && (c.final < len(c.acked) || c.final > c.tried) {
			m.failf(key.ID, "P1, P2: of %d to %d increments in %s, %d were there in the end", len(c.acked), c.tried, key.App, c.final)
		}
	}
	for p := range m.removed {
		if m.removed[p] != 1 || m.announced[p] != 1 {
			m.failf(p.key.ID, "P11: %v was removed %d times and announced %d times", p, m.removed[p], m.announced[p])
		}
	}
	if len(m.announced) != len(m.removed) {
		m.t.Errorf("P11: %d ends were announced, of %d", len(m.announced), len(m.removed))
	}
	for _, x := range m.history {
		if !x.token.IsZero() && strings.Contains(log, x.token.Reveal()[22:43]) { // before that is the ID
			m.failf(x.token.ID(), "P8: the secret is in the log")
		}
	}
}

// destroyed is a listener.
func (m *model) destroyed(_ context.Context, e sessionstore.SessionEvent) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, _ := visits.Get(e.Session)
	m.count(e.Info.Key).final += n
	m.announced[part{e.Info.Key, e.Info.CreatedAt}]++
}

// removes lets f remove records. Nobody has heard of that yet.
func (m *model) removes(f func() ([]*sessionstore.Record, error)) ([]*sessionstore.Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	removed, err := f()
	for _, rec := range removed {
		m.count(rec.Key).unheard++
	}
	return removed, err
}

// heard is called with the removals that a node was told of.
func (m *model) heard(removed []*sessionstore.Record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, rec := range removed {
		m.count(rec.Key).unheard--
		m.removed[part{rec.Key, rec.CreatedAt}]++
	}
}

// stores lets f store a record, and looks whether that puts a principal under a secret that
// existed while the session was anonymous or another's.
func (m *model) stores(rec *sessionstore.Record, cond sessionstore.Condition, f func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := f(); err != nil {
		return err
	}
	stored, known := m.principals[rec.SecretHash]
	switch {
	case !known: // a new secret, which the other applications' principals are bound to as well
		stored = make(map[string]string)
		maps.Copy(stored, m.principals[cond.SecretHash])
		m.principals[rec.SecretHash] = stored
	case rec.Principal != "" && rec.Principal != stored[rec.Key.App]:
		m.failf(rec.Key.ID, "P7: %q is stored in %s under a secret of before", rec.Principal, rec.Key.App)
	}
	stored[rec.Key.App] = rec.Principal
	return nil
}

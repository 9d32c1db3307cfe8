package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

// A visit is a session that is logged into and ended, and the cookies that opened it.
type visit struct {
	id    string
	user  string
	held  cookies // since the login
	early cookies // before it
	at    time.Duration
	ended bool // its end was acknowledged, at that time
	calm  bool // it was made to expire while no fault was injected
}

// A path by which visits end.
const (
	byLogout     = iota // of the session itself
	byRevocation        // from another device of the same user
	byForgetting        // not at all: it expires
	pathsOut
)

// visitors begin sessions, log in, end them and try the old cookies on every node,
// until ctx ends.
func (r *run) visitors(ctx context.Context) {
	rnd := r.random(r.serial.Add(1))
	for ctx.Err() == nil {
		r.visit(ctx, rnd)
		pause(ctx, time.Duration(rnd.Int64N(int64(2*think))))
	}
}

func (r *run) visit(ctx context.Context, rnd *rand.Rand) {
	c := newClient(false, nil)
	defer c.close()
	c.wait = 10 * time.Second
	v := &visit{user: fmt.Sprintf("visitor%d", r.serial.Add(1))}
	if !r.enter(ctx, c, v) {
		return
	}
	r.warm(ctx, c, v)

	by := r.members[rnd.IntN(len(r.members))]
	late := make(chan answer, 1)
	slow := r.members[rnd.IntN(len(r.members))]
	path := fmt.Sprintf("/api/attributes/late?delay=%dms", rnd.IntN(200))
	go func() { // a request in flight while the session ends
		other := newClient(false, nil)
		defer other.close()
		late <- r.ask(ctx, other, slow, put, "PUT", path, `"late"`, v.held)
	}()
	pause(ctx, time.Duration(rnd.Int64N(int64(50*time.Millisecond))))
	_, incarnation, _ := by.now()
	switch rnd.IntN(pathsOut) {
	case byLogout:
		v.ended = r.ask(ctx, c, by, put, "POST", "/api/logout", "", v.held).ok()
	case byRevocation:
		v.ended = r.revoke(ctx, c, by, v)
	case byForgetting:
		<-late
		r.mu.Lock()
		defer r.mu.Unlock()
		r.forgotten = append(r.forgotten, v)
		return
	}
	v.at = r.clock()
	if v.ended {
		r.tryOldCookies(ctx, v, by, incarnation)
	}
	<-late
	r.mu.Lock()
	defer r.mu.Unlock()
	r.visits = append(r.visits, v)
}

// enter begins a session, logs in, and wants the cookies from before to be worth
// nothing (P7).
func (r *run) enter(ctx context.Context, c *client, v *visit) bool {
	a := r.ask(ctx, c, nil, put, "PUT", "/api/attributes/a", `"here"`, v.held)
	if !a.ok() {
		return false
	}
	a.set.apply(&v.held)
	v.early = v.held
	// What a page loads while its user logs in.
	during := make(chan answer, 1)
	go func() {
		other := newClient(false, nil)
		defer other.close()
		during <- r.ask(ctx, other, nil, read, "GET", "/api/session", "", v.early)
	}()
	id, ok := r.login(ctx, c, nil, v.user, &v.held)
	v.id = id
	loggedIn := r.clock()
	a = <-during
	if !ok {
		return false
	}
	r.mu.Lock()
	r.logins++
	if a.set.token != nil && secret(*a.set.token) != secret(v.held.token) {
		r.exposed++ // had it been later, this browser would hold the cookie from before
	}
	if a.set.token != nil && a.ended > loggedIn && secret(*a.set.token) != secret(v.held.token) {
		r.undone++
	}
	r.mu.Unlock()
	for _, m := range r.members {
		if a := r.ask(ctx, c, m, read, "GET", "/api/session", "", v.early); a.ok() {
			if shown, err := a.view(); err != nil || shown.Principal != "" {
				r.violate("P7", v.id, "%s shows %q to who knows the cookies from before the login", m.name, shown.Principal)
			}
		}
	}
	return true
}

// secret is a token without its route.
func secret(token string) string {
	s, _, _ := strings.Cut(token, ".")
	return s
}

// warm lets every node keep a copy.
func (r *run) warm(ctx context.Context, c *client, v *visit) {
	for _, m := range r.members {
		if _, _, down := m.now(); !down {
			r.ask(ctx, c, m, read, "GET", "/api/session", "", v.held)
		}
	}
}

// revoke ends the visit's session from another device of its user.
func (r *run) revoke(ctx context.Context, c *client, by *member, v *visit) bool {
	other := &visit{user: v.user}
	var ok bool
	if other.id, ok = r.login(ctx, c, by, v.user, &other.held); !ok {
		return false
	}
	a := r.ask(ctx, c, by, put, "POST", "/api/logout-everywhere", "", other.held)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forgotten = append(r.forgotten, other)
	return a.ok()
}

// tryOldCookies presents the cookies of an ended session to every node until they
// are refused (P3, P6).
func (r *run) tryOldCookies(ctx context.Context, v *visit, by *member, incarnation int) {
	ctx = context.WithoutCancel(ctx)
	c := newClient(false, nil)
	defer c.close()
	c.wait = 3 * time.Second
	deadline := v.at + 2*r.staleness() + 5*time.Second
	waiting := make(map[*member]bool)
	for _, m := range r.members {
		waiting[m] = true
	}
	for len(waiting) > 0 && r.clock() < deadline {
		for _, m := range r.members {
			if !waiting[m] {
				continue
			}
			if _, _, down := m.now(); down {
				delete(waiting, m) // the last look, after all faults, is for all
				continue
			}
			_, before, _ := m.now()
			a := r.ask(ctx, c, m, read, "GET", "/api/session", "", v.held)
			if !a.ok() {
				continue
			}
			shown, err := a.view()
			switch {
			case err != nil:
				r.violate("P3", v.id, "%s answered %q: %v", m.name, a.body, err)
				delete(waiting, m)
			case shown.Principal == "" && shown.New:
				delete(waiting, m)
				if m != by {
					r.mu.Lock()
					r.delays = append(r.delays, a.ended-v.at)
					r.mu.Unlock()
				}
			case m == by && before == incarnation:
				r.violate("P3", v.id, "%s has ended the session and shows it %v later", m.name, a.began-v.at)
				delete(waiting, m)
			case a.began-v.at > r.staleness():
				r.violate("P6", v.id, "%s shows the session %v after its end", m.name, a.began-v.at)
				delete(waiting, m)
			}
		}
		pause(ctx, 5*time.Millisecond)
	}
	m := r.next()
	if a := r.ask(ctx, c, m, put, "PUT", "/api/attributes/a", `"revived"`, v.held); a.ok() && (a.set.token == nil || sameID(*a.set.token, v.held.token)) {
		r.violate("P3", v.id, "%s acknowledged a write into the ended session", m.name)
	}
}

// zombies begins sessions, sends requests that change them to a node that is about
// to be frozen, freezes it, and ends the sessions elsewhere. The function that it
// returns is to be called after the thaw, and wants the requests to have changed
// nothing (P3).
func (r *run) zombies(ctx context.Context, frozen *member) (func(), error) {
	const sessions = 4
	c := newClient(false, nil)
	defer c.close()
	other := r.next()
	if other == frozen {
		other = r.next()
	}
	var visits []*visit
	for range sessions {
		v := &visit{user: fmt.Sprintf("visitor%d", r.serial.Add(1))}
		if r.enter(ctx, c, v) {
			r.warm(ctx, c, v)
			visits = append(visits, v)
		}
	}
	const delay = 3 * time.Second // before the write
	answers := make([]chan answer, len(visits))
	began := r.clock()
	for i, v := range visits {
		answers[i] = make(chan answer, 1)
		go func() {
			slow := newClient(false, nil)
			defer slow.close()
			slow.wait = 2 * patience
			answers[i] <- r.ask(ctx, slow, frozen, put, "PUT", fmt.Sprintf("/api/attributes/late?delay=%v", delay), `"late"`, v.held)
		}()
	}
	pause(ctx, 300*time.Millisecond)
	err := frozen.freeze()
	inTime := r.clock()-began < delay-time.Second // nothing was written before the freeze
	var wg sync.WaitGroup
	for _, v := range visits {
		wg.Go(func() { // the frozen node may hold up the database, and so all of them
			c := newClient(false, nil)
			defer c.close()
			v.ended = r.ask(ctx, c, other, put, "POST", "/api/logout", "", v.held).ok()
			v.at = r.clock()
		})
	}
	wg.Wait()
	r.mu.Lock()
	r.visits = append(r.visits, visits...)
	r.mu.Unlock()
	return func() {
		for i, v := range visits {
			if a := <-answers[i]; inTime && v.ended && a.ok() && a.set.token == nil {
				r.violate("P3", v.id, "a write that was frozen in %s was acknowledged after its session had ended", frozen.name)
			}
		}
	}, err
}

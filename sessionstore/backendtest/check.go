package backendtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

const (
	idle     = 30 * time.Minute // of the records that session returns
	lifetime = 24 * time.Hour

	// subtestTimeout turns a deadlock into an error of the call that hangs.
	subtestTimeout = time.Minute

	// sweepSlack is how long after its expiry a record must be swept at the
	// latest: backends may index expiries rounded up to some minutes, so that a
	// touch changes no index.
	sweepSlack = 20 * time.Minute

	// maxSweeps bounds how often the suite believes that another call of
	// DeleteExpired is worthwhile; ten would do.
	maxSweeps = 200
)

// names counts up over all subtests, so that records which an earlier subtest
// left in the store never match a later one.
var names atomic.Int64

// A check is what a subtest works with: the testing.T, whose failures it makes
// cite the sentence, and the backend under test.
type check struct {
	*testing.T
	ctx       context.Context
	b, second sessionstore.Backend
	opts      Options
	cites     string
}

func newCheck(t *testing.T, opts Options, b, second sessionstore.Backend, cites string) *check {
	ctx, cancel := context.WithTimeout(t.Context(), subtestTimeout)
	t.Cleanup(cancel)
	return &check{T: t, ctx: ctx, b: b, second: second, opts: opts, cites: cites}
}

// Errorf reports a failure and the sentence it violates.
func (c *check) Errorf(format string, args ...any) {
	c.Helper()
	c.T.Errorf("%s\n\tThe specification says: %q", fmt.Sprintf(format, args...), c.cites)
}

// Fatalf is Errorf that ends the subtest.
func (c *check) Fatalf(format string, args ...any) {
	c.Helper()
	c.T.Fatalf("%s\n\tThe specification says: %q", fmt.Sprintf(format, args...), c.cites)
}

func (c *check) advance(d time.Duration) {
	c.Helper()
	c.opts.Advance(c.T, c.b, d)
}

// name returns a name that no other subtest uses.
func (c *check) name(prefix string) string { return fmt.Sprintf("%s-%d", prefix, names.Add(1)) }

func newID() sessionstore.ID { return sessionstore.ID(uuid.Must(uuid.NewV7())) }

func newHash() sessionstore.SecretHash {
	secret := uuid.New()
	return sha256.Sum256(secret[:])
}

// session returns a record of a new session, not yet stored.
func (c *check) session(app string) *sessionstore.Record {
	return c.part(app, newID(), newHash())
}

// part returns a record of app under an ID that others may share.
func (c *check) part(app string, id sessionstore.ID, hash sessionstore.SecretHash) *sessionstore.Record {
	rec := &sessionstore.Record{SecretHash: hash, Data: []byte("data of " + app)}
	rec.Key = sessionstore.Key{ID: id, App: app}
	rec.Node, rec.Idle, rec.Lifetime = "node1", idle, lifetime
	return rec
}

// create stores rec as a new session and returns what Load says about it.
func (c *check) create(rec *sessionstore.Record) *sessionstore.Record {
	c.Helper()
	if _, err := c.b.Create(c.ctx, rec, sessionstore.Condition{}); err != nil {
		c.Fatalf("Create of a new session returned %v", err)
	}
	return c.load(rec.Key)
}

// created stores a new session of app and returns what Load says about it.
func (c *check) created(app string) *sessionstore.Record {
	c.Helper()
	return c.create(c.session(app))
}

// join stores rec beside a sibling that proves its secret hash.
func (c *check) join(rec *sessionstore.Record) *sessionstore.Record {
	c.Helper()
	if _, err := c.b.Create(c.ctx, rec, sessionstore.Condition{SecretHash: rec.SecretHash}); err != nil {
		c.Fatalf("Create beside a sibling with the right secret hash returned %v", err)
	}
	return c.load(rec.Key)
}

// siblings stores one session with a record of each of n applications.
func (c *check) siblings(n int) []*sessionstore.Record {
	c.Helper()
	recs := []*sessionstore.Record{c.created(c.name("app"))}
	for range n - 1 {
		recs = append(recs, c.join(c.part(c.name("app"), recs[0].Key.ID, recs[0].SecretHash)))
	}
	return recs
}

// createAll stores many new sessions, some at a time: a database answers them
// faster that way.
func (c *check) createAll(recs []*sessionstore.Record) {
	c.Helper()
	const workers = 8
	c.parallel(workers, func(i int, b sessionstore.Backend) {
		for ; i < len(recs); i += workers {
			if _, err := b.Create(c.ctx, recs[i], sessionstore.Condition{}); err != nil {
				c.Errorf("Create of a new session returned %v", err)
			}
		}
	})
	if c.Failed() {
		c.FailNow()
	}
}

// load returns the record under key, which must be live.
func (c *check) load(key sessionstore.Key) *sessionstore.Record {
	c.Helper()
	rec, err := c.b.Load(c.ctx, key, 0)
	if err != nil {
		c.Fatalf("Load of a live record returned %v", err)
	}
	return rec
}

// update stores rec under the condition that its version and hash are rec's own.
func (c *check) update(rec *sessionstore.Record) *sessionstore.Record {
	c.Helper()
	if err := c.b.Update(c.ctx, rec, matching(rec)); err != nil {
		c.Fatalf("Update with the stored version and secret hash returned %v", err)
	}
	return c.load(rec.Key)
}

// matching is the condition that rec is still what is stored.
func matching(rec *sessionstore.Record) sessionstore.Condition {
	return sessionstore.Condition{Version: rec.Version, SecretHash: rec.SecretHash}
}

func (c *check) touch(touches ...sessionstore.Touch) {
	c.Helper()
	if err := c.b.Touch(c.ctx, touches); err != nil {
		c.Fatalf("Touch returned %v", err)
	}
}

func (c *check) delete(sel sessionstore.Selector) []*sessionstore.Record {
	c.Helper()
	removed, err := c.b.Delete(c.ctx, sel)
	if err != nil {
		c.Fatalf("Delete returned %v", err)
	}
	return removed
}

func (c *check) list(sel sessionstore.Selector) []sessionstore.Info {
	c.Helper()
	var infos []sessionstore.Info
	for info, err := range c.b.List(c.ctx, sel) {
		if err != nil {
			c.Fatalf("List yielded %v", err)
		}
		infos = append(infos, info)
	}
	return infos
}

// sweep calls DeleteExpired until it reports that no more is to be done.
func (c *check) sweep(sweep sessionstore.Sweep) []*sessionstore.Record {
	c.Helper()
	var all []*sessionstore.Record
	for range maxSweeps {
		removed, more, err := c.b.DeleteExpired(c.ctx, sweep)
		if err != nil {
			c.Fatalf("DeleteExpired returned %v", err)
		}
		all = append(all, removed...)
		if !more {
			return all
		}
	}
	c.Fatalf("DeleteExpired, called %d times, reports each time that another call is worthwhile", maxSweeps)
	return nil
}

// expect reports an error that is not the one a sentence promises.
func (c *check) expect(call string, err, want error) {
	c.Helper()
	if !errors.Is(err, want) {
		c.Errorf("%s returned %v, want %v", call, err, want)
	}
}

// expectGone reports a live record under key.
func (c *check) expectGone(key sessionstore.Key) {
	c.Helper()
	if _, err := c.b.Load(c.ctx, key, 0); !errors.Is(err, sessionstore.ErrNotFound) {
		c.Errorf("Load of %v returned %v, want %v", key, err, sessionstore.ErrNotFound)
	}
}

// expectNothing reports any live record under id.
func (c *check) expectNothing(id sessionstore.ID) {
	c.Helper()
	if infos := c.list(sessionstore.Selector{ID: id}); len(infos) > 0 {
		c.Errorf("%d records are live under the ID, want none", len(infos))
	}
}

// expectUnchanged reports a stored record that is no longer as it was.
func (c *check) expectUnchanged(was ...*sessionstore.Record) {
	c.Helper()
	for _, rec := range was {
		if diff := difference(c.load(rec.Key), rec); diff != "" {
			c.Errorf("stored record has changed: %s", diff)
		}
	}
}

// expectKeys reports records that are not exactly those with the wanted keys.
func (c *check) expectKeys(call string, got []sessionstore.Key, want ...sessionstore.Key) {
	c.Helper()
	times := make(map[sessionstore.Key]int)
	for _, key := range got {
		times[key]++
	}
	for _, key := range want {
		if times[key] == 0 {
			c.Errorf("%s lacks the record of %q under %s", call, key.App, key.ID)
		}
		times[key]--
	}
	for key, n := range times {
		if n > 0 {
			c.Errorf("%s has the record of %q under %s %d times too often", call, key.App, key.ID, n)
		}
	}
}

func keysOf(recs []*sessionstore.Record) []sessionstore.Key {
	var keys []sessionstore.Key
	for _, rec := range recs {
		keys = append(keys, rec.Key)
	}
	return keys
}

func keysOfInfos(infos []sessionstore.Info) []sessionstore.Key {
	var keys []sessionstore.Key
	for _, info := range infos {
		keys = append(keys, info.Key)
	}
	return keys
}

// difference names the first field in which two records differ; "" if none
// does. Now is no part of what is stored.
func difference(got, want *sessionstore.Record) string {
	if diff := infoDifference(got.Info, want.Info); diff != "" {
		return diff
	}
	if got.SecretHash != want.SecretHash {
		return "another SecretHash"
	}
	if !bytes.Equal(got.Data, want.Data) {
		return fmt.Sprintf("Data has %d bytes %.40q, want %d bytes %.40q", len(got.Data), got.Data, len(want.Data), want.Data)
	}
	return ""
}

func infoDifference(got, want sessionstore.Info) string {
	for _, t := range []struct {
		name      string
		got, want time.Time
	}{
		{"CreatedAt", got.CreatedAt, want.CreatedAt},
		{"AccessedAt", got.AccessedAt, want.AccessedAt},
		{"ExpiresAt", got.ExpiresAt, want.ExpiresAt},
	} {
		if !t.got.Equal(t.want) {
			return fmt.Sprintf("%s is %v, want %v", t.name, t.got, t.want)
		}
	}
	// Equal times may still be different values, in another location say.
	got.CreatedAt, got.AccessedAt, got.ExpiresAt = want.CreatedAt, want.AccessedAt, want.ExpiresAt
	if got != want {
		return fmt.Sprintf("%+v, want %+v", got, want)
	}
	return ""
}

// parallel calls f n times at once, with the two handles in turn.
func (c *check) parallel(n int, f func(i int, b sessionstore.Backend)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		b := c.b
		if i%2 == 1 {
			b = c.second
		}
		wg.Go(func() {
			<-start
			f(i, b)
		})
	}
	close(start)
	wg.Wait()
}

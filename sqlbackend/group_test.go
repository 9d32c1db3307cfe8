package sqlbackend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// A testCall records what becomes of it.
type testCall struct {
	app   string
	bytes int
	kept  bool
	err   error
}

func (c *testCall) key() sessionstore.Key { return sessionstore.Key{App: c.app} }
func (c *testCall) size() int             { return c.bytes }
func (c *testCall) keep()                 { c.kept = true }
func (c *testCall) fail(err error)        { c.err = err }

// An airport runs a grouper whose flights last until they are told to land, or until
// their context ends. It works in a synctest bubble.
type airport struct {
	*grouper[*testCall]
	mu      sync.Mutex // guards everything below
	groups  [][]string
	ended   []error
	landing chan struct{}
}

const testTimeout = 5 * time.Second

func newAirport(rows int) *airport {
	a := &airport{landing: make(chan struct{})}
	a.grouper = &grouper[*testCall]{rows: rows, timeout: testTimeout, run: a.fly}
	return a
}

func (a *airport) fly(ctx context.Context, calls []*testCall) {
	var apps []string
	for _, c := range calls {
		apps = append(apps, c.app)
	}
	slices.Sort(apps) // of those who wait equally long, any may lead
	a.mu.Lock()
	a.groups = append(a.groups, apps)
	a.mu.Unlock()
	select {
	case <-a.landing:
	case <-ctx.Done():
		for _, c := range calls {
			c.fail(ctx.Err())
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ended = append(a.ended, ctx.Err())
}

// call starts a call and returns where its error will be, once it waits or flies.
func (a *airport) call(ctx context.Context, app string, bytes int) <-chan error {
	result := make(chan error, 1)
	go func() {
		c := &testCall{app: app, bytes: bytes}
		if err := a.do(ctx, c); err != nil {
			result <- err
			return
		}
		result <- c.err
	}()
	synctest.Wait()
	return result
}

// land ends a flight.
func (a *airport) land() {
	a.landing <- struct{}{}
	synctest.Wait()
}

func (a *airport) expectGroups(t *testing.T, want ...string) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	var got []string
	for _, g := range a.groups {
		got = append(got, fmt.Sprint(g))
	}
	if !slices.Equal(got, want) {
		t.Errorf("groups were %v, want %v", got, want)
	}
}

// expectIdle reports what is left behind.
func (a *airport) expectIdle(t *testing.T) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.current != nil || a.overtaken != 0 || len(a.waiting) != 0 || a.waitingBytes != 0 {
		t.Errorf("at the end %d slow flights run and %d calls with %d bytes wait", a.overtaken, len(a.waiting), a.waitingBytes)
	}
}

func expectError(t *testing.T, what string, result <-chan error, want error) {
	t.Helper()
	select {
	case err := <-result:
		if !errors.Is(err, want) {
			t.Errorf("%s returned %v, want %v", what, err, want)
		}
	default:
		t.Errorf("%s has not returned", what)
	}
}

func TestALoneCallDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAirport(10)
		start := time.Now()
		for range 3 {
			result := a.call(t.Context(), "a", 1)
			a.land()
			expectError(t, "a lone call", result, nil)
		}
		if waited := time.Since(start); waited != 0 {
			t.Errorf("lone calls waited %s", waited)
		}
		a.expectGroups(t, "[a]", "[a]", "[a]")
		a.expectIdle(t)
	})
}

func TestCallsGatherBehindAFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAirport(10)
		var results []<-chan error
		for _, app := range []string{"0", "a", "b", "c"} {
			results = append(results, a.call(t.Context(), app, 1))
		}
		a.expectGroups(t, "[0]")
		a.land() // the lead is handed on
		results = append(results, a.call(t.Context(), "d", 1))
		a.expectGroups(t, "[0]", "[a b c]")
		a.land()
		a.land()
		a.expectGroups(t, "[0]", "[a b c]", "[d]")
		for _, r := range results {
			expectError(t, "a call", r, nil)
		}
		if got := a.count(); got != (GroupCount{3, 5}) {
			t.Errorf("counted %+v", got)
		}
		a.expectIdle(t)
	})
}

func TestASlowFlightIsOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAirport(10)
		results := []<-chan error{a.call(t.Context(), "0", 1)}
		want := []string{"[0]"}
		for i := range maxOvertaken {
			for _, app := range []string{"a", "b"} {
				results = append(results, a.call(t.Context(), fmt.Sprint(app, i), 1))
			}
			a.expectGroups(t, want...)
			time.Sleep(patience)
			synctest.Wait()
			want = append(want, fmt.Sprintf("[a%d b%d]", i, i))
			a.expectGroups(t, want...)
		}
		results = append(results, a.call(t.Context(), "c", 1))
		time.Sleep(testTimeout / 2)
		a.expectGroups(t, want...)
		for range want {
			a.land() // in any order
		}
		a.expectGroups(t, append(want, "[c]")...)
		a.land()
		for _, r := range results {
			expectError(t, "a call", r, nil)
		}
		a.expectIdle(t)
	})
}

// Whoever would make a crowd complete does not wait, if only one flight is under way and
// is no larger, and flights may run side by side at all.
func TestACrowdDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAirport(3 * crowd)
		var results []<-chan error
		calls := func(n int) {
			for range n {
				results = append(results, a.call(t.Context(), fmt.Sprint(len(results)), 1))
			}
		}
		expectSizes := func(want ...int) {
			t.Helper()
			var got []int
			for _, g := range a.groups {
				got = append(got, len(g))
			}
			if !slices.Equal(got, want) {
				t.Errorf("groups have sizes %v, want %v", got, want)
			}
		}
		calls(1 + 2*crowd)
		expectSizes(1)
		a.land()
		expectSizes(1, 2*crowd)

		a.sideBySide = true
		calls(2*crowd - 1)
		expectSizes(1, 2*crowd)
		calls(1)
		expectSizes(1, 2*crowd, 2*crowd)
		calls(3 * crowd) // no third
		expectSizes(1, 2*crowd, 2*crowd)
		a.land() // either
		a.land()
		expectSizes(1, 2*crowd, 2*crowd, 3*crowd)
		a.land()

		calls(crowd)
		expectSizes(1, 2*crowd, 2*crowd, 3*crowd, 1)
		calls(1)
		expectSizes(1, 2*crowd, 2*crowd, 3*crowd, 1, crowd)
		a.land()
		a.land()
		for _, r := range results {
			expectError(t, "a call", r, nil)
		}
		a.expectIdle(t)
	})
}

// A leader that has not woken up yet does not lose its companions to a caller that comes
// back at once.
func TestNoCrowdOvertakesALeaderElect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAirport(3 * crowd)
		go func() {
			a.do(t.Context(), &testCall{app: "first"})
			a.do(t.Context(), &testCall{app: "again"})
		}()
		synctest.Wait()
		for i := range crowd {
			a.call(t.Context(), fmt.Sprint(i), 1)
		}
		a.sideBySide = true
		a.land()
		if n := len(a.groups[1]); len(a.groups) != 2 || n < crowd {
			t.Errorf("after the first of %d groups, the second has %d calls, want all that waited", len(a.groups), n)
		}
		for len(a.ended) < len(a.groups) {
			a.land()
		}
		a.expectIdle(t)
	})
}

// While a crowd follows on the other, one that is too large for company has its turn too.
func TestCrowdsDoNotKeepOutALargeCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAirport(3 * crowd)
		a.sideBySide = true
		var results []<-chan error
		calls := func(n int) {
			for range n {
				results = append(results, a.call(t.Context(), fmt.Sprint(len(results)), 1))
			}
		}
		calls(1)
		large := a.call(t.Context(), "large", groupBytes)
		for range 5 {
			calls(crowd)
			a.land()
		}
		expectError(t, "the large call", large, nil)
		for len(a.ended) < len(a.groups) {
			a.land()
		}
		for _, r := range results {
			expectError(t, "a call", r, nil)
		}
		a.expectIdle(t)
	})
}

func TestGroupsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAirport(3)
		results := []<-chan error{a.call(t.Context(), "0", 1)}
		for _, app := range []string{"a", "b", "c", "d"} {
			results = append(results, a.call(t.Context(), app, 1))
		}
		results = append(results, a.call(t.Context(), "big", groupBytes), a.call(t.Context(), "small", 1))
		for range 4 {
			a.land()
		}
		// A call that does not fit is passed over once and then is first.
		a.expectGroups(t, "[0]", "[a b c]", "[d small]", "[big]")
		for _, r := range results {
			expectError(t, "a call", r, nil)
		}
		a.expectIdle(t)
	})
}

func TestAKeyTravelsOncePerGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAirport(10)
		var results []<-chan error
		for _, app := range []string{"0", "a", "b", "a", "a", "c"} {
			results = append(results, a.call(t.Context(), app, 1))
		}
		for range 4 {
			a.land()
		}
		a.expectGroups(t, "[0]", "[a b c]", "[a]", "[a]")
		for _, r := range results {
			expectError(t, "a call", r, nil)
		}
		a.expectIdle(t)
	})
}

func TestACallThatWaitsLeavesWhenItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAirport(10)
		ctx, cancel := context.WithCancel(t.Context())
		a.call(t.Context(), "0", 1)
		first, second := a.call(ctx, "a", 1), a.call(t.Context(), "b", 1)
		cancel()
		synctest.Wait()
		expectError(t, "the cancelled call", first, context.Canceled)
		a.land()
		a.expectGroups(t, "[0]", "[b]")
		a.land()
		expectError(t, "the other", second, nil)
		expectError(t, "a call whose context has ended", a.call(ctx, "c", 1), context.Canceled)
		a.expectIdle(t)
	})
}

func TestACancelledCallDoesNotCancelItsCompanions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAirport(10)
		leads, stopLeader := context.WithCancel(t.Context())
		travels, stopCompanion := context.WithCancel(t.Context())
		a.call(t.Context(), "0", 1)
		leader, companion, other := a.call(leads, "a", 1), a.call(travels, "b", 1), a.call(t.Context(), "c", 1)
		a.land()
		stopLeader()
		stopCompanion()
		synctest.Wait()
		expectError(t, "the companion", companion, context.Canceled)
		select {
		case err := <-leader:
			t.Errorf("the leader has left its companion with %v", err)
		default:
		}
		a.land()
		expectError(t, "the leader", leader, nil)
		expectError(t, "the other companion", other, nil)
		a.expectGroups(t, "[0]", "[a b c]")
		a.expectIdle(t)
	})
}

func TestAFlightEndsWhenAllHaveGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAirport(10)
		ctx, cancel := context.WithCancel(t.Context())
		a.call(t.Context(), "0", 1)
		leader, companion := a.call(ctx, "a", 1), a.call(ctx, "b", 1)
		a.land()
		cancel()
		synctest.Wait()
		expectError(t, "the leader", leader, context.Canceled)
		expectError(t, "the companion", companion, context.Canceled)
		a.expectIdle(t)

		ctx, cancel = context.WithCancel(t.Context())
		alone := a.call(ctx, "c", 1)
		cancel()
		synctest.Wait()
		expectError(t, "a lone call", alone, context.Canceled)
		a.expectIdle(t)
	})
}

func TestALeaderElectMayHaveGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 50 { // either may come first
			a := newAirport(10)
			ctx, cancel := context.WithCancel(t.Context())
			a.call(t.Context(), "0", 1)
			elect, other := a.call(ctx, "a", 1), a.call(t.Context(), "b", 1)
			go cancel()
			a.landing <- struct{}{}
			synctest.Wait()
			select {
			case err := <-other: // the elect led after all, alone
				if err != nil {
					t.Errorf("the other returned %v", err)
				}
			default:
				a.land()
				expectError(t, "the other", other, nil)
			}
			select {
			case err := <-elect:
				if err != nil && !errors.Is(err, context.Canceled) {
					t.Errorf("the elect returned %v", err)
				}
			default:
				t.Error("the elect has not returned")
			}
			a.expectIdle(t)
		}
	})
}

func TestCallsTimeOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAirport(2)
		for i := range maxOvertaken + 1 { // as many as fly at once, for ever
			a.call(t.Context(), fmt.Sprint(i), 1)
			time.Sleep(patience)
			synctest.Wait()
		}
		for _, want := range []error{ErrBusy, context.DeadlineExceeded} {
			waits := a.call(t.Context(), "a", 1)
			time.Sleep(testTimeout - 1)
			synctest.Wait()
			if len(waits) > 0 {
				t.Errorf("a call has timed out too early")
			}
			time.Sleep(patience)
			synctest.Wait()
			expectError(t, "a call without a turn", waits, want)
		}
		waits, travels := a.call(t.Context(), "a", 1), a.call(t.Context(), "b", 1)
		time.Sleep(testTimeout - 1)
		for range maxOvertaken + 1 {
			a.land()
		}
		time.Sleep(testTimeout - 1) // of the flight, after that of waiting
		synctest.Wait()
		if len(waits)+len(travels) > 0 {
			t.Errorf("a flight has timed out too early")
		}
		time.Sleep(patience)
		synctest.Wait()
		expectError(t, "the leader", waits, context.DeadlineExceeded)
		expectError(t, "the companion", travels, context.DeadlineExceeded)
		a.expectIdle(t)
	})
}

func TestTheQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAirport(2)
		a.call(t.Context(), "0", 1)
		var results []<-chan error
		for i := range 2 * queuedGroups {
			results = append(results, a.call(t.Context(), fmt.Sprint("a", i), 1))
		}
		expectError(t, "one call too many", a.call(t.Context(), "b", 1), ErrBusy)
		for range 1 + queuedGroups {
			a.land()
		}
		for _, r := range results {
			expectError(t, "a call", r, nil)
		}
		a.call(t.Context(), "0", 1)
		for i := range queuedGroups {
			results[i] = a.call(t.Context(), fmt.Sprint("c", i), groupBytes)
		}
		expectError(t, "one byte too many", a.call(t.Context(), "d", 1), ErrBusy)
		for range 1 + queuedGroups {
			a.land()
		}
		for _, r := range results[:queuedGroups] {
			expectError(t, "a call", r, nil)
		}
		a.expectIdle(t)
	})
}

func TestAPanicIsTheLeadersAndIsHandedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAirport(2)
		a.call(t.Context(), "0", 1)
		run := a.run
		a.run = func(ctx context.Context, calls []*testCall) {
			if calls[0].app == "a" {
				panic("in run")
			}
			run(ctx, calls)
		}
		panicked := make(chan any, 1)
		go func() {
			defer func() { panicked <- recover() }()
			a.do(t.Context(), &testCall{app: "a"})
		}()
		synctest.Wait()
		companion, next := a.call(t.Context(), "b", 1), a.call(t.Context(), "c", 1)
		a.land()
		if got := <-panicked; got != "in run" {
			t.Errorf("the leader's panic was %v", got)
		}
		expectError(t, "the companion", companion, errAbandoned)
		a.land()
		expectError(t, "the next", next, nil)
		a.expectIdle(t)
	})
}

func TestCallsThatWaitKeepTheirData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAirport(2)
		first, second := &testCall{app: "a"}, &testCall{app: "b"}
		go a.do(t.Context(), first)
		synctest.Wait()
		go a.do(t.Context(), second)
		synctest.Wait()
		a.land()
		a.land()
		if first.kept || !second.kept {
			t.Errorf("the first call's data were copied: %t, and the second's: %t", first.kept, second.kept)
		}
	})
}

func TestOnlyTheRefusedCallFails(t *testing.T) {
	refusal, lost := errors.New("refused"), errors.New("connection lost")
	for poison := range 9 {
		calls := make([]*testCall, 8)
		for i := range calls {
			calls[i] = &testCall{app: fmt.Sprint(i), err: errors.New("has no result")}
		}
		runs := 0
		together(t.Context(), calls, func(some []*testCall) error {
			runs++
			if poison < len(calls) && slices.Contains(some, calls[poison]) {
				return refusal
			}
			for _, c := range some {
				c.err = nil
			}
			return nil
		}, func(err error) bool { return err == refusal })
		for i, c := range calls {
			if want := i == poison; (c.err == refusal) != want || !want && c.err != nil {
				t.Errorf("call %d has %v, the poison is %d", i, c.err, poison)
			}
		}
		if runs > 7 { // 3 halvings, each with a healthy half, after the whole
			t.Errorf("%d runs", runs)
		}
	}
	calls, runs := []*testCall{{}, {}}, 0
	together(t.Context(), calls, func([]*testCall) error { runs++; return lost }, func(err error) bool { return err == refusal })
	if runs != 1 || calls[0].err != lost || calls[1].err != lost {
		t.Errorf("after an unknown outcome: %d runs, errors %v and %v", runs, calls[0].err, calls[1].err)
	}
}

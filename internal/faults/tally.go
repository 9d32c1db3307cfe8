package faults

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Phase is the time during which one fault was injected, held and healed, with
// what clients saw through the balancer.
type Phase struct {
	Fault     string
	Began     time.Duration // since the run began
	Ended     time.Duration
	Requests  int
	Errors    map[string]int // by kind
	Writes    int            // acknowledged
	Reads     int
	Cached    int           // reads answered by a copy
	Gap       time.Duration // the longest time without a successful request
	Recovered time.Duration // from the end of the fault until every node stores again
	Sessions  int           // whose histories were checked
	Lost      int64         // acknowledged writes that are gone
	Problem   string        // why the fault was not injected as it should
}

// Failed is how many requests failed, without those whose clients gave up.
func (p *Phase) Failed() int {
	n := 0
	for kind, k := range p.Errors {
		if kind != gaveUp {
			n += k
		}
	}
	return n
}

func (p *Phase) errorText() string {
	if len(p.Errors) == 0 {
		return "0"
	}
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(p.Errors)) {
		parts = append(parts, fmt.Sprintf("%d× %s", p.Errors[kind], kind))
	}
	return strings.Join(parts, ", ")
}

// A tally counts, phase by phase. It is safe for concurrent use.
type tally struct {
	mu      sync.Mutex // guards what follows
	phases  []*Phase
	success time.Duration // when a request last succeeded
}

// begin begins a phase and ends the one before.
func (t *tally) begin(fault string, now time.Duration) *Phase {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.endLocked(now)
	p := &Phase{Fault: fault, Began: now, Errors: make(map[string]int)}
	t.phases = append(t.phases, p)
	t.success = now
	return p
}

func (t *tally) end(now time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.endLocked(now)
}

func (t *tally) endLocked(now time.Duration) {
	if n := len(t.phases); n > 0 && t.phases[n-1].Ended == 0 {
		t.gapLocked(t.phases[n-1], now)
		t.phases[n-1].Ended = now
	}
}

func (t *tally) gapLocked(p *Phase, now time.Duration) {
	p.Gap = max(p.Gap, now-t.success)
	t.success = max(t.success, now)
}

// count counts a request that went through the balancer, for the phase in which it
// ended: that is when its client saw an error, or none.
func (t *tally) count(act action, a answer, cached bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.phases[len(t.phases)-1]
	p.Requests++
	if kind := a.kind(); kind != "" {
		p.Errors[kind]++
		return
	}
	t.gapLocked(p, a.ended)
	switch {
	case act != read:
		p.Writes++
	case cached:
		p.Cached++
		fallthrough
	default:
		p.Reads++
	}
}

// during returns the phases that overlap a time.
func (t *tally) during(from, to time.Duration) (phases []*Phase) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.phases {
		if p.Began < to && (p.Ended == 0 || p.Ended > from) {
			phases = append(phases, p)
		}
	}
	return phases
}

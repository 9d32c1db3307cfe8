package faults

import (
	"sync"
	"time"
)

// An action is what a request did to a session.
type action int

const (
	read action = iota // GET of the whole session
	put                // PUT of an attribute, a value that no other request writes
	add                // POST to a counter
)

func (a action) String() string { return [...]string{"read", "put", "add"}[a] }

// An outcome is what a client knows about its request afterwards.
type outcome int

const (
	done    outcome = iota // acknowledged
	undone                 // refused: certainly without effect
	unknown                // an error that says nothing: it may have had its effect, or have it yet
)

func (o outcome) String() string { return [...]string{"done", "undone", "unknown"}[o] }

// A state is what a read shows of a session: its attributes.
type state struct {
	registers map[string]string
	counters  map[string]int64
}

// An op is one request, as its client saw it. Times are since the run began.
type op struct {
	client    int
	action    action
	name      string // of the attribute; "" of a read
	value     string // written by put
	counted   int64  // returned to add
	state     state  // returned to read
	call, end time.Duration
	outcome   outcome
	told      int64 // the version that the request presented, 0 if none
	seen      int64 // the version that the answer was about, 0 if not known
	node      string
}

// A history is all that clients did to one session. It is safe for concurrent use.
type history struct {
	id   string
	kind string // of the browser
	// overtaken says that the browser may present less than it was told: its
	// responses are applied in any order, or its cookies are held by two devices.
	// A read may then be as old as what it presented.
	overtaken bool
	start     int64 // the version that the session's beginning left, its login included

	mu   sync.Mutex // guards what follows
	ops  []op
	gone bool // some node no longer knew the session
}

func (h *history) vanish() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gone = true
}

func (h *history) record(o op) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, o)
}

// unknowns is how many writes had an unknown outcome so far. Each doubles what
// checking costs at worst, so that browsers move on to a new session after a few.
func (h *history) unknowns() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, o := range h.ops {
		if o.action != read && o.outcome == unknown {
			n++
		}
	}
	return n
}

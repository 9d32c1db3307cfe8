package faults

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// checkTimeout bounds the check of one attribute of one session, which takes
// milliseconds unless too many outcomes are unknown.
const checkTimeout = 30 * time.Second

// A violation is a promise broken.
type violation struct {
	Promise string // P1 and so on
	Session string
	At      time.Duration // since the run began
	Text    string
}

func (v violation) String() string {
	return fmt.Sprintf("%s: session %s, at %v: %s", v.Promise, v.Session, v.At.Round(time.Millisecond), v.Text)
}

// check returns what the history of a session breaks. strict says that the nodes
// confirm each read with the database.
func (h *history) check(strict bool) []violation {
	h.mu.Lock()
	defer h.mu.Unlock()
	var found []violation
	fail := func(promise string, at time.Duration, format string, args ...any) {
		found = append(found, violation{promise, h.id, at, h.kind + ": " + fmt.Sprintf(format, args...)})
	}
	registers, counters := make(map[string]bool), make(map[string]bool)
	for _, o := range h.ops {
		if o.outcome == done && o.seen < o.told {
			fail("P4", o.end, "%v was told of version %d and saw %d, on %s", o.action, o.told, o.seen, o.node)
		}
		switch o.action {
		case put:
			registers[o.name] = true
		case add:
			counters[o.name] = true
		}
	}
	if text := h.versions(); text != "" {
		fail("P4", h.ops[len(h.ops)-1].end, "%s", text)
	}
	for name := range registers {
		if text := linearizable(registerModel, h.registerOps(name, strict)); text != "" {
			fail("P2", h.ops[len(h.ops)-1].end, "register %q: %s", name, text)
		}
	}
	for name := range counters {
		if text := linearizable(counterModel, h.counterOps(name, strict)); text != "" {
			fail("P2", h.ops[len(h.ops)-1].end, "counter %q: %s", name, text)
		}
		acknowledged, possible := h.increments(name)
		for _, o := range h.ops {
			// The last reads begin after everything else has ended.
			if o.action != read || o.outcome != done || o.told != 0 || !h.isLast(o) {
				continue
			}
			switch n := o.state.counters[name]; {
			case n < acknowledged:
				fail("P1", o.end, "counter %q is %d on %s after %d acknowledged increments", name, n, o.node, acknowledged)
			case n > possible:
				fail("P2", o.end, "counter %q is %d on %s after at most %d increments", name, n, o.node, possible)
			}
		}
	}
	if len(found) > 0 {
		found[0].Text += h.text(strict)
	}
	return found
}

// versions returns "" if each version is one state: all reads of it show the same,
// and what those left who wrote it. Some may have written it together.
func (h *history) versions() string {
	states := make(map[int64]state)
	for _, o := range h.ops {
		if o.action != read || o.outcome != done {
			continue
		}
		if other, ok := states[o.seen]; ok && (!maps.Equal(other.registers, o.state.registers) || !maps.Equal(other.counters, o.state.counters)) {
			return fmt.Sprintf("version %d was shown as %v and as %v", o.seen, other, o.state)
		}
		states[o.seen] = o.state
	}
	type place struct {
		version int64
		name    string
	}
	written, counted := make(map[place][]string), make(map[place]int64)
	for _, o := range h.ops {
		switch at := (place{o.seen, o.name}); {
		case o.outcome != done:
		case o.action == put:
			written[at] = append(written[at], o.value)
		case o.action == add:
			counted[at] = max(counted[at], o.counted)
		}
	}
	for at, values := range written {
		for _, o := range h.ops { // values of writes that travelled with them
			if o.action == put && o.outcome == unknown && o.name == at.name {
				values = append(values, o.value)
			}
		}
		if s, ok := states[at.version]; ok && !slices.Contains(values, s.registers[at.name]) {
			return fmt.Sprintf("register %q was written as %v with version %d, which shows %q", at.name, values, at.version, s.registers[at.name])
		}
	}
	for at, n := range counted {
		if s, ok := states[at.version]; ok && s.counters[at.name] < n {
			return fmt.Sprintf("counter %q was raised to %d with version %d, which shows %d", at.name, n, at.version, s.counters[at.name])
		}
	}
	return ""
}

// text lists all requests of the history, in the order of their calls.
func (h *history) text(strict bool) string {
	ops := slices.Clone(h.ops)
	slices.SortFunc(ops, func(a, b op) int { return cmp.Compare(a.call, b.call) })
	text := "\n\tall requests of the session, with the version presented and the one shown:"
	for _, o := range ops {
		text += fmt.Sprintf("\n\t%10.1f to %10.1f ms (as if from %10.1f) %v %s %s told %d seen %d %s", milliseconds(o.call), milliseconds(o.end),
			milliseconds(h.earliest(o, strict)), o.outcome, o.action, o.name, o.told, o.seen, o.node)
		switch o.action {
		case put:
			text += " " + o.value
		case add:
			text += fmt.Sprintf(" now %d", o.counted)
		case read:
			text += fmt.Sprint(" ", o.state.registers, o.state.counters)
		}
	}
	return text
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// isLast reports whether o began after every acknowledged write had ended.
func (h *history) isLast(o op) bool {
	return !slices.ContainsFunc(h.ops, func(w op) bool {
		return w.action != read && w.outcome == done && w.end > o.call
	})
}

// increments returns how often a counter was raised at least and at most.
func (h *history) increments(name string) (acknowledged, possible int64) {
	for _, o := range h.ops {
		if o.action != add || o.name != name {
			continue
		}
		switch o.outcome {
		case done:
			acknowledged++
			possible++
		case unknown:
			possible++
		}
	}
	return acknowledged, possible
}

// lost returns how many acknowledged writes are gone: increments that the last reads
// miss, or all if the session is.
func (h *history) lost() (lost int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.gone {
		for _, o := range h.ops {
			if o.action != read && o.outcome == done {
				lost++
			}
		}
		return lost
	}
	for _, o := range h.ops {
		if o.action == read && o.outcome == done && o.told == 0 && h.isLast(o) {
			for _, w := range h.ops {
				if w.action == add {
					acknowledged, _ := h.increments(w.name)
					lost = max(lost, acknowledged-o.state.counters[w.name])
				}
			}
		}
	}
	return lost
}

// An input is what a request does to one attribute.
type input struct {
	write bool
	value string // of a register
}

// linearizable returns "" if the operations have an order that explains what all
// were answered and keeps to the times of their calls and ends. An operation of
// unknown outcome never ends: put at the end of the order, it has no effect on
// anybody.
func linearizable(model porcupine.Model, ops []porcupine.Operation) string {
	switch porcupine.CheckOperationsTimeout(model, ops, checkTimeout) {
	case porcupine.Ok:
		return ""
	case porcupine.Illegal:
		return fmt.Sprintf("no order of the %d requests explains their answers%s", len(ops), describe(model, ops))
	default:
		return fmt.Sprintf("%d requests could not be checked within %v; let browsers move on to a new session sooner", len(ops), checkTimeout)
	}
}

// describe lists operations in the order of their calls.
func describe(model porcupine.Model, ops []porcupine.Operation) string {
	ops = slices.Clone(ops)
	slices.SortFunc(ops, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	text := ""
	for _, o := range ops {
		end := "?"
		if o.Return != math.MaxInt64 {
			end = time.Duration(o.Return).Round(100 * time.Microsecond).String()
		}
		text += fmt.Sprintf("\n\t%12v to %-12v client %-3d %s", time.Duration(o.Call).Round(100*time.Microsecond), end,
			o.ClientId, model.DescribeOperation(o.Input, o.Output))
	}
	return text
}

// A register's state is its value, "" if it is not set.
var registerModel = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, in, out any) (bool, any) {
		if i := in.(input); i.write {
			return true, i.value
		}
		return state == out, state
	},
	DescribeOperation: func(in, out any) string {
		if i := in.(input); i.write {
			return "put " + i.value
		}
		return fmt.Sprintf("read %v", out)
	},
}

// A counter's state is its value. Who adds is told the outcome, or nil if nothing.
var counterModel = porcupine.Model{
	Init: func() any { return int64(0) },
	Step: func(state, in, out any) (bool, any) {
		n := state.(int64)
		if in.(input).write {
			return out == nil || out == n+1, n + 1
		}
		return out == n, n
	},
	DescribeOperation: func(in, out any) string {
		switch {
		case !in.(input).write:
			return fmt.Sprintf("read %v", out)
		case out == nil:
			return "add, unknown"
		}
		return fmt.Sprintf("add, now %v", out)
	},
}

func (h *history) registerOps(name string, strict bool) []porcupine.Operation {
	observed := make(map[string]bool)
	for _, o := range h.ops {
		if o.action == read && o.outcome == done {
			observed[o.state.registers[name]] = true
		}
	}
	var ops []porcupine.Operation
	for _, o := range h.ops {
		p := porcupine.Operation{ClientId: o.client, Call: int64(o.call), Return: int64(o.end)}
		switch {
		case o.outcome == undone:
			continue
		case o.action == put && o.name == name:
			if o.outcome == unknown {
				if !observed[o.value] {
					continue // values are unique: nobody's answer depends on this one
				}
				p.Return = math.MaxInt64
			}
			p.Input = input{write: true, value: o.value}
		case o.action == read && o.outcome == done:
			p.Call = int64(h.earliest(o, strict))
			p.Input, p.Output = input{}, o.state.registers[name]
		default:
			continue
		}
		ops = append(ops, p)
	}
	return ops
}

func (h *history) counterOps(name string, strict bool) []porcupine.Operation {
	var ops []porcupine.Operation
	for _, o := range h.ops {
		p := porcupine.Operation{ClientId: o.client, Call: int64(o.call), Return: int64(o.end)}
		switch {
		case o.outcome == undone:
			continue
		case o.action == add && o.name == name:
			p.Input = input{write: true}
			if o.outcome == unknown {
				p.Return = math.MaxInt64
			} else {
				p.Output = o.counted
			}
		case o.action == read && o.outcome == done:
			p.Call = int64(h.earliest(o, strict))
			p.Input, p.Output = input{}, o.state.counters[name]
		default:
			continue
		}
		ops = append(ops, p)
	}
	return ops
}

// earliest returns from when on the state that a read has shown may have been the
// newest. With Strict freshness, for a browser that presents what it was told, and
// for a request that presents no version, that is the read's own call:
// linearizability. Otherwise it is told at least the version it presents (P4), and
// may be shown that, however much has been written since by requests whose
// responses it has not seen: then the state is one that was current at some time
// since the call of the request that wrote the version shown.
func (h *history) earliest(o op, strict bool) time.Duration {
	if strict || !h.overtaken || o.told == 0 {
		return o.call
	}
	earliest, doubtful := o.call, o.call
	known := false
	for _, w := range h.ops {
		switch {
		case w.action == read || w.outcome == undone:
		case w.outcome == unknown:
			doubtful = min(doubtful, w.call)
		case w.seen == o.seen:
			known = true
			earliest = min(earliest, w.call)
		}
	}
	if !known { // it was written by one whose answer got lost, or when the session began
		if o.seen <= h.start {
			return h.ops[0].call
		}
		return doubtful
	}
	return earliest
}

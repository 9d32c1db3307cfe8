package faults

import (
	"strings"
	"testing"
	"time"
)

// at builds a request that lasts from call to end, in milliseconds.
func at(call, end int, o op) op {
	o.call, o.end = time.Duration(call)*time.Millisecond, time.Duration(end)*time.Millisecond
	return o
}

func shows(a string, n int64) state {
	s := state{registers: map[string]string{}, counters: map[string]int64{}}
	if a != "" {
		s.registers["a"] = a
	}
	if n != 0 {
		s.counters["n"] = n
	}
	return s
}

// TestCheck gives the checks histories in which each promise is kept or broken.
func TestCheck(t *testing.T) {
	write := func(value string, told, seen int64, out outcome) op {
		return op{action: put, name: "a", value: value, told: told, seen: seen, outcome: out}
	}
	count := func(n, told, seen int64, out outcome) op {
		return op{action: add, name: "n", counted: n, told: told, seen: seen, outcome: out}
	}
	see := func(a string, n, told, seen int64) op {
		return op{action: read, state: shows(a, n), told: told, seen: seen}
	}
	first := at(0, 1, write("v1", 0, 1, done))
	for name, test := range map[string]struct {
		overtaken, strict bool
		ops               []op
		want              string // the promise broken, "" for none
	}{
		"all in order": {ops: []op{first, at(2, 3, write("v2", 1, 2, done)), at(4, 5, see("v2", 0, 2, 2)),
			at(6, 7, count(1, 2, 3, done)), at(8, 9, see("v2", 1, 0, 3))}},
		"a lost write": {ops: []op{first, at(2, 3, write("v2", 1, 2, done)), at(4, 5, see("v1", 0, 2, 2))}, want: "P2"},
		"a lost increment": {ops: []op{first, at(2, 3, count(1, 1, 2, done)), at(4, 5, count(2, 2, 3, done)),
			at(6, 7, see("v1", 1, 0, 4))}, want: "P1"},
		"an increment counted twice":        {ops: []op{first, at(2, 3, count(1, 1, 2, done)), at(6, 7, see("v1", 2, 0, 3))}, want: "P2"},
		"two increments that read the same": {ops: []op{first, at(2, 9, count(1, 1, 2, done)), at(3, 8, count(1, 1, 3, done))}, want: "P2"},
		"older than told":                   {ops: []op{first, at(4, 5, see("v1", 0, 2, 1))}, want: "P4"},
		"reads that go back": {ops: []op{first, at(2, 9, write("v2", 1, 2, done)), at(3, 4, see("v2", 0, 1, 2)),
			at(5, 6, see("v1", 0, 1, 1))}, want: "P2"},
		"an unknown write that had its effect": {ops: []op{first, at(2, 3, write("v2", 1, 0, unknown)), at(4, 5, see("v1", 0, 1, 1)),
			at(6, 7, see("v2", 0, 1, 2))}},
		"an unknown write that had none": {ops: []op{first, at(2, 3, write("v2", 1, 0, unknown)), at(6, 7, see("v1", 0, 0, 1))}},
		"an unknown write undone later": {ops: []op{first, at(2, 3, write("v2", 1, 0, unknown)), at(4, 5, see("v2", 0, 1, 2)),
			at(6, 7, see("v1", 0, 2, 3))}, want: "P2"},
		"a refused write that had its effect": {ops: []op{first, at(2, 3, write("v2", 1, 0, undone)), at(4, 5, see("v2", 0, 1, 2))}, want: "P2"},
		"unknown increments, one of two done": {ops: []op{first, at(2, 3, count(0, 1, 0, unknown)), at(2, 3, count(0, 1, 0, unknown)),
			at(6, 7, see("v1", 1, 0, 2))}},
		"more than all increments": {ops: []op{first, at(2, 3, count(0, 1, 0, unknown)), at(6, 7, see("v1", 2, 0, 2))}, want: "P2"},

		// What another device has written may be seen late, but not with Strict
		// freshness, not by who was told of it, and not forgotten again.
		"another device, late": {overtaken: true,
			ops: []op{first, at(2, 3, write("v2", 1, 2, done)), at(4, 5, see("v1", 0, 1, 1))}},
		"another device, late, strict": {overtaken: true, strict: true,
			ops: []op{first, at(2, 3, write("v2", 1, 2, done)), at(4, 5, see("v1", 0, 1, 1))}, want: "P2"},
		"another device, told": {overtaken: true,
			ops: []op{first, at(2, 3, write("v2", 1, 2, done)), at(4, 5, see("v1", 0, 2, 2))}, want: "P4"},
		"one version, two states": {overtaken: true, ops: []op{first, at(2, 9, write("v2", 1, 2, unknown)),
			at(3, 4, see("v1", 0, 1, 1)), at(3, 4, see("v2", 0, 1, 1))}, want: "P4"},
		"another device, no version presented": {overtaken: true,
			ops: []op{first, at(2, 3, write("v2", 1, 2, done)), at(4, 5, see("v1", 0, 0, 1))}, want: "P2"},
		"another device, increments still count": {overtaken: true,
			ops: []op{first, at(2, 3, count(1, 1, 2, done)), at(4, 5, count(1, 1, 3, done))}, want: "P2"},
	} {
		t.Run(name, func(t *testing.T) {
			h := &history{id: "s", kind: name, overtaken: test.overtaken, start: 1, ops: test.ops}
			var broken []string
			for _, v := range h.check(test.strict) {
				broken = append(broken, v.Promise)
			}
			if got := strings.Join(broken, " "); (test.want == "") != (got == "") || !strings.Contains(got, test.want) {
				t.Errorf("broken: %q, want %q", got, test.want)
			}
		})
	}
}

// TestJar checks what the browsers do with cookies.
func TestJar(t *testing.T) {
	text := func(s string) *string { return &s }
	var j jar
	j.receive(set{token: text("abc.node1"), version: text("12.00ff")})
	j.receive(set{version: text("11.00ff")})
	if got := j.present(); got.told() != 11 || got.route() != "node1" || got.header() != "session=abc.node1; session-v-shop=11.00ff" {
		t.Errorf("a browser presents %+v, told %d", got, got.told())
	}
	j.latest = true
	j.receive(set{version: text("10.00ff")})
	if got := j.present().told(); got != 11 {
		t.Errorf("the latest version is %d", got)
	}
	j.receive(set{token: text(""), version: text("")})
	if got := j.present(); got != (cookies{}) {
		t.Errorf("after a logout: %+v", got)
	}
}

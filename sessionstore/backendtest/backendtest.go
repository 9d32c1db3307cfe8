// Package backendtest holds every implementation of [sessionstore.Backend] to
// the sentences of that interface. The whole test of a backend is
//
//	func TestBackend(t *testing.T) {
//		backendtest.Run(t, backendtest.Options{New: …, Advance: …})
//	}
//
// Each subtest is named after a sentence of the interface's documentation and
// cites it when it fails. A test in this package compares the citations with the
// documentation, so that no sentence goes without a subtest.
//
// The suite never sleeps and waits for no clock except in the two subtests that
// race against an expiry of some milliseconds. Its sessions have random IDs and
// most of its names are unique, so that the subtests of a group share a store.
package backendtest

import (
	"strings"
	"testing"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// Options tell [Run] how to reach the backend under test.
type Options struct {
	// New returns an empty backend that shares nothing with any other one. What
	// it opens it closes with t.Cleanup. It is called once for each group of
	// subtests, fewer than twenty times.
	New func(t *testing.T) sessionstore.Backend

	// Advance lets d pass for b: it sets b's clock forward by d, or makes all
	// that b stores d older (creation, access, expiry, what is derived from them,
	// and when nodes were seen). A negative d, a clock that was set back, must work
	// too. It is never called while another call to b is under way.
	Advance func(t *testing.T, b sessionstore.Backend, d time.Duration)

	// Second, if not nil, returns another handle on b's store, as another node
	// would have: with its own connections and its own locks. Defaults to b
	// itself.
	Second func(t *testing.T, b sessionstore.Backend) sessionstore.Backend
}

// Run checks a backend against every sentence of [sessionstore.Backend], and of
// [sessionstore.EventSource] and [sessionstore.NodeRegistry] if it is one. The
// subtests of one store run one after the other; Run itself may be called from
// parallel tests.
func Run(t *testing.T, opts Options) {
	for _, g := range groups() {
		t.Run(g.name, func(t *testing.T) {
			b := opts.New(t)
			second := b
			if opts.Second != nil {
				second = opts.Second(t, b)
			}
			for _, s := range g.subtests {
				t.Run(strings.ReplaceAll(s.name, " ", "_"), func(t *testing.T) {
					s.run(newCheck(t, opts, b, second, s.cites))
				})
			}
		})
	}
}

// A group is the subtests that share one store.
type group struct {
	name     string
	subtests []subtest
}

// A subtest proves one sentence.
type subtest struct {
	name  string // the sentence, shortened
	cites string // verbatim from the documentation in package sessionstore
	run   func(c *check)
}

func groups() []group {
	return []group{
		{"Record", recordSubtests},
		{"Live", liveSubtests},
		{"Load", loadSubtests},
		{"Create", createSubtests},
		{"Create joining", joinSubtests},
		{"Update", updateSubtests},
		{"Renewal", renewalSubtests},
		{"MaxSessions", maxSessionsSubtests},
		{"Touch", touchSubtests},
		{"Delete", deleteSubtests},
		{"List", listSubtests},
		{"DeleteExpired", deleteExpiredSubtests},
		{"Errors", errorSubtests},
		{"Events", eventSubtests},
		{"Nodes", nodeSubtests},
		{"Concurrent", concurrentSubtests},
		{"Concurrent endings", endingSubtests},
	}
}

// Package faults breaks a cluster of real processes while clients use it, and checks
// what the clients saw against the promises of ARCHITECTURE.md.
//
//	go -C internal/faults test ./...                     what happens most often, on each database: what CI runs
//	HOLDFAST_TEST_FAULTS=1 go -C internal/faults test -timeout 1h ./...    all faults, clusters of databases, Strict
//	go -C internal/faults run ./cmd/faults -database postgres -duration 10m
//
// [Run] builds the holdfast command with the race detector, starts nodes of it on a
// real database, puts package balancer in front of them, and sets browsers on it.
// Each node reaches the database as a user of its own and through a network of its
// own, so that it can be blinded or cut off alone. Then it injects [Faults] one after
// the other, each a small function that says how to heal what it has done.
//
// What clients do, and what is checked:
//
//   - Browsers begin sessions, log in and then read, write attributes and raise
//     counters: one request at a time, several at once, with a jar that keeps to the
//     order of responses, with one that applies them late, twice and out of order, and
//     from two devices that hold the same cookies. The history of each session is
//     checked with porcupine: attributes are registers, counters are counters. A write
//     that was answered with an error may have had its effect at any time since, or
//     never. Nobody may lose the session, or read less than was presented (P1, P2, P4).
//   - Visitors log in, end their sessions, by a logout or from another device, while a
//     slow request of theirs is under way, and present the old cookies to every node
//     until they are refused, and once more at the end of the run (P3, P6, P7). Some
//     just leave; their sessions are made to expire. Each end must be announced once,
//     which nodes print with --log-ends (P11).
//   - Some faults may show no client an error, nodes must end in good order, and none
//     may log a data race or a panic (P14).
//
// How long anything takes is reported and not judged, because machines are busy, with
// one exception: the bounds that docs/consistency.md states. An impatient client's
// giving up is no error of the nodes.
//
// # Which order is demanded
//
// One browser that presents what it was told gets linearizability, with as many tabs
// as it likes: each request presents the version that the ones before it told. With
// Strict freshness everybody does. Otherwise two jars with the same cookies, or a jar
// to which responses come in the wrong order, read at least the version they present,
// and may read what was current when that version was written. So such a read is
// allowed to take effect at any time since the call of the write whose version it
// shows. Writes are linearizable among everybody in every mode. And a version is one
// state: all that read it see the same.
//
// # Repeating a run
//
// A run prints its seed, which decides which faults are drawn, whom they hit and what
// clients do. It does not decide how the machine schedules all that, so a second run
// resembles the first and is not equal to it. What was found is kept with the logs of
// the nodes in the directory that the run names.
//
// It is a module of its own, so that what it needs is no dependency of the library's
// users.
package faults

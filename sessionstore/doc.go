// Package sessionstore keeps the HTTP sessions of one application: typed
// attributes, principals, their lifecycle, and a local cache that stays coherent
// with a database all nodes share.
//
// Handlers see attributes and a [Session]. The middleware of package middleware
// begins the session before the handler and commits it before the first byte of
// the response leaves, so a handler meets no error and cannot forget to save:
//
//	var visits = sessionstore.NewAttr[int]("visits")
//
//	func handle(w http.ResponseWriter, r *http.Request) {
//		s := sessionstore.FromContext(r.Context())
//		visits.Update(s, func(n int) int { return n + 1 })
//		n, _ := visits.Get(s)
//		fmt.Fprintf(w, "Visit %d.\n", n)
//	}
//
// # Concepts
//
// An [Attr] is a typed attribute, declared once. Its Update takes a function that
// is replayed when another request was faster, so that no update is lost (P2).
// [Session.SetPrincipal] logs somebody in and renews the secret in one step (P7);
// [Session.Renew] and [Session.Invalidate] do what they say, in all applications
// that share an ID manager. A [Token] is the secret in the cookie and prints as
// REDACTED; an [ID] is public.
//
// A [Manager] runs one application's sessions over a [Backend], which package
// sqlbackend implements for SQL databases and package membackend in memory. A
// request sees an immutable snapshot of its session and its own changes. A commit
// is conditional on the version it was based on; on conflict the changes are
// replayed on the newer version, and if the session has ended they are dropped (P3).
//
// The life of a session, as the database sees it:
//
//	             Create                       Delete, DeleteExpired
//	(nothing) ------------> live (version 1) ------------------------> gone
//	                          |        ^
//	                          +--------+
//	                   Update: version + 1, if it is still the version expected
//	                   Touch:  access time forward, version untouched
//
// Nothing leads back from gone: IDs are never used twice.
//
// # Concurrency
//
// Managers, attributes and codecs are safe for concurrent use by any number of
// requests; a [Session] by the goroutines of its own request. The package starts
// no goroutine, but for the timer of a request whose session has an idle timeout shorter
// than two touch intervals: package idmanager's Run drives what is periodic.
//
// # Errors
//
// Reading and changing a session never fails. A commit fails with an error that
// wraps one of this package's sentinels; after any other it is unknown whether it took
// place. See [Session.Save]. A stored value that no longer decodes costs its attribute
// only (P13).
package sessionstore

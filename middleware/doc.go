// Package middleware gives net/http handlers their sessions: it reads the session
// cookie, puts the session into the request's context, and commits what the
// handler changed before the response's first byte leaves.
//
//	var visits = sessionstore.NewAttr[int]("visits")
//
//	func main() {
//		ids, err := idmanager.New(membackend.New(), nil)
//		if err != nil {
//			log.Fatal(err)
//		}
//		go ids.Run(context.Background())
//		app, err := sessionstore.New(ids, "hello", nil)
//		if err != nil {
//			log.Fatal(err)
//		}
//		sessions, err := middleware.New(app, &middleware.Config{InsecureCookie: true}) // no TLS here
//		if err != nil {
//			log.Fatal(err)
//		}
//		http.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
//			s := sessionstore.FromContext(r.Context())
//			visits.Update(s, func(n int) int { return n + 1 })
//			n, _ := visits.Get(s)
//			fmt.Fprintf(w, "Visit %d.\n", n)
//		})
//		log.Fatal(http.ListenAndServe("localhost:8080", sessions.Handler(http.DefaultServeMux)))
//	}
//
// [Sessions.Handler] has the form of every net/http middleware: it wraps a mux, is
// handed to chi's Use, and adapts to gin and echo (see examples/frameworks).
//
// # When changes are stored
//
// A handler works in memory. The commit happens once, before whichever comes first:
//
//	handler           response
//	 |                 open --------- 1xx but 101: passed on, still open
//	 | Write, WriteHeader,  |
//	 | ReadFrom, Flush,     | commit
//	 | Hijack, return       |
//	 v                      v
//	               committed  or  failed: the error handler answers instead
//
// So when a client has received a byte, the changes its request made are in the
// database; where they could not be stored, nothing of the handler's own output is
// sent, its headers are taken back, and its writes return [ErrNotCommitted].
//
// Changes made after the first byte are committed when the handler returns.
// Those that would need a new cookie, a login for example, come too late: they are
// logged, counted in [Stats] and not stored. A handler that panics commits nothing
// of its request after that point; what it had stored with Save, its client is told by
// whoever answers. A middleware that recovers and answers for it
// belongs outside of Handler, or calls the session's Discard first: to Handler it is
// a part of the handler, and what it answers commits. A client that hangs up loses
// nothing.
//
// An [http.TimeoutHandler] belongs inside of Handler. Outside of it, it may answer while
// the handler goes on, and a login that is committed then gives the session a new secret
// that the client is never told. Inside, its answer commits what the handler has changed
// until then.
//
// Streams and WebSockets use the session's Save, Refresh and Done. A WebSocket
// library that writes its handshake through WriteHeader carries the cookies; one
// that hijacks first and writes the handshake itself cannot, so log in and out in
// ordinary requests.
//
// # Cookies
//
// The token cookie, "__Host-session" by default, is the secret. It is set when a
// session is created or renewed, and when it moved because its node is gone, and is shared
// by the applications of one ID manager. A second cookie for each application,
// "__Host-session-v-" and its name, is no secret: it carries the version of the
// session that the client has last seen, so that it reads its own writes on any
// node, and most reads need no database. A response that sets or expires the token
// is marked "Cache-Control: no-store". Nothing is stored and no cookie is set until
// a handler stores something.
//
// Malformed cookies count as absent and never reach the database. A token that the
// database refuses begins a new session and is left with the client: a response on its
// way may just have replaced it. For the same reason the client is told nothing of an
// anonymous new session while the session that the token names is in use with another
// secret. Of several cookies with the token's name the first valid one is used, if it is
// among the first four that are well-formed; the clash is logged and counted.
//
// # Concurrency
//
// A [Sessions] is safe for concurrent use. The commit is safe against writes from
// a handler's own goroutines, which must end before the handler does.
//
// # Errors
//
// [Config.ErrorHandler] answers when a session could not be loaded or committed.
// It does not clear the cookie: an error of the database is no logout. Whoever is
// told of an error by a return value or by the error handler need not log it; the
// error handler's errors, and those without a caller, are logged here.
package middleware

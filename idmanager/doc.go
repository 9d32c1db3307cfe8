// Package idmanager is the process-wide part of Holdfast: one ID manager per
// process and backend keeps session IDs unique across the process's applications,
// ends and renews sessions in all of them at once, hears of what other nodes did,
// writes access times back, and sweeps what has expired.
//
//	ids, err := idmanager.New(backend, &idmanager.Config{Node: "node1"})
//	...
//	go ids.Run(ctx)
//	shop, err := sessionstore.New(ids, "shop", nil)
//	office, err := sessionstore.New(ids, "office", nil)
//	...
//	server.Shutdown(ctx) // first the requests,
//	ids.Shutdown(ctx)    // then what they left to be written back
//
// The former returns after the last response; until then nothing may end that requests
// use. The server's Serve returns at once, so a main function must not go by that.
// Streams hold it up, unless they end when ctx does, or by RegisterOnShutdown.
//
// Its life:
//
//	          Run            ctx ends
//	New ----------> running ----------> stopped ---> Run again
//	  \                | Shutdown         | Shutdown
//	   \ Shutdown      v                  v
//	    +----------> shut down <----------+        Run returns ErrClosed
//
// While it runs, events tell it what other nodes have ended, renewed or changed, and
// copies of that are dropped. If events cannot be read within FeedTimeout, copies
// answer nothing until they can.
//
// Meanwhile it is registered in the database under its name, if the backend is a
// [sessionstore.NodeRegistry]. Run ends with an error if another live process has that
// name. [Manager.Nodes] lists all; [Manager.Drain] prepares an orderly end.
//
// In every state requests are served correctly: while Run does not run, each
// request that presents a session asks the database and writes back its own
// access time, now and then.
//
// A [Manager] is safe for concurrent use, starts no goroutine outside Run, and
// closes nothing that it was given.
package idmanager

package sessionstore

import "sync/atomic"

// Stats is a snapshot of a manager's counters since it was made.
type Stats struct {
	CachedSessions int    `json:"cached_sessions"` // in the cache now
	CachedBytes    uint64 `json:"cached_bytes"`    // of memory they take, an estimate
	ActiveRequests int64  `json:"active_requests"` // between Begin and Release now, with a stored session

	CacheHits    int64 `json:"cache_hits"`    // requests answered by a cached copy
	OutageHits   int64 `json:"outage_hits"`   // requests answered by one because the database did not answer
	Loads        int64 `json:"loads"`         // Load calls to the backend
	NotModified  int64 `json:"not_modified"`  // of these, answered "not modified"
	Refused      int64 `json:"refused"`       // claims the database refused
	Created      int64 `json:"created"`       // sessions first stored in this application
	Saved        int64 `json:"saved"`         // Update calls that succeeded
	Merged       int64 `json:"merged"`        // commits that shared another commit's Update
	Conflicts    int64 `json:"conflicts"`     // Update calls answered "conflict", and so replayed
	Renewed      int64 `json:"renewed"`       // new secrets
	Destroyed    int64 `json:"destroyed"`     // sessions this process ended or expired
	Touched      int64 `json:"touched"`       // access times written back
	DecodeErrors int64 `json:"decode_errors"` // attributes, or whole sessions, that did not decode (P13)
	TooLate      int64 `json:"too_late"`      // changes that could no longer reach the client

	ListenerPanics int64 `json:"listener_panics"` // calls of listeners that panicked
}

// counters are the manager's own; each field is what its namesake in Stats says.
type counters struct {
	loads, notModified, refused                atomic.Int64
	created, saved, merged, conflicts, renewed atomic.Int64
	destroyed, touched, decodeErrors, tooLate  atomic.Int64
	listenerPanics, outageHits                 atomic.Int64

	reads [64]readCounters
}

// readCounters are those that every request counts in. There are many, each in a cache
// line of its own, so that processors that serve different sessions seldom write to the
// same memory. With one for all, two processors answered an eighth fewer cached reads.
type readCounters struct {
	active, hits atomic.Int64
	_            [48]byte
}

// readsOf returns the counters for requests of a session.
func (c *counters) readsOf(id ID) *readCounters { return &c.reads[id.shard()%len(c.reads)] }

// Stats returns the manager's counters.
func (m *Manager) Stats() Stats {
	c := &m.stats
	var active, hits int64
	for i := range c.reads {
		active += c.reads[i].active.Load()
		hits += c.reads[i].hits.Load()
	}
	return Stats{
		CachedSessions: m.cache.len(),
		CachedBytes:    m.cache.bytes(),
		ActiveRequests: active,
		CacheHits:      hits,
		OutageHits:     c.outageHits.Load(),
		Loads:          c.loads.Load(),
		NotModified:    c.notModified.Load(),
		Refused:        c.refused.Load(),
		Created:        c.created.Load(),
		Saved:          c.saved.Load(),
		Merged:         c.merged.Load(),
		Conflicts:      c.conflicts.Load(),
		Renewed:        c.renewed.Load(),
		Destroyed:      c.destroyed.Load(),
		Touched:        c.touched.Load(),
		DecodeErrors:   c.decodeErrors.Load(),
		TooLate:        c.tooLate.Load(),
		ListenerPanics: c.listenerPanics.Load(),
	}
}

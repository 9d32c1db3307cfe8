package sessionstore

import (
	"encoding/binary"
	"math"
	"sync"

	"github.com/maypok86/otter/v2"
)

// shards is how many ways per-session bookkeeping is divided, so that requests
// of different sessions seldom meet. A power of two.
const shards = 256

// shard spreads IDs. Their first bytes are a timestamp (UUIDv7), the last random.
func (id ID) shard() int {
	return int(binary.LittleEndian.Uint16(id[14:])) % shards
}

// A cache holds the newest snapshot this node knows of each session, bounded by
// their memory. Otter's admission policy decides what stays; nothing that
// matters is lost by an eviction, since snapshots only repeat the database.
type cache struct {
	entries *otter.Cache[ID, *snapshot] // nil: nothing is cached
	drops   [shards]drops
}

// drops are those of a shard. What was loaded or written before a session was
// dropped must not be put back after it (P3, P6).
type drops struct {
	mu        sync.Mutex // guards what follows
	count     uint64     // of drops so far: the epoch of the shard
	forgotten uint64     // the latest that is no more among the last
	last      [8]drop
}

// A drop is of all snapshots of a session before a version.
type drop struct {
	id     ID
	before Version
	at     uint64 // its number, from 1 on; 0 if there is none
}

// allVersions is the version before which all are.
const allVersions = Version(math.MaxInt64)

func (ds *drops) epoch() uint64 {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	return ds.count
}

// add remembers a drop, in the place of an earlier one of the session that says less, or
// else of the earliest. So one session that changes all the time displaces no other.
func (ds *drops) add(d drop) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	ds.count++
	d.at = ds.count
	earliest := &ds.last[0]
	for i := range ds.last {
		l := &ds.last[i]
		if l.at > 0 && l.id == d.id && l.before <= d.before {
			*l = d
			return
		}
		if l.at < earliest.at {
			earliest = l
		}
	}
	ds.forgotten = max(ds.forgotten, earliest.at)
	*earliest = d
}

// all drops every session of the shard.
func (ds *drops) all() {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	ds.count++
	ds.forgotten = ds.count
	ds.last = [8]drop{}
}

// include reports whether a version of a session was dropped since epoch. Of those that are
// not remembered, any may have been the one.
func (ds *drops) include(id ID, v Version, epoch uint64) bool {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if ds.forgotten > epoch {
		return true
	}
	for i := range ds.last {
		if d := &ds.last[i]; d.at > epoch && d.id == id && v < d.before {
			return true
		}
	}
	return false
}

func newCache(bytes int64) (*cache, error) {
	c := &cache{}
	if bytes < 0 {
		return c, nil
	}
	entries, err := otter.New(&otter.Options[ID, *snapshot]{
		MaximumWeight: uint64(bytes),
		Weigher: func(_ ID, sn *snapshot) uint32 {
			return uint32(min(sn.weight(), math.MaxUint32))
		},
		// Maintenance is short and runs where it became due: no goroutines.
		Executor: func(f func()) { f() },
	})
	if err != nil {
		return nil, err
	}
	c.entries = entries
	return c, nil
}

// get returns the cached snapshot, nil if there is none.
func (c *cache) get(id ID) *snapshot {
	if c.entries == nil {
		return nil
	}
	sn, _ := c.entries.GetIfPresent(id)
	return sn
}

// peek is get that does not count as a use.
func (c *cache) peek(id ID) *snapshot {
	if c.entries == nil {
		return nil
	}
	e, _ := c.entries.GetEntryQuietly(id)
	return e.Value
}

// epoch is to be read before the database is asked, and given to put.
func (c *cache) epoch(id ID) uint64 { return c.drops[id.shard()].epoch() }

// dropped reports whether a version of a session was dropped since epoch.
func (c *cache) dropped(id ID, v Version, epoch uint64) bool {
	return c.drops[id.shard()].include(id, v, epoch)
}

// put offers a snapshot. It stays out if a newer one is there, or if its version
// was dropped since epoch.
func (c *cache) put(sn *snapshot, epoch uint64) {
	if c.entries == nil {
		return
	}
	id := sn.info.ID
	c.entries.Compute(id, func(old *snapshot, found bool) (*snapshot, otter.ComputeOp) {
		if c.dropped(id, sn.info.Version, epoch) {
			return old, otter.CancelOp
		}
		if found && (old.info.Version > sn.info.Version ||
			old.info.Version == sn.info.Version && old.anchor > sn.anchor) {
			return old, otter.CancelOp
		}
		return sn, otter.WriteOp
	})
}

// drop forgets a session, and what is on its way into the cache.
func (c *cache) drop(id ID) { c.outdate(id, allVersions) }

// outdate forgets what is older than a version, and what of that is on its way into
// the cache. A commit that is heard of before its own snapshot is here loses nothing.
func (c *cache) outdate(id ID, v Version) {
	// The order matters: a put that Compute lets in before the second step is
	// removed by it, one that comes after it sees the first.
	c.drops[id.shard()].add(drop{id: id, before: v})
	if c.entries == nil {
		return
	}
	c.entries.ComputeIfPresent(id, func(old *snapshot) (*snapshot, otter.ComputeOp) {
		if old.info.Version < v {
			return nil, otter.InvalidateOp
		}
		return old, otter.CancelOp
	})
}

// doubt keeps what is known of a session from answering until the database has
// confirmed it, and forgets what is on its way into the cache.
func (c *cache) doubt(id ID) {
	c.drops[id.shard()].add(drop{id: id, before: allVersions}) // first, as in outdate
	if c.entries == nil {
		return
	}
	c.entries.ComputeIfPresent(id, func(old *snapshot) (*snapshot, otter.ComputeOp) {
		doubtful := *old
		doubtful.doubtful = true
		return &doubtful, otter.WriteOp
	})
}

// reset forgets all sessions, and what is on its way into the cache.
func (c *cache) reset() {
	for i := range c.drops {
		c.drops[i].all()
	}
	if c.entries != nil {
		c.entries.InvalidateAll()
	}
}

func (c *cache) len() int {
	if c.entries == nil {
		return 0
	}
	return c.entries.EstimatedSize()
}

func (c *cache) bytes() uint64 {
	if c.entries == nil {
		return 0
	}
	return c.entries.WeightedSize()
}

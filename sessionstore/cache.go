package sessionstore

import (
	"encoding/binary"
	"math"
	"sync/atomic"

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
	// epochs count the times a session of a shard was dropped. What was loaded or
	// written before the drop must not be put back after it (P3, P6).
	epochs [shards]atomic.Uint64
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

// epoch is to be read before the database is asked, and given to put.
func (c *cache) epoch(id ID) uint64 { return c.epochs[id.shard()].Load() }

// put offers a snapshot. It stays out if a newer one is there, or if the session
// was dropped since epoch.
func (c *cache) put(sn *snapshot, epoch uint64) {
	if c.entries == nil {
		return
	}
	id := sn.info.ID
	c.entries.Compute(id, func(old *snapshot, found bool) (*snapshot, otter.ComputeOp) {
		if c.epoch(id) != epoch {
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
func (c *cache) drop(id ID) {
	// The order matters: a put that Compute lets in before Invalidate is removed
	// by it, one that comes after it sees the new epoch.
	c.epochs[id.shard()].Add(1)
	if c.entries != nil {
		c.entries.Invalidate(id)
	}
}

// doubt keeps what is known of a session from answering until the database has
// confirmed it, and forgets what is on its way into the cache.
func (c *cache) doubt(id ID) {
	c.epochs[id.shard()].Add(1) // first, as in drop
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
	for i := range c.epochs {
		c.epochs[i].Add(1)
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

package sessionstore

import "testing"

// A renewal is heard of while its copy is cached; the copy is evicted; then the answer to a
// question from before the renewal arrives, and is not kept.
func TestAnEvictedRenewal(t *testing.T) {
	c, err := newCache(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	m := &Manager{cache: c}
	id := ID{1}
	before := &snapshot{info: compactInfo{ID: id, Version: 4}, activity: &activity{id: id}}
	renewed := &snapshot{info: compactInfo{ID: id, Version: 5}, activity: before.activity}
	epoch := c.epoch(id) // the question is asked
	c.put(renewed, c.epoch(id))
	m.stale(id, 5)           // the event
	c.entries.Invalidate(id) // as an eviction does
	c.put(before, epoch)     // the answer
	if sn := c.get(id); sn != nil {
		t.Errorf("version %d is cached after version 5 was heard of", sn.info.Version)
	}
}

package sessionstore

import (
	"testing"
	"time"
)

func TestTwoActivitiesInFlight(t *testing.T) {
	var as activities
	id := ID{1}
	short := &activity{id: id} // of the snapshot that a request took from the cache, and then was held up
	stream := as.of(id, nil)   // of the session loaded anew meanwhile
	as.enter(stream, time.Second)
	as.enter(short, 2*time.Second)
	as.leave(short, 3*time.Second)
	as.take(id.shard(), 4*time.Second)
	as.take(id.shard(), 5*time.Second)
	if as.find(id) != stream {
		t.Errorf("the stream is in flight (%d) and not pending: %v", stream.inflight.Load(), as.find(id))
	}
}

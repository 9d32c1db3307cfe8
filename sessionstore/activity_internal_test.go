package sessionstore

import (
	"encoding/binary"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// Two requests that enter two activities of a session at once, of which one waits to be
// written back, go on with the same one: of an end, one is told.
func TestActivitiesEnteredAtOnce(t *testing.T) {
	const rounds = 30_000
	var as activities
	var pairs [rounds][2]activity
	for i := range pairs {
		for j := range pairs[i] {
			binary.LittleEndian.PutUint32(pairs[i][j].id[12:], uint32(i))
		}
		as.pend(&pairs[i][1])
	}
	var entered [2][rounds]*activity
	var wg sync.WaitGroup
	var arrived atomic.Int64
	for j := range entered {
		wg.Go(func() {
			for i := range rounds {
				arrived.Add(1)
				for arrived.Load() < int64(2*i+2) {
					runtime.Gosched()
				}
				entered[j][i], _ = as.enter(&pairs[i][j], 1)
			}
		})
	}
	wg.Wait()
	bad := 0
	for i := range rounds {
		if a := entered[0][i]; a != entered[1][i] || a != as.find(a.id) {
			bad++
		}
	}
	if bad > 0 {
		t.Errorf("in %d of %d rounds, two activities were in use", bad, rounds)
	}
}

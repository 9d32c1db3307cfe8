// Package load writes to sessions while a test takes their database away, and tells
// afterwards whether anything that was acknowledged is lost.
package load

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-sessions/holdfast/internal/dbtest"
	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// pause is how long a writer pauses after an error.
const pause = 5 * time.Millisecond

// Writers increment sessions' versions, each writer its own session on a backend of
// its own or shared.
type Writers struct {
	sessions []*written
	stop     context.CancelFunc
	wg       sync.WaitGroup
	acked    atomic.Int64
	last     atomic.Int64 // when the latest write was acknowledged, in nanoseconds since start
	start    time.Time

	mu     sync.Mutex // guards errors
	errors map[string]int
}

// A written session and what is known of it. Only its writer uses it.
type written struct {
	backend sessionstore.Backend
	rec     *sessionstore.Record
	acked   sessionstore.Version // the latest acknowledged
	unknown int                  // writes since then whose outcome nobody told
}

// Start creates n sessions on each backend and begins to write to them. Stop ends it.
func Start(t testing.TB, n int, backends ...sessionstore.Backend) *Writers {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &Writers{stop: cancel, start: time.Now(), errors: make(map[string]int)}
	for i := range n * len(backends) {
		s := &written{
			backend: backends[i%len(backends)], acked: 1, rec: dbtest.Record("shop", "", []byte("data")),
		}
		if _, err := s.backend.Create(ctx, s.rec, sessionstore.Condition{}); err != nil {
			t.Fatal(err)
		}
		w.sessions = append(w.sessions, s)
	}
	for _, s := range w.sessions {
		w.wg.Go(func() {
			for ctx.Err() == nil {
				w.write(ctx, s)
			}
		})
	}
	t.Cleanup(func() { cancel(); w.wg.Wait() })
	return w
}

// write writes once, as a node would: after a conflict it looks what is stored.
func (w *Writers) write(ctx context.Context, s *written) {
	version := s.acked + sessionstore.Version(s.unknown)
	if s.unknown > 0 {
		rec, err := s.backend.Load(ctx, s.rec.Key, 0)
		if err != nil {
			w.failed(ctx, err)
			return
		}
		version = rec.Version
	}
	err := s.backend.Update(ctx, s.rec, sessionstore.Condition{Version: version, SecretHash: s.rec.SecretHash})
	if err != nil {
		s.unknown++
		w.failed(ctx, err)
		return
	}
	s.acked, s.unknown = version+1, 0
	w.acked.Add(1)
	w.last.Store(int64(time.Since(w.start)))
}

func (w *Writers) failed(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		err = inner // without the session's ID
	}
	w.mu.Lock()
	w.errors[err.Error()]++
	w.mu.Unlock()
	select { // clients do not hammer
	case <-time.After(pause):
	case <-ctx.Done():
	}
}

// Await waits until n more writes are acknowledged, and fails the test if none is
// for as long as patience.
func (w *Writers) Await(t testing.TB, n int64, patience time.Duration) {
	t.Helper()
	begun, target := time.Since(w.start), w.acked.Load()+n
	for tick := time.Tick(time.Millisecond); w.acked.Load() < target; <-tick {
		if time.Since(w.start)-max(begun, time.Duration(w.last.Load())) > patience {
			t.Fatalf("no write acknowledged in %v; errors: %s", patience, w.Errors())
		}
	}
}

// Errors returns the errors that writers were answered, and how often.
func (w *Writers) Errors() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var text string
	for _, err := range slices.Sorted(maps.Keys(w.errors)) {
		text += fmt.Sprintf("\n%6d %s", w.errors[err], err)
	}
	return text
}

// Stop ends the writers. It returns how many writes were acknowledged, and how many
// of these reader does not find.
func (w *Writers) Stop(t testing.TB, reader sessionstore.Backend) (acknowledged, lost int64) {
	t.Helper()
	w.stop()
	w.wg.Wait()
	for _, s := range w.sessions {
		rec, err := reader.Load(t.Context(), s.rec.Key, 0)
		if err != nil {
			t.Errorf("after the outage: %v", err)
			lost += int64(s.acked)
			continue
		}
		if rec.Version < s.acked {
			lost += int64(s.acked - rec.Version)
		}
		// One more is the write under way when the writer stopped.
		if most := s.acked + sessionstore.Version(s.unknown) + 1; rec.Version > most {
			t.Errorf("session %s has version %d, but at most %d writes", rec.Key.ID, rec.Version, most)
		}
	}
	return w.acked.Load(), lost
}

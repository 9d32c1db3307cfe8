package sqlite

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-sessions/holdfast/internal/dbtest"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/backendtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

func TestBackendInFile(t *testing.T) {
	paths := make(map[sessionstore.Backend]string)
	backendtest.Run(t, backendtest.Options{
		New: func(t *testing.T) sessionstore.Backend {
			path := filepath.Join(t.TempDir(), "sessions #1?.db")
			b := openTest(t, path, nil)
			paths[b] = path
			return b
		},
		Second: func(t *testing.T, b sessionstore.Backend) sessionstore.Backend {
			return openTest(t, paths[b], nil)
		},
		Advance: advance,
	})
}

func TestBackendInMemory(t *testing.T) {
	backendtest.Run(t, backendtest.Options{
		New:     func(t *testing.T) sessionstore.Backend { return openTest(t, Memory, nil) },
		Advance: advance,
	})
}

func openTest(t *testing.T, path string, cfg *Config) *Backend {
	t.Helper()
	b, err := Open(t.Context(), path, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func advance(t *testing.T, b sessionstore.Backend, d time.Duration) {
	t.Helper()
	dbtest.Age(t, b.(*Backend).write, "holdfast_sessions", d)
	dbtest.AgeEvents(t, b.(*Backend).write, "holdfast_events", d)
	dbtest.AgeNodes(t, b.(*Backend).write, "holdfast_nodes", d)
}

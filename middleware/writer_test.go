package middleware_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// A handler's goroutines may write too; there is still one commit, before any byte.
func TestWritesFromSeveralGoroutines(t *testing.T) {
	s := newSite(t, options{})
	for range 50 {
		b := s.started(t)
		saved := s.manager.Stats().Saved
		var mu sync.Mutex
		out := &lockedWriter{mu: &mu, header: make(http.Header)}
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Cookie", b.header())
		s.sessions.Handler(handler(func(w http.ResponseWriter, _ *http.Request, s *sessionstore.Session) {
			name.Set(s, "bob")
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() { io.WriteString(w, "x") })
			}
			wg.Wait()
		})).ServeHTTP(out, r)
		want(t, "bytes", out.n, 8)
		want(t, "saves", s.manager.Stats().Saved-saved, 1)
		want(t, "Set-Cookie lines", len(out.header["Set-Cookie"]), 1)
	}
}

// lockedWriter is safe for concurrent writes, as net/http's is not.
type lockedWriter struct {
	mu     *sync.Mutex
	header http.Header
	n      int
}

func (w *lockedWriter) Header() http.Header { return w.header }
func (w *lockedWriter) WriteHeader(int)     {}
func (w *lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.n += len(p)
	return len(p), nil
}

// Files still go out with sendfile: ReadFrom reaches net/http's own.
func TestReadFromUsesTheUnderlyingReaderFrom(t *testing.T) {
	s := newSite(t, options{})
	path := filepath.Join(t.TempDir(), "file")
	content := strings.Repeat("0123456789", 100_000)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	var outer *counting
	h := s.sessions.Handler(handler(func(w http.ResponseWriter, r *http.Request, s *sessionstore.Session) {
		s.Start()
		http.ServeFile(w, r, path)
	}))
	server := listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		outer = &counting{ResponseWriter: w}
		h.ServeHTTP(outer, r)
	}))
	b := newBrowser()
	rep := b.get(t, server, "/")
	want(t, "body complete", rep.body == content, true)
	server.Close() // waits for the handler
	want(t, "bytes through ReadFrom", outer.n, int64(len(content)))
	want(t, "token told", b.cookie("session") != "", true)

	// A writer without ReadFrom sees every byte, even if it has an Unwrap.
	plain := httptest.NewRecorder()
	h.ServeHTTP(noReadFrom{plain}, httptest.NewRequest("GET", "/", nil))
	want(t, "body complete", plain.Body.String() == content, true)
}

type counting struct {
	http.ResponseWriter
	n int64
}

func (c *counting) ReadFrom(r io.Reader) (int64, error) {
	n, err := c.ResponseWriter.(io.ReaderFrom).ReadFrom(r)
	c.n += n
	return n, err
}

type noReadFrom struct{ w http.ResponseWriter }

func (n noReadFrom) Header() http.Header         { return n.w.Header() }
func (n noReadFrom) WriteHeader(status int)      { n.w.WriteHeader(status) }
func (n noReadFrom) Write(p []byte) (int, error) { return n.w.Write(p) }

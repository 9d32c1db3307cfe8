package middleware_test

import (
	"net/http"
	"testing"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

type nullWriter struct{ header http.Header }

func (w nullWriter) Header() http.Header         { return w.header }
func (w nullWriter) WriteHeader(int)             {}
func (w nullWriter) Write(p []byte) (int, error) { return len(p), nil }

// cachedRead returns a handler that reads an attribute of a cached session, and a
// request for it.
func cachedRead(t testing.TB) (http.Handler, *http.Request) {
	s := newSite(t, options{node: "node1"})
	b := s.started(t)
	r, _ := http.NewRequest("GET", "/", nil)
	r.Header.Set("Cookie", "theme=dark; "+b.header())
	return s.sessions.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if v, _ := name.Get(sessionstore.FromContext(r.Context())); v != "ann" {
			t.Error("not read")
		}
		w.Write(nil)
	})), r
}

// What requests that write nothing allocate beyond the bare handler, exactly: more is
// a regression, less is to be written down here and in docs/performance.md.
func TestAllocationsOfReads_P9_P10(t *testing.T) {
	cached, withSession := cachedRead(t)
	anonymous := newSite(t, options{}).sessions.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok := name.Get(sessionstore.FromContext(r.Context())); ok {
			t.Error("read something")
		}
		w.Write(nil)
	}))
	without, _ := http.NewRequest("GET", "/", nil)
	malformed, _ := http.NewRequest("GET", "/", nil)
	malformed.Header.Set("Cookie", "session=no-token-ever-looked-like-this")
	for _, test := range []struct {
		what    string
		handler http.Handler
		request *http.Request
		want    float64
	}{
		// The session, a context with it, the response writer with another, and the request.
		{"without cookie", anonymous, without, 4},
		{"malformed cookie", anonymous, malformed, 4},
		// The token as well.
		{"cached", cached, withSession, 5},
	} {
		w := nullWriter{make(http.Header)}
		if got := testing.AllocsPerRun(1000, func() { test.handler.ServeHTTP(w, test.request) }); got != test.want {
			t.Errorf("%s: %v allocations, want %v", test.what, got, test.want)
		}
	}
}

func BenchmarkCachedRead(b *testing.B) {
	h, r := cachedRead(b)
	w := nullWriter{make(http.Header)}
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(w, r)
	}
}

// The same where one session is read by all processors at once.
func BenchmarkCachedReadParallel(b *testing.B) {
	h, r := cachedRead(b)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		w := nullWriter{make(http.Header)}
		for pb.Next() {
			h.ServeHTTP(w, r)
		}
	})
}

// The same where each processor reads sessions of its own: nothing should make
// them wait for each other.
func BenchmarkCachedReadsParallel(b *testing.B) {
	s := newSite(b, options{node: "node1"})
	h := s.sessions.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name.Get(sessionstore.FromContext(r.Context()))
		w.Write(nil)
	}))
	const each = 64
	requests := make(chan []*http.Request, 64)
	for range cap(requests) {
		own := make([]*http.Request, each)
		for i := range own {
			own[i], _ = http.NewRequest("GET", "/", nil)
			own[i].Header.Set("Cookie", s.started(b).header())
		}
		requests <- own
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		w, own := nullWriter{make(http.Header)}, <-requests
		for i := 0; pb.Next(); i++ {
			h.ServeHTTP(w, own[i%each])
		}
		requests <- own
	})
}

func BenchmarkNoCookie(b *testing.B) {
	s := newSite(b, options{})
	h := s.sessions.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(nil) }))
	r, _ := http.NewRequest("GET", "/", nil)
	w := nullWriter{make(http.Header)}
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(w, r)
	}
}

package middleware_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-sessions/holdfast/middleware"
	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// ways are all the ways a handler has to let the first byte of a response leave.
var ways = map[string]func(w http.ResponseWriter) error{
	"Write":       func(w http.ResponseWriter) error { _, err := w.Write([]byte("hello")); return err },
	"empty Write": func(w http.ResponseWriter) error { _, err := w.Write(nil); return err },
	"WriteString": func(w http.ResponseWriter) error { _, err := io.WriteString(w, "hello"); return err },
	"WriteHeader": func(w http.ResponseWriter) error { w.WriteHeader(http.StatusAccepted); return nil },
	"no content":  func(w http.ResponseWriter) error { w.WriteHeader(http.StatusNoContent); return nil },
	"ReadFrom": func(w http.ResponseWriter) error {
		_, err := w.(io.ReaderFrom).ReadFrom(strings.NewReader("hello"))
		return err
	},
	"Flush":      func(w http.ResponseWriter) error { w.(http.Flusher).Flush(); return nil },
	"FlushError": func(w http.ResponseWriter) error { return w.(interface{ FlushError() error }).FlushError() },
	"ResponseController.Flush": func(w http.ResponseWriter) error {
		return http.NewResponseController(w).Flush()
	},
	"Hijack": func(w http.ResponseWriter) error {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return err
		}
		defer conn.Close()
		fmt.Fprint(rw, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
		return rw.Flush()
	},
	"return": func(http.ResponseWriter) error { return nil },
}

// P1: when the first byte leaves, the changes are in the database.
func TestChangesAreCommittedBeforeTheFirstByte(t *testing.T) {
	for way, send := range ways {
		t.Run(way, func(t *testing.T) {
			s := newSite(t, options{})
			b := s.started(t)
			proceed := make(chan struct{})
			defer close(proceed)
			server := s.serve(t, func(w http.ResponseWriter, _ *http.Request, s *sessionstore.Session) {
				name.Set(s, "bob")
				if err := send(w); err != nil {
					t.Error(err)
				}
				if way != "return" && s.Version() != 2 {
					t.Errorf("version after sending is %d", s.Version())
				}
			})
			b.get(t, server, "/")
			want(t, "name", s.name(b), "bob")
			want(t, "saves", s.manager.Stats().Saved, 1)
		})
	}
}

// P1: a byte that a client has received was committed, while the handler still runs.
func TestFlushedBytesAreCommitted(t *testing.T) {
	s := newSite(t, options{})
	proceed := make(chan struct{})
	server := s.serve(t, func(w http.ResponseWriter, _ *http.Request, s *sessionstore.Session) {
		name.Set(s, "ann")
		w.Write([]byte("first\n"))
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		<-proceed
		color.Set(s, "red") // after the first byte: committed at return
	})
	resp, err := server.Client().Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(resp.Body).ReadString('\n')
	want(t, "line", line, "first\n")
	b := newBrowser()
	b.keep(resp.Cookies()) // flushed with the header
	want(t, "name", s.name(b), "ann")
	close(proceed)
	b.read(resp)
	s.look(b, func(s *sessionstore.Session) {
		v, _ := color.Get(s)
		want(t, "late change", v, "red")
	})
}

// P1: if the commit fails, the response is the error handler's, whatever way the
// handler wanted it to leave, and nothing of its own precedes or follows.
func TestFailedCommit(t *testing.T) {
	for way, send := range ways {
		t.Run(way, func(t *testing.T) {
			s := newSite(t, options{})
			b := s.started(t)
			cookies := b.header()
			inner := s.sessions.Handler(handler(func(w http.ResponseWriter, _ *http.Request, s *sessionstore.Session) {
				h := w.Header()
				h.Set("Content-Length", "5")
				h.Set("Content-Type", "image/png")
				h.Set("X-Handler", "mine")
				h["X-Outer"][0] = "spoilt"
				h.Set("Location", "/elsewhere")
				h.Del("X-Frame-Options")
				http.SetCookie(w, &http.Cookie{Name: "theme", Value: "dark"})
				name.Set(s, "bob")
				err := send(w)
				if silent := way == "return" || way == "Flush" || way == "WriteHeader" || way == "no content"; !silent {
					if !errors.Is(err, middleware.ErrNotCommitted) || !errors.Is(err, errDB) {
						t.Errorf("error is %v", err)
					}
				}
				if way == "return" {
					return
				}
				// Nothing gets through any more.
				for way, send := range ways {
					if err := send(w); err == nil && strings.HasPrefix(way, "Write") && way != "WriteHeader" {
						t.Errorf("%s after the error handler: no error", way)
					}
				}
				w.WriteHeader(http.StatusEarlyHints)
				h.Set(http.TrailerPrefix+"X-Trailer", "mine")
			}))
			server := listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Outer", "kept")
				w.Header().Set("X-Frame-Options", "DENY")
				inner.ServeHTTP(w, r)
			}))
			s.backend.fail("Update")
			rep := b.get(t, server, "/")
			want(t, "status", rep.StatusCode, http.StatusServiceUnavailable)
			want(t, "body", rep.body, "Sessions are unavailable at the moment. Please try again.\n")
			want(t, "Content-Type", rep.Header.Get("Content-Type"), "text/plain; charset=utf-8")
			want(t, "Cache-Control", rep.Header.Get("Cache-Control"), "no-store")
			want(t, "Retry-After", rep.Header.Get("Retry-After"), "5")
			want(t, "outer header", rep.Header.Get("X-Outer"), "kept")
			want(t, "outer header deleted inside", rep.Header.Get("X-Frame-Options"), "DENY")
			want(t, "Set-Cookie lines", len(rep.Header["Set-Cookie"]), 0)
			for _, h := range []string{"X-Handler", "Location"} {
				want(t, h, rep.Header.Get(h), "")
			}
			want(t, "trailers", len(rep.Trailer), 0)
			want(t, "errors", s.sessions.Stats().Errors, 1)
			want(t, "times logged", strings.Count(s.logs.String(), errDB.Error()), 1)
			want(t, "cookies", b.header(), cookies)
			s.backend.set(nil)
			want(t, "name (the old state)", s.name(b), "ann")
		})
	}
}

// A stream's handler may not return for long after its first Flush has failed: the
// error handler's answer does not wait for it (P1).
func TestFailedCommitOfAStreamIsTold(t *testing.T) {
	s := newSite(t, options{})
	b := s.started(t)
	told := make(chan struct{})
	server := s.serve(t, func(w http.ResponseWriter, r *http.Request, s *sessionstore.Session) {
		name.Set(s, "bob")
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: 1\n\n")
		w.(http.Flusher).Flush()
		select {
		case <-told:
		case <-r.Context().Done():
		}
	})
	s.backend.fail("Update")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Cookie", b.header())
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("nothing arrives while the handler runs: %v", err)
	}
	defer resp.Body.Close()
	want(t, "status", resp.StatusCode, http.StatusServiceUnavailable)
	close(told)
	body, err := io.ReadAll(resp.Body)
	if err != nil || strings.Contains(string(body), "data:") {
		t.Errorf("body %q, error %v", body, err)
	}
}

// X11, P5: a load that fails is no refusal. The handler is not called, the
// cookie stays, and requests without a session go on as ever.
func TestFailedLoad(t *testing.T) {
	s := newSite(t, options{store: sessionstore.Config{CacheBytes: -1}})
	b := s.started(t)
	called := false
	h := s.sessions.Handler(handler(func(http.ResponseWriter, *http.Request, *sessionstore.Session) { called = true }))
	s.backend.fail()
	rep := b.record(h, "/")
	want(t, "status", rep.StatusCode, http.StatusServiceUnavailable)
	want(t, "Retry-After", rep.Header.Get("Retry-After"), "5")
	want(t, "Set-Cookie lines", len(rep.Header["Set-Cookie"]), 0)
	want(t, "handler called", called, false)
	if strings.Contains(rep.body, "hunter2") {
		t.Errorf("body %q", rep.body)
	}
	want(t, "status without cookies", newBrowser().record(h, "/").StatusCode, http.StatusOK)
	s.backend.set(nil)
	want(t, "name", s.name(b), "ann")
}

// Each error has its answer, which says nothing of its cause.
func TestDefaultErrorHandler(t *testing.T) {
	for err, status := range map[error]int{
		sessionstore.ErrTooLarge:       http.StatusRequestEntityTooLarge,
		sessionstore.ErrNotFound:       http.StatusConflict,
		sessionstore.ErrSibling:        http.StatusConflict,
		sessionstore.ErrConflict:       http.StatusConflict,
		sessionstore.ErrLimit:          http.StatusConflict,
		sessionstore.ErrCorrupt:        http.StatusInternalServerError,
		sessionstore.ErrUnstorable:     http.StatusInternalServerError,
		sessionstore.ErrTooLate:        http.StatusInternalServerError,
		context.DeadlineExceeded:       http.StatusServiceUnavailable,
		errDB:                          http.StatusServiceUnavailable,
		errors.New("whatever: secret"): http.StatusServiceUnavailable,
	} {
		rec := httptest.NewRecorder()
		middleware.DefaultErrorHandler(rec, httptest.NewRequest("GET", "/", nil), fmt.Errorf("save session 7: %w", err))
		want(t, err.Error(), rec.Code, status)
		want(t, "Retry-After", rec.Header().Get("Retry-After") != "", status == http.StatusServiceUnavailable)
		want(t, "Cache-Control", rec.Header().Get("Cache-Control"), "no-store")
		if body := rec.Body.String(); strings.Contains(body, err.Error()) || strings.Contains(body, "sessionstore") || body == "" {
			t.Errorf("%v: body %q", err, body)
		}
	}
}

// What cannot be stored fails the request and keeps what was stored before.
func TestUnstorableChanges(t *testing.T) {
	broken := sessionstore.NewAttr[chan int]("broken")
	for what, test := range map[string]struct {
		change func(s *sessionstore.Session)
		status int
	}{
		"too large":      {func(s *sessionstore.Session) { name.Set(s, strings.Repeat("x", 2000)) }, http.StatusRequestEntityTooLarge},
		"not encodable":  {func(s *sessionstore.Session) { broken.Set(s, make(chan int)) }, http.StatusInternalServerError},
		"long principal": {func(s *sessionstore.Session) { s.SetPrincipal(strings.Repeat("x", 300)) }, http.StatusInternalServerError},
		"bad timeout":    {func(s *sessionstore.Session) { s.SetLifetime(-5) }, http.StatusInternalServerError},
	} {
		s := newSite(t, options{store: sessionstore.Config{MaxDataBytes: 1000}})
		b := s.started(t)
		rep := b.record(s.sessions.Handler(handler(func(_ http.ResponseWriter, _ *http.Request, s *sessionstore.Session) {
			color.Set(s, "red")
			test.change(s)
		})), "/")
		want(t, what, rep.StatusCode, test.status)
		want(t, what+": Set-Cookie lines", len(rep.Header["Set-Cookie"]), 0)
		want(t, what+": name", s.name(b), "ann")
		want(t, what+": times logged", strings.Count(s.logs.String(), "session error handler"), 1)
	}
}

// A principal beyond its limit of sessions gets 409 and stays who it was.
func TestLoginBeyondTheLimit(t *testing.T) {
	s := newSite(t, options{store: sessionstore.Config{MaxSessions: 1}})
	login := s.sessions.Handler(handler(func(_ http.ResponseWriter, _ *http.Request, s *sessionstore.Session) { s.SetPrincipal("ann") }))
	want(t, "first login", newBrowser().record(login, "/").StatusCode, http.StatusOK)
	b := s.started(t)
	cookies := b.header()
	want(t, "second login", b.record(login, "/").StatusCode, http.StatusConflict)
	want(t, "cookies", b.header(), cookies)
	s.look(b, func(s *sessionstore.Session) { want(t, "principal", s.Principal(), "") })
}

// An error handler of one's own gets the error, the request with its session, and
// a writer without the handler's headers; once.
func TestOwnErrorHandler(t *testing.T) {
	var calls int
	s := newSite(t, options{cookie: middleware.Config{ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
		calls++
		if !errors.Is(err, errDB) || errors.Is(err, middleware.ErrNotCommitted) {
			t.Errorf("error is %v", err)
		}
		if _, ok := sessionstore.LookupContext(r.Context()); !ok {
			t.Error("request has no session")
		}
		want(t, "path", r.URL.Path, "/x")
		want(t, "headers", len(w.Header()), 0)
		http.Error(w, "sorry", http.StatusTeapot)
	}}})
	b := s.started(t)
	s.backend.fail("Update")
	rep := b.record(s.sessions.Handler(handler(func(w http.ResponseWriter, _ *http.Request, s *sessionstore.Session) {
		w.Header().Set("X-Handler", "mine")
		name.Set(s, "bob")
		w.WriteHeader(http.StatusCreated)
		io.WriteString(w, "created")
	})), "/x")
	want(t, "status", rep.StatusCode, http.StatusTeapot)
	want(t, "body", rep.body, "sorry\n")
	want(t, "calls", calls, 1)
}

// An error handler may end the connection with a panic; the request is released.
func TestErrorHandlerThatPanics(t *testing.T) {
	s := newSite(t, options{cookie: middleware.Config{ErrorHandler: func(http.ResponseWriter, *http.Request, error) {
		panic(http.ErrAbortHandler)
	}}})
	for way, send := range ways {
		s.backend.set(nil)
		b := s.started(t)
		server := s.serve(t, func(w http.ResponseWriter, _ *http.Request, s *sessionstore.Session) {
			name.Set(s, "bob")
			s.Done()
			send(w)
		})
		s.backend.fail("Update")
		if rep, err := b.try(t.Context(), server, "GET", "/"); err == nil {
			t.Errorf("%s: answered %s", way, rep.Status)
		}
		server.Close() // waits for the handler
		want(t, way+": requests in flight", s.manager.Stats().ActiveRequests, 0)
	}
}

// P1: a 1xx response is not the final one. Early Hints leave before the commit.
func TestEarlyHintsDoNotCommit(t *testing.T) {
	for _, fail := range []bool{false, true} {
		s := newSite(t, options{})
		b := s.started(t)
		hinted := make(chan struct{})
		server := s.serve(t, func(w http.ResponseWriter, _ *http.Request, s *sessionstore.Session) {
			w.Header().Set("Link", "</style.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			<-hinted // the client has them
			want(t, "version", s.Version(), 1)
			name.Set(s, "bob")
			w.WriteHeader(http.StatusProcessing)
			w.Write([]byte("hello"))
		})
		if fail {
			s.backend.fail("Update")
		}
		conn := dial(t, server)
		fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nCookie: %s\r\nConnection: close\r\n\r\n", b.header())
		in := bufio.NewReader(conn)
		resp, err := http.ReadResponse(in, nil)
		if err != nil || resp.StatusCode != 103 || resp.Header.Get("Link") == "" || resp.Header["Set-Cookie"] != nil {
			t.Fatalf("first response: %v, %v", resp, err)
		}
		close(hinted)
		if resp, err = http.ReadResponse(in, nil); err != nil || resp.StatusCode != 102 {
			t.Fatalf("second response: %v, %v", resp, err)
		}
		if resp, err = http.ReadResponse(in, nil); err != nil {
			t.Fatal(err)
		}
		rep := b.read(resp)
		if fail {
			want(t, "status", rep.StatusCode, http.StatusServiceUnavailable)
			want(t, "Link", rep.Header.Get("Link"), "")
			continue
		}
		want(t, "status", rep.StatusCode, http.StatusOK)
		want(t, "body", rep.body, "hello")
		want(t, "version told", strings.HasPrefix(b.cookie("session-v-shop"), "2."), true)
	}
}

// A handler that panics commits nothing of its request (X29), before or after the
// first byte, and an outer recoverer may answer.
func TestPanicCommitsNothing(t *testing.T) {
	for what, value := range map[string]any{"panic": "boom", "abort": http.ErrAbortHandler} {
		s := newSite(t, options{})
		b := s.started(t)
		inner := s.sessions.Handler(handler(func(w http.ResponseWriter, r *http.Request, s *sessionstore.Session) {
			name.Set(s, "bob")
			if r.URL.Path == "/late" {
				w.Write([]byte("begun"))
				color.Set(s, "red")
			}
			panic(value)
		}))
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer func() {
				recover()
				if r.URL.Path == "/" {
					http.Error(w, "recovered", http.StatusInternalServerError)
				}
			}()
			inner.ServeHTTP(w, r)
		})
		rep := b.record(h, "/")
		want(t, what+": status", rep.StatusCode, http.StatusInternalServerError)
		want(t, what+": name", s.name(b), "ann")
		b.record(h, "/late")
		want(t, what+": name", s.name(b), "bob")
		s.look(b, func(s *sessionstore.Session) {
			_, ok := color.Get(s)
			want(t, what+": changed after the first byte", ok, false)
		})
		want(t, what+": requests in flight", s.manager.Stats().ActiveRequests, 0)
	}
}

// After the error handler has answered, not even an informational status or a
// trailer of the handler's gets through (P1).
func TestNothingFollowsTheErrorHandler(t *testing.T) {
	s := newSite(t, options{cookie: middleware.Config{ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
		w.WriteHeader(http.StatusServiceUnavailable)
		w.Write([]byte("sorry"))
		http.NewResponseController(w).Flush() // chunked from here on, so that trailers could follow
	}}})
	b := s.started(t)
	s.backend.fail("Update")
	spoil := handler(func(w http.ResponseWriter, _ *http.Request, s *sessionstore.Session) {
		h := w.Header()
		h.Set("Trailer", "X-Declared")
		name.Set(s, "bob")
		w.Write([]byte("hello"))
		h.Set("X-Declared", "mine")
		h.Set(http.TrailerPrefix+"X-Trailer", "mine")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusOK)
	})
	rep := b.get(t, s.serve(t, spoil), "/")
	want(t, "body", rep.body, "sorry")
	want(t, "trailers", fmt.Sprint(rep.Trailer), "map[]")

	out := &statuses{ResponseRecorder: httptest.NewRecorder()}
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Cookie", b.header())
	s.sessions.Handler(spoil).ServeHTTP(out, r)
	want(t, "statuses", fmt.Sprint(out.seen), "[503]")
}

// statuses notes every WriteHeader.
type statuses struct {
	*httptest.ResponseRecorder
	seen []int
}

func (s *statuses) WriteHeader(status int) {
	s.seen = append(s.seen, status)
	s.ResponseRecorder.WriteHeader(status)
}

// A goroutine that outlives its handler's panic can neither write nor commit.
func TestWriteAfterPanicCommitsNothing(t *testing.T) {
	s := newSite(t, options{})
	b := s.started(t)
	var left http.ResponseWriter
	func() {
		defer func() { _ = recover() }()
		b.record(s.sessions.Handler(handler(func(w http.ResponseWriter, _ *http.Request, s *sessionstore.Session) {
			left = w
			name.Set(s, "bob")
			panic("boom")
		})), "/")
	}()
	if _, err := left.Write([]byte("x")); !errors.Is(err, middleware.ErrNotCommitted) {
		t.Errorf("error is %v", err)
	}
	want(t, "name", s.name(b), "ann")
}

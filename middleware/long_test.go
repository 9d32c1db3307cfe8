package middleware_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

func dial(t *testing.T, server *httptest.Server) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// A WebSocket handshake written by the handler carries the cookies; the socket
// lives on with Save, and Done closes when the session is ended elsewhere.
func TestUpgradeCarriesCookiesAndEndsWithTheSession(t *testing.T) {
	s := newSite(t, options{})
	begun := make(chan sessionstore.ID, 1)
	server := s.serve(t, func(w http.ResponseWriter, r *http.Request, s *sessionstore.Session) {
		name.Set(s, "ann")
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "echo")
		w.WriteHeader(http.StatusSwitchingProtocols)
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		if _, err := w.Write([]byte("x")); !errors.Is(err, http.ErrHijacked) {
			t.Errorf("Write after Hijack: %v", err)
		}
		line, _ := rw.ReadString('\n')
		color.Set(s, strings.TrimSpace(line))
		if err := s.Save(r.Context()); err != nil {
			t.Error(err)
		}
		fmt.Fprint(rw, "saved\n")
		rw.Flush()
		begun <- s.ID()
		<-s.Done()
		fmt.Fprint(rw, "bye\n")
		rw.Flush()
	})
	conn := dial(t, server)
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != 101 {
		t.Fatalf("%v, %v", resp, err)
	}
	b := newBrowser()
	b.keep(resp.Cookies())
	want(t, "name", s.name(b), "ann")
	fmt.Fprint(conn, "red\n")
	line, _ := in.ReadString('\n')
	want(t, "line", line, "saved\n")
	s.look(b, func(s *sessionstore.Session) {
		v, _ := color.Get(s)
		want(t, "saved in the middle", v, "red")
	})
	if err := s.manager.Invalidate(t.Context(), <-begun); err != nil {
		t.Fatal(err)
	}
	line, _ = in.ReadString('\n')
	want(t, "line", line, "bye\n")
	want(t, "lost tokens", s.sessions.Stats().LostTokens, 0)
	want(t, "late errors", s.sessions.Stats().LateErrors, 0)
}

// A hijack keeps a new or ended session from the client: stored, reported. What
// the client need not know is not reported.
func TestHijackThatLosesATokenIsReported(t *testing.T) {
	for what, test := range map[string]struct {
		f    func(s *sessionstore.Session)
		lost int64
	}{
		"nothing": {func(*sessionstore.Session) {}, 0},
		"change":  {func(s *sessionstore.Session) { name.Set(s, "bob") }, 0}, // the token's route changes too
		"login":   {func(s *sessionstore.Session) { s.SetPrincipal("ann") }, 1},
		"renewal": {func(s *sessionstore.Session) { s.Renew() }, 1},
		"logout":  {func(s *sessionstore.Session) { s.Invalidate() }, 1},
	} {
		one := newSite(t, options{node: "one"})
		b := one.started(t)
		s := newSite(t, options{node: "two", memory: one.memory})
		server := s.serve(t, func(w http.ResponseWriter, _ *http.Request, s *sessionstore.Session) {
			test.f(s)
			if err := ways["Hijack"](w); err != nil {
				t.Error(err)
			}
		})
		token := b.cookie("session")
		want(t, what+": body", b.get(t, server, "/").body, "hello")
		want(t, what+": lost tokens", s.sessions.Stats().LostTokens, test.lost)
		log := s.logs.String()
		want(t, what+": logged", strings.Count(log, "hijacked before"), int(test.lost))
		want(t, what+": token in log (P8)", strings.Contains(log, token), false)
	}
}

// Where hijacking is not possible, the handler can still answer.
func TestHijackUnsupported(t *testing.T) {
	s := newSite(t, options{})
	rep := newBrowser().record(s.sessions.Handler(handler(func(w http.ResponseWriter, _ *http.Request, s *sessionstore.Session) {
		s.Start()
		if _, _, err := http.NewResponseController(w).Hijack(); !errors.Is(err, http.ErrNotSupported) {
			t.Errorf("error is %v", err)
		}
		http.Error(w, "no", http.StatusNotImplemented)
	})), "/")
	want(t, "status", rep.StatusCode, http.StatusNotImplemented)
	want(t, "token told", rep.set["session"] != nil, true)
	want(t, "lost tokens", s.sessions.Stats().LostTokens, 0)
}

// Server-sent events: committed before the first event, saved in the middle,
// ended with the session.
func TestEventStream(t *testing.T) {
	s := newSite(t, options{})
	b := s.started(t)
	next := make(chan string)
	server := s.serve(t, func(w http.ResponseWriter, r *http.Request, s *sessionstore.Session) {
		w.Header().Set("Content-Type", "text/event-stream")
		rc := http.NewResponseController(w)
		for {
			select {
			case v := <-next:
				name.Set(s, v)
				if err := s.Save(r.Context()); err != nil {
					t.Error(err)
				}
				fmt.Fprintf(w, "data: %s\n\n", v)
				if err := rc.Flush(); err != nil {
					t.Error(err)
				}
			case <-s.Done():
				fmt.Fprint(w, "data: bye\n\n")
				if err := s.Refresh(r.Context()); !errors.Is(err, sessionstore.ErrNotFound) {
					t.Errorf("Refresh: %v", err)
				}
				return
			}
		}
	})
	r, _ := http.NewRequestWithContext(t.Context(), "GET", server.URL, nil)
	r.Header.Set("Cookie", b.header())
	go func() { next <- "one" }()
	resp, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	in := bufio.NewReader(resp.Body)
	event := func() string {
		line, _ := in.ReadString('\n')
		in.ReadString('\n')
		return line
	}
	want(t, "event", event(), "data: one\n")
	want(t, "name", s.name(b), "one")
	next <- "two"
	want(t, "event", event(), "data: two\n")
	want(t, "name", s.name(b), "two")
	b.record(s.sessions.Handler(handler(func(_ http.ResponseWriter, _ *http.Request, s *sessionstore.Session) { s.Invalidate() })), "/")
	want(t, "event", event(), "data: bye\n")
}

// After the first byte the client can be given no new token: that is not stored,
// logged and counted; other changes are stored.
func TestLateChangesThatNeedATokenAreReported(t *testing.T) {
	s := newSite(t, options{})
	b := newBrowser()
	rep := b.record(s.sessions.Handler(handler(func(w http.ResponseWriter, _ *http.Request, s *sessionstore.Session) {
		w.Write([]byte("begun"))
		name.Set(s, "ann") // would need a session, and so a cookie
	})), "/")
	want(t, "body", rep.body, "begun")
	want(t, "Set-Cookie lines", len(rep.Header["Set-Cookie"]), 0)
	want(t, "created", s.manager.Stats().Created, 0)
	want(t, "late errors", s.sessions.Stats().LateErrors, 1)

	b = s.started(t)
	rep = b.record(s.sessions.Handler(handler(func(w http.ResponseWriter, _ *http.Request, s *sessionstore.Session) {
		w.Write([]byte("begun"))
		s.SetPrincipal("ann")
		color.Set(s, "red")
	})), "/")
	want(t, "body", rep.body, "begun")
	want(t, "late errors", s.sessions.Stats().LateErrors, 2)
	s.look(b, func(s *sessionstore.Session) {
		want(t, "principal (P7)", s.Principal(), "")
		v, _ := color.Get(s)
		want(t, "color", v, "red")
	})
	want(t, "times logged", strings.Count(s.logs.String(), "after the response had begun"), 2)

	// A database that fails then has no caller either.
	s.backend.fail("Update")
	b.record(s.sessions.Handler(handler(func(w http.ResponseWriter, _ *http.Request, s *sessionstore.Session) {
		w.Write([]byte("begun"))
		color.Set(s, "blue")
	})), "/")
	want(t, "late errors", s.sessions.Stats().LateErrors, 3)
	want(t, "answers of the error handler", s.sessions.Stats().Errors, 0)
}

// X29: a client that hangs up loses nothing its handler decided.
func TestHangUpCommitsAllTheSame(t *testing.T) {
	s := newSite(t, options{})
	b := s.started(t)
	entered, returned := make(chan struct{}), make(chan struct{})
	h := s.sessions.Handler(handler(func(_ http.ResponseWriter, r *http.Request, s *sessionstore.Session) {
		close(entered)
		<-r.Context().Done()
		name.Set(s, "bob")
	}))
	server := listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(returned)
		h.ServeHTTP(w, r)
	}))
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-entered; cancel() }()
	if _, err := b.try(ctx, server, "GET", "/"); !errors.Is(err, context.Canceled) {
		t.Fatalf("error is %v", err)
	}
	<-returned
	want(t, "name", s.name(b), "bob")
	want(t, "errors", s.sessions.Stats().Errors, 0)
	want(t, "requests in flight", s.manager.Stats().ActiveRequests, 0)
}

// http.TimeoutHandler outside: its writer can neither flush nor hijack, and what
// the slow handler changed is stored. Inside: its 503 commits what there is.
func TestTimeoutHandler(t *testing.T) {
	for _, outside := range []bool{true, false} {
		s := newSite(t, options{})
		b := s.started(t)
		proceed, returned := make(chan struct{}), make(chan struct{})
		slow := handler(func(w http.ResponseWriter, r *http.Request, s *sessionstore.Session) {
			defer close(returned)
			name.Set(s, "bob")
			if r.URL.Path == "/slow" {
				<-r.Context().Done()
				<-proceed
			}
			if err := http.NewResponseController(w).Flush(); !errors.Is(err, http.ErrNotSupported) {
				t.Errorf("Flush: %v", err)
			}
			w.Write([]byte("done"))
		})
		build := func(d time.Duration) (http.Handler, chan struct{}) {
			ended := make(chan struct{})
			if outside {
				inner := s.sessions.Handler(slow)
				return http.TimeoutHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					defer close(ended)
					inner.ServeHTTP(w, r)
				}), d, "timeout"), ended
			}
			close(ended)
			return s.sessions.Handler(http.TimeoutHandler(slow, d, "timeout")), ended
		}
		fast, _ := build(time.Hour)
		rep := b.record(fast, "/")
		want(t, "body", rep.body, "done")
		want(t, "name", s.name(b), "bob")
		returned = make(chan struct{})

		b = s.started(t)
		h, ended := build(200 * time.Millisecond)
		rep = b.record(h, "/slow")
		want(t, "status", rep.StatusCode, http.StatusServiceUnavailable)
		want(t, "body", rep.body, "timeout")
		close(proceed)
		<-returned
		<-ended
		want(t, "name", s.name(b), "bob")
	}
}

// HEAD, 204 and 304 have no body, and Content-Length may lie; the session is
// committed and told as ever.
func TestBodilessResponses(t *testing.T) {
	s := newSite(t, options{})
	server := s.serve(t, func(w http.ResponseWriter, r *http.Request, s *sessionstore.Session) {
		visits.Update(s, func(n int) int { return n + 1 })
		switch r.URL.Path {
		case "/204":
			w.WriteHeader(http.StatusNoContent)
		case "/304":
			w.WriteHeader(http.StatusNotModified)
		case "/short":
			w.Header().Set("Content-Length", "100")
			w.Write([]byte("short"))
		case "/redirect":
			http.Redirect(w, r, "/204", http.StatusSeeOther) // K12
		default:
			w.Write([]byte("body"))
		}
	})
	b := newBrowser()
	for i, test := range []struct {
		method, path string
		status       int
		body         string
	}{
		{"HEAD", "/", 200, ""}, {"GET", "/204", 204, ""}, {"GET", "/304", 304, ""}, {"GET", "/short", 200, "short"},
		{"GET", "/redirect", 303, "<a href=\"/204\">See Other</a>.\n\n"}, {"POST", "/", 200, "body"}, {"OPTIONS", "/", 200, "body"},
	} {
		rep, err := b.try(t.Context(), server, test.method, test.path)
		if err != nil {
			t.Fatal(err)
		}
		want(t, test.path+" status", rep.StatusCode, test.status)
		want(t, test.path+" body", rep.body, test.body)
		s.look(b, func(s *sessionstore.Session) {
			n, _ := visits.Get(s)
			want(t, "visits", n, i+1)
		})
	}
}

// http.ResponseController reaches net/http's writer through Unwrap.
func TestResponseControllerReachesTheConnection(t *testing.T) {
	s := newSite(t, options{})
	server := s.serve(t, func(w http.ResponseWriter, _ *http.Request, s *sessionstore.Session) {
		rc := http.NewResponseController(w)
		if err := errors.Join(rc.SetReadDeadline(time.Time{}), rc.SetWriteDeadline(time.Time{}), rc.EnableFullDuplex()); err != nil {
			t.Error(err)
		}
		s.Start() // none of these has committed
		if err := rc.Flush(); err != nil {
			t.Error(err)
		}
	})
	b := newBrowser()
	b.get(t, server, "/")
	want(t, "token told", b.cookie("session") != "", true)
}

// HTTP/2 has no hijacking, and its own writer; the promises are the same (P1).
func TestHTTP2(t *testing.T) {
	s := newSite(t, options{})
	server := httptest.NewUnstartedServer(s.sessions.Handler(handler(func(w http.ResponseWriter, r *http.Request, s *sessionstore.Session) {
		w.Header().Set("X-Handler", "mine")
		name.Set(s, r.URL.Path)
		if _, _, err := http.NewResponseController(w).Hijack(); !errors.Is(err, http.ErrNotSupported) && err == nil {
			t.Error("hijacked")
		}
		w.WriteHeader(http.StatusEarlyHints)
		if err := http.NewResponseController(w).Flush(); err == nil {
			fmt.Fprint(w, r.Proto)
		}
	})))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	b := newBrowser()
	want(t, "body", b.get(t, server, "/one").body, "HTTP/2.0")
	want(t, "name", s.name(b), "/one")
	s.backend.fail("Update")
	rep := b.get(t, server, "/two")
	want(t, "status", rep.StatusCode, http.StatusServiceUnavailable)
	want(t, "handler's header", rep.Header.Get("X-Handler"), "")
	want(t, "body", strings.HasPrefix(rep.body, "Sessions are unavailable"), true)
	want(t, "name", s.name(b), "/one")
}

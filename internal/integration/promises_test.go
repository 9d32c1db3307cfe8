package integration_test

import (
	"bytes"
	"crypto/rand"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

func TestCountersThroughHTTP_P2(t *testing.T) {
	for _, managers := range []int{1, 2} {
		t.Run(fmt.Sprintf("%d managers", managers), func(t *testing.T) {
			onEachDatabase(t, func(t *testing.T, db database) {
				var ps []*process
				for range managers {
					ps = append(ps, start(t, db.open(), nil, newSite()))
				}
				b := newBrowser(t)
				b.expect(t, ps[0], "/increment", `"done"`)
				const goroutines, rounds = 64, 200
				var wg sync.WaitGroup
				for g := range goroutines {
					tab := b.tab(t, ps[0])
					wg.Go(func() {
						for i := range rounds {
							if g == 0 && i == 0 {
								continue // the one above
							}
							if code, body := tab.get(t, ps[(g+i)%managers], "/increment"); code != 200 {
								t.Errorf("increment: %d %s", code, body)
							}
						}
					})
				}
				wg.Wait()
				for _, p := range ps {
					// Without its version cookie the tab is asked for anew.
					fresh := newBrowser(t)
					u := p.url(t, "/")
					fresh.Jar.SetCookies(u, []*http.Cookie{{Name: "session", Value: b.token(t, p)}})
					fresh.expect(t, p, "/counter", fmt.Sprint(goroutines*rounds))
					t.Logf("%+v", p.app.Stats())
				}
			})
		})
	}
}

func TestLogoutDuringASlowRequest_P3(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		s := newSite()
		p := start(t, db.open(), nil, s)
		b := newBrowser(t)
		b.expect(t, p, "/login?user=bob", `"bob"`)
		slow := b.tab(t, p)
		token := b.token(t, p)
		code, body := s.during(t, slow, p, "text?set=late", func() { b.expect(t, p, "/logout", `"bye"`) })
		if code != http.StatusConflict || strings.Contains(body, "late") {
			t.Errorf("page: %d %q; want a conflict, and nothing of the handler's output", code, body)
		}
		var rows int
		if err := db.raw.QueryRow("SELECT count(*) FROM holdfast_sessions").Scan(&rows); err != nil || rows != 0 {
			t.Errorf("rows: %d, %v", rows, err)
		}
		if got := slow.token(t, p); got != "" && got != token {
			t.Error("cookie: the slow request was given a session")
		}
		if got := b.token(t, p); got != "" {
			t.Error("cookie: the logout left it")
		}
		slow.expect(t, p, "/whoami", `""`)
	})
}

func TestLoginDuringASlowAnonymousRequest_P7(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		s := newSite()
		p := start(t, db.open(), nil, s)
		b := newBrowser(t)
		b.expect(t, p, "/text?set=x", `"x"`)
		before := b.token(t, p)
		// One jar: the slow response comes after the login's, and must not undo it.
		code, _ := s.during(t, b, p, "note?set=slow", func() { b.expect(t, p, "/login?user=bob", `"bob"`) })
		if code != 200 {
			t.Errorf("slow request: %d", code)
		}
		if b.token(t, p) == before {
			t.Error("the slow response brought the old cookie back")
		}
		b.expect(t, p, "/whoami", `"bob"`)
		b.expect(t, p, "/note", `"slow"`)
	})
}

func TestDifferentAttributesAtOnce_P2(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		s := newSite()
		p := start(t, db.open(), nil, s)
		b := newBrowser(t)
		b.expect(t, p, "/increment", `"done"`)
		tab := b.tab(t, p)
		s.during(t, b, p, "text?set=one", func() { tab.expect(t, p, "/note?set=two", `"two"`) })
		b.expect(t, p, "/text", `"one"`)
		b.expect(t, p, "/note", `"two"`)
	})
}

func TestABurstOfReadsCostsATouch_P10(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		backend := db.open()
		p := start(t, backend, nil, newSite())
		b := newBrowser(t)
		b.expect(t, p, "/increment", `"done"`)
		before := backend.Statements()
		var wg sync.WaitGroup
		for range 10 {
			tab := b.tab(t, p)
			wg.Go(func() {
				for range 100 {
					tab.expect(t, p, "/counter", "1")
				}
			})
		}
		wg.Wait()
		if n := backend.Statements() - before; n != 0 {
			t.Errorf("%d statements for 1,000 reads", n)
		}
		p.stop()
		if n := p.app.Stats().Touched; n != 1 {
			t.Errorf("%d touches, want 1", n)
		}
	})
}

func TestAnonymousTrafficIsFree_P9(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		backend := db.open()
		p := start(t, backend, nil, newSite())
		before := backend.Statements()
		newBrowser(t).expect(t, p, "/counter", "0")
		for what, cookie := range map[string]string{
			"malformed": "x", "truncated": strings.Repeat("A", 42), "oversized": strings.Repeat("A", 4000),
			"wrong alphabet": strings.Repeat("+", 43), "empty": "",
		} {
			b := newBrowser(t)
			b.Jar.SetCookies(p.url(t, "/"), []*http.Cookie{{Name: "session", Value: cookie}})
			b.expect(t, p, "/counter", "0")
			if n := backend.Statements() - before; n != 0 {
				t.Errorf("%s cookie: %d statements", what, n)
			}
		}
	})
}

func TestRestart_P1_P14(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		p := start(t, db.open(), nil, newSite())
		b := newBrowser(t)
		b.expect(t, p, "/login?user=bob", `"bob"`)
		b.expect(t, p, "/text?set=kept", `"kept"`)
		p.stop()
		again := start(t, db.open(), nil, newSite())
		b = b.tab(t, p).moved(t, p, again)
		b.expect(t, again, "/text", `"kept"`)
		b.expect(t, again, "/whoami", `"bob"`)
	})
}

// moved returns the browser's cookies at another address.
func (b browser) moved(t *testing.T, from, to *process) browser {
	other := newBrowser(t)
	other.Jar.SetCookies(to.url(t, "/"), b.Jar.Cookies(from.url(t, "/")))
	return other
}

func TestDatabaseAwayAndBack(t *testing.T) {
	onEachServer(t, func(t *testing.T, db database) {
		t.Parallel() // it mostly waits for statements to time out
		cable := db.proxy()
		p := start(t, db.open(), nil, newSite())
		b := newBrowser(t)
		b.expect(t, p, "/increment", `"done"`)
		token := b.token(t, p)
		cable.cut(true)
		for range 3 {
			if code, body := b.get(t, p, "/increment"); code != http.StatusServiceUnavailable || strings.Contains(body, "done") {
				t.Errorf("without database: %d %q", code, body) // P1
			}
		}
		newBrowser(t).expect(t, p, "/counter", "0") // P9: goes on as ever
		if b.token(t, p) != token {
			t.Error("an error cost the client its cookie")
		}
		cable.cut(false)
		for back := time.Now(); time.Since(back) < 30*time.Second; {
			if code, _ := b.get(t, p, "/counter"); code == http.StatusOK {
				break // the breaker has let one through
			}
		}
		b.expect(t, p, "/counter", "1")
		b.expect(t, p, "/increment", `"done"`)
		b.expect(t, p, "/counter", "2")
	})
}

func TestTheRowsTellNoSecret_P8(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		key := make([]byte, sessionstore.EncryptionKeyBytes)
		rand.Read(key)
		codec, err := sessionstore.Encrypted(sessionstore.JSON{}, key)
		if err != nil {
			t.Fatal(err)
		}
		p := start(t, db.open(), &sessionstore.Config{Codec: codec}, newSite())
		b := newBrowser(t)
		b.expect(t, p, "/text?set=my+plaintext", `"my plaintext"`)
		tokens := []string{b.token(t, p)}
		b.expect(t, p, "/login?user=bob", `"bob"`)
		tokens = append(tokens, b.token(t, p))
		dump := dumpTable(t, db.raw)
		for i, token := range tokens {
			raw, err := base64.RawURLEncoding.DecodeString(token)
			if err != nil {
				t.Fatal(err)
			}
			secret := raw[16:]
			for what, leak := range map[string][]byte{
				"bytes": secret, "hex": []byte(hex.EncodeToString(secret)), "token": []byte(token), "end of token": []byte(token[22:]),
			} {
				if bytes.Contains(dump, leak) {
					t.Errorf("the rows hold secret %d as %s", i, what)
				}
			}
		}
		if bytes.Contains(dump, []byte("plaintext")) {
			t.Error("the rows hold plaintext although encryption is on")
		}
		if !bytes.Contains(dump, []byte("bob")) {
			t.Error("the dump misses what should be there")
		}
	})
}

func dumpTable(t *testing.T, db *sql.DB) []byte {
	rows, err := db.Query("SELECT * FROM holdfast_sessions")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	var dump []byte
	for rows.Next() {
		values, dest := make([]sql.RawBytes, len(columns)), make([]any, len(columns))
		for i := range values {
			dest[i] = &values[i]
		}
		if err := rows.Scan(dest...); err != nil {
			t.Fatal(err)
		}
		for _, v := range values {
			dump = append(append(dump, v...), '\n')
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return dump
}

func TestPrincipalsAreByteExact(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		p := start(t, db.open(), nil, newSite())
		for _, user := range []string{"Bob", "bob", "Bob ", "bob%", "bób", "bo\u0301b"} {
			b := newBrowser(t)
			if code, _ := b.get(t, p, "/login?user="+strings.ReplaceAll(strings.ReplaceAll(user, "%", "%25"), " ", "+")); code != 200 {
				t.Errorf("login of %q: %d", user, code)
			}
			var got []string
			for info, err := range p.ids.Sessions(t.Context(), user) {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, info.Principal)
			}
			if !slices.Equal(got, []string{user}) {
				t.Errorf("sessions of %q: %q", user, got)
			}
		}
		n, err := p.ids.InvalidatePrincipal(t.Context(), "Bob")
		if err != nil || n != 1 {
			t.Errorf("ended %d of Bob, %v", n, err)
		}
	})
}

func TestTooLargeLeavesTheOldState(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		p := start(t, db.open(), nil, newSite())
		b := newBrowser(t)
		b.expect(t, p, "/text?set=old", `"old"`)
		resp, err := b.PostForm(p.server.URL+"/text", map[string][]string{"set": {strings.Repeat("x", 1<<20)}})
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("status %d", resp.StatusCode)
		}
		b.expect(t, p, "/text", `"old"`)
		// Just below the limit it is stored, on every database.
		resp, err = b.PostForm(p.server.URL+"/text", map[string][]string{"set": {strings.Repeat("x", 1<<20-100)}})
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("status %d just below the limit", resp.StatusCode)
		}
	})
}

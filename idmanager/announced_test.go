package idmanager_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-sessions/holdfast/idmanager"
	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// What a request stores after its first byte, of which its client cannot be told, the client
// reads on another node.
func TestASaveAfterTheFirstByteIsAnnounced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := newCluster(t, 2, idmanager.Config{})
		a, b := hosts[0], hosts[1]
		v := &visitor{}
		v.visit(t, a, paint("red"))
		v.visit(t, b, nil) // b has a copy

		s, err := a.app.Begin(t.Context(), sessionstore.Claim{Token: v.token, Version: v.version})
		if err != nil {
			t.Fatal(err)
		}
		if _, err = a.app.Commit(t.Context(), s); err != nil { // the first byte
			t.Fatal(err)
		}
		color.Set(s, "blue")
		if _, err := a.app.Commit(t.Context(), s); err != nil { // the handler returns
			t.Fatal(err)
		}
		a.app.Release(s)

		time.Sleep(30 * time.Second) // thirty polls
		if source, _, seen := v.visit(t, b, nil); seen != "blue" {
			t.Errorf("30 s later, the client reads %q on another node, from %v", seen, source)
		}
	})
}

// What a request has stored whose session was renewed while it ran, the same browser reads
// on another node.
func TestASupersededRequestsSaveIsAnnounced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := newCluster(t, 2, idmanager.Config{})
		a, b := hosts[0], hosts[1]
		v := &visitor{} // the browser
		v.visit(t, a, paint("red"))
		s, err := a.app.Begin(t.Context(), sessionstore.Claim{Token: v.token, Version: v.version}) // a slow request
		if err != nil {
			t.Fatal(err)
		}
		v.visit(t, a, login)
		time.Sleep(2 * time.Second)
		v.visit(t, b, nil)
		color.Set(s, "blue")
		r, err := a.app.Commit(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		if r != (sessionstore.Receipt{}) {
			t.Fatalf("told %+v", r)
		}
		a.app.Release(s)
		time.Sleep(30 * time.Second)
		if source, _, seen := v.visit(t, b, nil); seen != "blue" {
			t.Errorf("30 s after it was acknowledged, the browser reads %q on another node, from %v", seen, source)
		}
	})
}

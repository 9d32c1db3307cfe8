package membackend_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/backendtest"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestBackend(t *testing.T) {
	backendtest.Run(t, backendtest.Options{
		New: func(*testing.T) sessionstore.Backend { return membackend.New() },
		Advance: func(_ *testing.T, b sessionstore.Backend, d time.Duration) {
			b.(*membackend.Backend).Advance(d)
		},
	})
}

func TestClockOfBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := membackend.New()
		rec := &sessionstore.Record{Info: sessionstore.Info{Key: sessionstore.Key{ID: sessionstore.ID{1}, App: "shop"}, Idle: time.Minute}}
		if _, err := b.Create(t.Context(), rec, sessionstore.Condition{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute - 1) // of the bubble
		if _, err := b.Load(t.Context(), rec.Key, 0); err != nil {
			t.Errorf("Load before the idle timeout: %v", err)
		}
		time.Sleep(time.Nanosecond)
		if _, err := b.Load(t.Context(), rec.Key, 0); !errors.Is(err, sessionstore.ErrNotFound) {
			t.Errorf("Load after the idle timeout: %v, want %v", err, sessionstore.ErrNotFound)
		}
	})
}

func TestStatements(t *testing.T) {
	b := membackend.New()
	list := b.List(t.Context(), sessionstore.Selector{Principal: "bob"})
	if n := b.Statements(); n != 0 {
		t.Errorf("%d statements before anything was asked", n)
	}
	for range list {
	}
	if err := b.Touch(t.Context(), nil); err != nil {
		t.Error(err)
	}
	if _, err := b.Delete(t.Context(), sessionstore.Selector{Principal: "bob"}); err != nil {
		t.Error(err)
	}
	if n := b.Statements(); n != 3 {
		t.Errorf("%d statements after 3 calls", n)
	}
}

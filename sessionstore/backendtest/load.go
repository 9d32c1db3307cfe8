package backendtest

import (
	"context"
	"errors"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

var loadSubtests = []subtest{
	{"returns the live record under key", "Load returns the live record under key.", func(c *check) {
		rec := c.session(c.name("app"))
		rec.Principal = c.name("bob")
		got := c.create(rec)
		want := *rec
		want.Version, want.CreatedAt, want.AccessedAt, want.ExpiresAt = 1, got.CreatedAt, got.CreatedAt, got.CreatedAt.Add(idle)
		if diff := difference(got, &want); diff != "" {
			c.Errorf("Load gave another record than the one stored: %s", diff)
		}
	}},
	{"returns ErrNotModified and no data if the version is known", "If its version is known, Load returns [ErrNotModified] beside the record without its Data.", func(c *check) {
		rec := c.session(c.name("app"))
		rec.Principal = c.name("bob")
		for range 3 {
			if rec.Version == 0 {
				rec = c.create(rec)
			} else {
				rec = c.update(rec)
			}
			got, err := c.b.Load(c.ctx, rec.Key, rec.Version)
			c.expect("Load with the stored version", err, sessionstore.ErrNotModified)
			if got == nil {
				c.Fatalf("Load with the stored version came without a record")
			}
			if len(got.Data) > 0 {
				c.Errorf("Load with the stored version moved %d bytes of data", len(got.Data))
			}
			got.Data = rec.Data
			if diff := difference(got, rec); diff != "" {
				c.Errorf("Load with the stored version gave another record: %s", diff)
			}
		}
	}},
	{"returns the record with data if another version is known", "If its version is known, Load returns [ErrNotModified] beside the record without its Data.", func(c *check) {
		rec := c.update(c.created(c.name("app")))
		for _, known := range []sessionstore.Version{1, 3, 1 << 40} {
			got, err := c.b.Load(c.ctx, rec.Key, known)
			if err != nil {
				c.Errorf("Load of version 2 with known version %d returned %v", known, err)
			} else if diff := difference(got, rec); diff != "" {
				c.Errorf("Load of version 2 with known version %d: %s", known, diff)
			}
		}
	}},
	{"known version 0 knows none", "Known versions start at 1; 0 knows none.", func(c *check) {
		rec := c.created(c.name("app"))
		if rec.Version != 1 {
			c.Errorf("the first version is %d, want 1", rec.Version)
		}
		_, err := c.b.Load(c.ctx, sessionstore.Key{ID: newID(), App: rec.Key.App}, 0)
		c.expect("Load of no record with known version 0", err, sessionstore.ErrNotFound)
	}},
	{"returns ErrNotFound if there is none", "If there is none, Load returns [ErrNotFound];", func(c *check) {
		rec := c.created(c.name("app"))
		for _, known := range []sessionstore.Version{0, 1} {
			_, err := c.b.Load(c.ctx, sessionstore.Key{ID: newID(), App: rec.Key.App}, known)
			c.expect("Load under an unknown ID", err, sessionstore.ErrNotFound)
			if errors.Is(err, sessionstore.ErrSibling) {
				c.Errorf("Load under an unknown ID returned %v", err)
			}
		}
	}},
	{"returns ErrSibling and no data if another application holds one", "if another application holds a live record under the same ID, it returns [ErrSibling] beside that record without its Data.", func(c *check) {
		for _, siblings := range [][]*sessionstore.Record{c.siblings(1), c.siblings(3)} {
			for _, known := range []sessionstore.Version{0, 1, 2} {
				got, err := c.b.Load(c.ctx, sessionstore.Key{ID: siblings[0].Key.ID, App: c.name("app")}, known)
				c.expect("Load for another application", err, sessionstore.ErrSibling)
				if got == nil {
					c.Fatalf("Load for another application came without the sibling's record")
				}
				if len(got.Data) > 0 {
					c.Errorf("Load for another application moved %d bytes of data", len(got.Data))
				}
				var want *sessionstore.Record
				for _, rec := range siblings {
					if rec.Key == got.Key {
						want = rec
					}
				}
				if want == nil {
					c.Fatalf("Load for another application gave the record of %q under %s, which does not exist", got.Key.App, got.Key.ID)
				}
				got.Data = want.Data
				if diff := difference(got, want); diff != "" {
					c.Errorf("Load for another application gave a sibling that is not the one stored: %s", diff)
				}
			}
		}
	}},
	{"an expired sibling is none", "if another application holds a live record under the same ID", func(c *check) {
		rec := c.created(c.name("app"))
		c.advance(idle)
		got, err := c.b.Load(c.ctx, sessionstore.Key{ID: rec.Key.ID, App: c.name("app")}, 0)
		if got != nil || !errors.Is(err, sessionstore.ErrNotFound) || errors.Is(err, sessionstore.ErrSibling) {
			c.Errorf("Load beside an expired sibling returned a record: %t, and %v; want none and %v", got != nil, err, sessionstore.ErrNotFound)
		}
	}},
	{"the sibling shown is a live one", "if another application holds a live record under the same ID", func(c *check) {
		siblings := c.siblings(3)
		last := siblings[2]
		c.advance(idle / 2)
		c.touch(sessionstore.Touch{Key: last.Key})
		c.advance(idle / 2)
		for range 12 { // by chance it may be that one
			got, err := c.b.Load(c.ctx, sessionstore.Key{ID: last.Key.ID, App: c.name("app")}, 0)
			c.expect("Load beside two expired siblings and a live one", err, sessionstore.ErrSibling)
			if got == nil || got.Key != last.Key {
				c.Errorf("Load did not give the live sibling")
			}
		}
	}},
	{"otherwise an error comes with nil", "Otherwise an error comes with nil.", func(c *check) {
		rec := c.created(c.name("app"))
		if got, err := c.b.Load(c.ctx, sessionstore.Key{ID: newID(), App: rec.Key.App}, 0); got != nil {
			c.Errorf("Load returned a record beside %v", err)
		}
		ctx, cancel := context.WithCancel(c.ctx)
		cancel()
		if got, err := c.b.Load(ctx, rec.Key, 0); err != nil && got != nil {
			c.Errorf("Load returned a record beside %v", err)
		}
	}},
}

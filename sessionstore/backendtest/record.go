package backendtest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// alikes are names and principals that a database's collation, padding,
// normalisation, pattern matching or quoting takes for one another.
var alikes = []string{
	"bob", "Bob", "BOB", "bob ", " bob", "bob  ", "bob\t", "bob\n",
	"caf\u00e9", "cafe\u0301", "cafe", "CAF\u00c9",
	"stra\u00dfe", "strasse", "\ufb01n", "fin", "\uff42ob", "b\u200bob", "bob\u00a0",
	"i", "I", "\u0131", "\u0130",
	".", "a.b", "a_b", "a%b", "%", "_", "a-b", "/a/b", "/a_b",
	"'", "''", `"`, "`", `\`, `\\`, `a\b`, "; --", "$1", "?", ":a", "{}", "NULL", "0", "00", "0e1",
	"\U0001f6d2", "\U0001f6d2\U0001f6d2", "\u65e5\u672c", "\U0010fffd",
	strings.Repeat("x", 255), strings.Repeat("x", 254), strings.Repeat("x", 254) + "y",
	strings.Repeat("\u00e9", 127), strings.Repeat("\U0001f6d2", 63),
}

var recordSubtests = []subtest{
	{"data is stored byte by byte", "encoded attributes, opaque to the backend", func(c *check) {
		all := make([]byte, 256)
		for i := range all {
			all[i] = byte(i)
		}
		mebibyte := make([]byte, 1<<20) // the default limit of an encoded session
		rand.NewChaCha8([32]byte{}).Read(mebibyte)
		for _, data := range [][]byte{
			nil, {}, {0}, all, mebibyte, []byte("\xff\xfe"), []byte(`\x00 \' "%`), bytes.Repeat([]byte{0}, 5000), []byte("trailing  "),
		} {
			rec := c.session(c.name("app"))
			rec.Data = data
			got := c.create(rec)
			if !bytes.Equal(got.Data, data) {
				c.Errorf("Create and Load of %d bytes of data %.20q gave %d bytes %.20q", len(data), data, len(got.Data), got.Data)
			}

			rec = c.created(c.name("app"))
			rec.Data = data
			if got = c.update(rec); !bytes.Equal(got.Data, data) {
				c.Errorf("Update and Load of %d bytes of data %.20q gave %d bytes %.20q", len(data), data, len(got.Data), got.Data)
			}
		}
	}},
	{"data belongs to the caller", "encoded attributes, opaque to the backend", func(c *check) {
		rec := c.session(c.name("app"))
		stored := c.create(rec)
		stored.Data = bytes.Clone(stored.Data)
		clear(rec.Data)
		c.expectUnchanged(stored)
		clear(c.load(rec.Key).Data)
		c.expectUnchanged(stored)

		next := *stored
		next.Data = []byte("changed")
		stored = c.update(&next)
		stored.Data = bytes.Clone(stored.Data)
		clear(next.Data)
		c.expectUnchanged(stored)
	}},
	{"application names are compared byte by byte", "Names and principals are compared byte by byte: case, trailing spaces and Unicode forms all tell them apart.", func(c *check) {
		first := c.created(c.name("app"))
		var stored []*sessionstore.Record
		for _, app := range alikes {
			key := sessionstore.Key{ID: first.Key.ID, App: app}
			if _, err := c.b.Load(c.ctx, key, 0); err == nil {
				c.Errorf("Load for application %q, which has no record, returned one", app)
			}
			rec := c.part(app, first.Key.ID, first.SecretHash)
			rec.Data = []byte("of " + app)
			if _, err := c.b.Create(c.ctx, rec, sessionstore.Condition{SecretHash: rec.SecretHash}); err != nil {
				c.Errorf("Create for application %q beside similar names returned %v", app, err)
				continue
			}
			stored = append(stored, rec)
		}
		for _, rec := range stored {
			got := c.load(rec.Key)
			if got.Key != rec.Key || !bytes.Equal(got.Data, rec.Data) {
				c.Errorf("Load for application %q gave the record of %q with data %q", rec.Key.App, got.Key.App, got.Data)
			}
		}
	}},
	{"principals are compared byte by byte", "compared byte by byte", func(c *check) {
		app := c.name("app")
		var keys []sessionstore.Key
		for _, principal := range alikes {
			rec := c.session(app)
			rec.Principal = principal
			// A second one with a similar principal would be refused by a
			// backend that counts them as one.
			if _, err := c.b.Create(c.ctx, rec, sessionstore.Condition{MaxSessions: 1}); err != nil {
				c.Errorf("Create for principal %q beside similar ones returned %v", principal, err)
			}
			keys = append(keys, rec.Key)
		}
		for i, principal := range alikes {
			infos := c.list(sessionstore.Selector{Principal: principal, App: app})
			c.expectKeys(fmt.Sprintf("List for principal %q", principal), keysOfInfos(infos), keys[i])
			for _, info := range infos {
				if info.Principal != principal {
					c.Errorf("List for principal %q yielded one with principal %q", principal, info.Principal)
				}
			}
		}
		for i, principal := range alikes {
			removed := c.delete(sessionstore.Selector{Principal: principal})
			c.expectKeys(fmt.Sprintf("Delete for principal %q", principal), keysOf(removed), keys[i])
		}
	}},
	{"times are UTC with microsecond precision", "All times are UTC with microsecond precision, by the database's clock (P12).", func(c *check) {
		rec := c.session(c.name("app"))
		rec.Idle += time.Microsecond // a coarser column would show
		rec.Lifetime += 7 * time.Microsecond
		created, err := c.b.Create(c.ctx, rec, sessionstore.Condition{})
		if err != nil {
			c.Fatalf("Create returned %v", err)
		}
		got := c.load(rec.Key)
		for name, at := range map[string]time.Time{
			"Create's time": created, "CreatedAt": got.CreatedAt, "AccessedAt": got.AccessedAt, "ExpiresAt": got.ExpiresAt, "Now": got.Now,
		} {
			if at.Location() != time.UTC {
				c.Errorf("%s is in location %v", name, at.Location())
			}
			if !at.Truncate(time.Microsecond).Equal(at) {
				c.Errorf("%s is %v, finer than microseconds", name, at)
			}
		}
		if got.Idle != rec.Idle || got.Lifetime != rec.Lifetime {
			c.Errorf("timeouts are %v and %v, want %v and %v", got.Idle, got.Lifetime, rec.Idle, rec.Lifetime)
		}
	}},
	{"now is the clock of the answer", "Now is the database's clock when it answered.", func(c *check) {
		rec := c.created(c.name("app"))
		age := rec.Now.Sub(rec.CreatedAt)
		if age < 0 || age > subtestTimeout {
			c.Errorf("Now is %v after the creation of a record just created", age)
		}
		c.advance(time.Hour / 4)
		rec, err := c.b.Load(c.ctx, rec.Key, rec.Version)
		c.expect("Load with the stored version", err, sessionstore.ErrNotModified)
		if later := rec.Now.Sub(rec.CreatedAt); later < age+time.Hour/4 {
			c.Errorf("Now went from %v to %v after the creation while 15 minutes passed", age, later)
		}
	}},
	{"the clock is the store's", "its database's clock is the only clock that decides anything (P12)", func(c *check) {
		rec := c.session(c.name("app"))
		first, err := c.b.Create(c.ctx, rec, sessionstore.Condition{})
		if err != nil {
			c.Fatalf("Create returned %v", err)
		}
		seen, err := c.second.Load(c.ctx, rec.Key, 0)
		if err != nil {
			c.Fatalf("Load through the second handle returned %v", err)
		}
		if seen.Now.Before(first) {
			c.Errorf("the second handle's clock is %v behind the first's", first.Sub(seen.Now))
		}
	}},
	{"node is stored", `node that stored it last, "" if that node has no name`, func(c *check) {
		rec := c.session(c.name("app"))
		for _, node := range []string{strings.Repeat("n", sessionstore.MaxRouteBytes), "", "node2"} {
			if rec.Version == 0 {
				rec.Node = node
				rec = c.create(rec)
			} else {
				rec.Node = node
				rec = c.update(rec)
			}
			if rec.Node != node {
				c.Errorf("Node is %q, want %q", rec.Node, node)
			}
		}
	}},
	{"all handles share one store", "A Backend stores records in a database that all nodes share.", func(c *check) {
		rec := c.session(c.name("app"))
		if _, err := c.second.Create(c.ctx, rec, sessionstore.Condition{}); err != nil {
			c.Fatalf("Create through the second handle returned %v", err)
		}
		stored := c.load(rec.Key)
		stored.Data = []byte("changed")
		stored = c.update(stored)
		got, err := c.second.Load(c.ctx, rec.Key, 1)
		if err != nil {
			c.Fatalf("Load through the second handle returned %v", err)
		}
		if diff := difference(got, stored); diff != "" {
			c.Errorf("the second handle sees another record: %s", diff)
		}
	}},
}

package sessionstore

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

// What snapshotOverhead and attributeOverhead count on.
func TestSizesInMemory(t *testing.T) {
	for _, c := range []struct {
		of   reflect.Type
		most uintptr
	}{
		{reflect.TypeFor[snapshot](), 208},
		{reflect.TypeFor[activity](), 64},
		{reflect.TypeFor[attribute](), 48},
	} {
		if c.of.Size() > c.most {
			t.Errorf("%v takes %d bytes, want at most %d: update what a snapshot weighs", c.of, c.of.Size(), c.most)
		}
	}
}

func TestSavedAttributesHoldNoOtherMemory(t *testing.T) {
	large := strings.Repeat("x", 1000)
	before := attributes(nil).with(outcome{"a", []byte("1"), true}).with(outcome{"b", []byte(large), true})
	loaded, err := decodeEnvelope(before.encode())
	if err != nil {
		t.Fatal(err)
	}
	after := loaded.with(outcome{"b", []byte("2"), true})
	data := after.encode()
	for i, a := range after.in(data) {
		if a == loaded[i] || a.name != after[i].name || string(a.data) != string(after[i].data) {
			t.Errorf("attribute %d is %q: %q", i, a.name, a.data)
		}
		if inside := &a.data[0] == &data[strings.Index(string(data), string(a.data))]; !inside {
			t.Errorf("attribute %s is no part of the envelope", a.name)
		}
	}
}

func TestCompactInfoKeepsEverything(t *testing.T) {
	created := time.Date(2026, 11, 26, 12, 0, 0, 123456000, time.UTC)
	for _, i := range []Info{
		{},
		{Key: Key{ID{1}, "app"}, Version: 7, Principal: "bob", Node: "n1", CreatedAt: created, AccessedAt: created.Add(time.Minute)},
		{Key: Key{ID{1}, "app"}, CreatedAt: created, AccessedAt: created.Add(time.Minute), Idle: time.Hour, Lifetime: 30 * time.Minute},
		{Key: Key{ID{1}, "app"}, CreatedAt: created, AccessedAt: created, Idle: time.Hour},
	} {
		i.setExpiresAt()
		c := compact(i)
		if got := c.of(i.Key.App); got != i {
			t.Errorf("%+v became %+v", i, got)
		}
	}
}

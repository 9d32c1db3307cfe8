package sessionstore

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestEnvelope(t *testing.T) {
	var as attributes
	values := map[string][]byte{}
	for _, name := range []string{"b", "a.b", "a", "ü", strings.Repeat("n", 255), "$where", "a b", "A"} { // F28
		values[name] = []byte(name + " value")
		as = as.with(outcome{name, values[name], true})
	}
	values["empty"] = nil
	as = as.with(outcome{"empty", nil, true})
	values["big"] = bytes.Repeat([]byte{0, 255}, 1<<19)
	as = as.with(outcome{"big", values["big"], true})
	data := as.encode()
	if len(data) != as.encodedSize() {
		t.Errorf("%d bytes, computed %d", len(data), as.encodedSize())
	}
	got, err := decodeEnvelope(data)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(values) || !slices.IsSortedFunc(got, func(a, b *attribute) int { return strings.Compare(a.name, b.name) }) {
		t.Errorf("%d attributes, want %d, sorted", len(got), len(values))
	}
	for name, v := range values {
		if a, ok := got.find(name); !ok || !bytes.Equal(a.data, v) {
			t.Errorf("%q differs", name)
		}
	}
	before := len(as)
	if less := as.with(outcome{"a", nil, false}); len(less) != before-1 || len(as) != before {
		t.Error("removing changed the original, or did not remove")
	}
	if names := changedAttributes(as, got.with(outcome{"a", nil, false}).with(outcome{"new", nil, true}).with(outcome{"b", []byte("x"), true})); !slices.Equal(names, []string{"a", "b", "new"}) {
		t.Errorf("changed: %q", names)
	}
	if b := (attributes)(nil).encode(); b != nil { // F8
		t.Errorf("nothing encodes as %x", b)
	}
}

// Many changes at once amount to what they amount to one by one.
func TestManyOutcomes(t *testing.T) {
	for range 200 {
		var as attributes
		for range rand.N(8) {
			as = as.with(outcome{string(rune('a' + rand.N(12))), []byte{byte(rand.N(2))}, true})
		}
		before := as.encode()
		var outcomes []outcome
		one := as
		for _, i := range rand.Perm(12)[:rand.N(12)] {
			o := outcome{string(rune('a' + i)), []byte{byte(rand.N(2))}, rand.N(2) == 0}
			outcomes, one = append(outcomes, o), one.with(o)
		}
		if all := as.with(outcomes...); !bytes.Equal(all.encode(), one.encode()) {
			t.Fatalf("%x with %v is %x, one by one %x", before, outcomes, all.encode(), one.encode())
		}
		if !bytes.Equal(as.encode(), before) {
			t.Fatal("the original has changed")
		}
	}
}

func FuzzEnvelope(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte{1})
	f.Add([]byte{2, 1, 'a', 0})
	f.Add([]byte{1, 1, 'a', 200})
	f.Add([]byte{1, 0x81, 0, 'a', 0})
	f.Add(attributes(nil).with(outcome{"a", []byte("1"), true}).with(outcome{"b", nil, true}).encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		as, err := decodeEnvelope(data)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Errorf("error %v is no ErrCorrupt", err)
			}
			return
		}
		again := as.encode()
		if moved := as.in(again); !bytes.Equal(moved.encode(), again) {
			t.Errorf("%x moved is %x", again, moved.encode())
		}
		if len(as) > 0 && !bytes.Equal(again, data) { // one spelling only
			t.Errorf("%x is written as %x", data, again)
		}
	})
}

package sessionstore_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/cborcodec"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
)

type order struct {
	Number int
	Lines  []string
	Paid   map[string]float64
	At     time.Time
	Next   *order
}

func codecs(t testing.TB) map[string]sessionstore.Codec {
	key := make([]byte, 32)
	rand.Read(key)
	encrypted := func(c sessionstore.Codec) sessionstore.Codec {
		e, err := sessionstore.Encrypted(c, key)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	return map[string]sessionstore.Codec{
		"JSON": sessionstore.JSON{}, "gob": sessionstore.Gob{}, "CBOR": cborcodec.New(),
		"encrypted JSON": encrypted(sessionstore.JSON{}), "encrypted CBOR": encrypted(cborcodec.New()),
	}
}

var place = sessionstore.Place{Key: sessionstore.Key{ID: sessionstore.ID{1}, App: "shop"}, Attr: "order"}

func TestCodecsRoundTrip_F1(t *testing.T) {
	o := order{7, []string{"a", ""}, map[string]float64{"x": 1.5}, time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC), &order{Number: 8}}
	for name, codec := range codecs(t) {
		t.Run(name, func(t *testing.T) {
			data, err := codec.Encode(place, o)
			if err != nil {
				t.Fatal(err)
			}
			var got order
			if err := codec.Decode(place, data, &got); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, o) {
				t.Errorf("got %+v, want %+v", got, o)
			}
			if _, err := codec.Encode(place, make(chan int)); err == nil {
				t.Error("a channel was encoded")
			}
			for _, garbage := range [][]byte{nil, {}, {0}, []byte("{"), data[:len(data)/2], bytes.Repeat([]byte{0xff}, 100)} {
				var v order
				if err := codec.Decode(place, garbage, &v); err == nil {
					t.Errorf("%x was decoded", garbage)
				}
			}
		})
	}
}

func TestSessionsInEachCodec(t *testing.T) {
	orders := sessionstore.NewAttr[order]("order")
	for name, codec := range codecs(t) {
		n := newNode(t, membackend.New(), "", &sessionstore.Config{Codec: codec})
		c := &client{}
		c.do(t, n.Manager, func(s *sessionstore.Session) {
			orders.Set(s, order{Number: 1})
			count.Set(s, 1)
		})
		c.do(t, n.Manager, func(s *sessionstore.Session) {
			orders.Update(s, func(o order) order { o.Number++; return o })
			count.Update(s, func(n int) int { return n + 1 })
		})
		o, _ := get(t, c, n.Manager, orders)
		v, _ := get(t, c, n.Manager, count)
		if o.Number != 2 || v != 2 {
			t.Errorf("%s: %d, %d", name, o.Number, v)
		}
	}
}

func TestEncryptedIsBoundToItsPlace(t *testing.T) {
	key := bytes.Repeat([]byte{1}, 32)
	codec, err := sessionstore.Encrypted(sessionstore.JSON{}, key)
	if err != nil {
		t.Fatal(err)
	}
	const secret = "a secret value"
	data, err := codec.Encode(place, secret)
	if err != nil {
		t.Fatal(err)
	}
	again, _ := codec.Encode(place, secret)
	if bytes.Contains(data, []byte(secret)) || bytes.Equal(data, again) {
		t.Error("plaintext is visible, or a nonce was used twice")
	}
	other := map[string]sessionstore.Place{"another session": place, "another application": place, "another attribute": place}
	p := other["another session"]
	p.Key.ID = sessionstore.ID{2}
	other["another session"] = p
	p = other["another application"]
	p.Key.App = "shopo" // with attribute "rder" it would spell the same if lengths were left out
	p.Attr = "rder"
	other["another application"] = p
	p = other["another attribute"]
	p.Attr = "orders"
	other["another attribute"] = p
	for what, p := range other {
		var v string
		if err := codec.Decode(p, data, &v); !errors.Is(err, sessionstore.ErrUndecryptable) {
			t.Errorf("%s: %v, %q", what, err, v)
		}
	}
	for i := range data {
		bad := bytes.Clone(data)
		bad[i] ^= 1
		var v string
		if err := codec.Decode(place, bad, &v); !errors.Is(err, sessionstore.ErrUndecryptable) {
			t.Errorf("byte %d changed: %v", i, err)
		}
	}
	if s := fmt.Sprintf("%v %+v %#v", codec, codec, codec); strings.Contains(s, "1 1 1 1") || strings.Contains(s, "0x1, 0x1") {
		t.Errorf("the key is printed: %s", s)
	}
}

func TestEncryptionKeysRotate(t *testing.T) {
	k1, k2 := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	make := func(keys ...[]byte) sessionstore.Codec {
		c, err := sessionstore.Encrypted(sessionstore.JSON{}, keys...)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	old, _ := make(k1).Encode(place, 1)
	rotating := make(k2, k1)
	var v int
	if err := rotating.Decode(place, old, &v); err != nil || v != 1 {
		t.Errorf("the old key does not open: %v", err)
	}
	fresh, _ := rotating.Encode(place, 2)
	if err := make(k2).Decode(place, fresh, &v); err != nil || v != 2 {
		t.Errorf("the new key did not seal: %v", err)
	}
	if err := make(k2).Decode(place, old, &v); !errors.Is(err, sessionstore.ErrUndecryptable) {
		t.Errorf("a dropped key still opens: %v", err)
	}
	for what, keys := range map[string][][]byte{
		"none": nil, "short": {k1[:31]}, "long": {append(k1, 0)}, "nil": {nil}, "twice": {k1, k2, k1},
	} {
		if _, err := sessionstore.Encrypted(sessionstore.JSON{}, keys...); err == nil {
			t.Errorf("keys: %s: accepted", what)
		}
	}
	if _, err := sessionstore.Encrypted(nil, k1); err == nil {
		t.Error("nil codec: accepted")
	}
}

// encoding/json writes what it does not read.
func TestJSONRefusesWhatIsNestedTooDeep(t *testing.T) {
	nested := func(depth int) (v any) {
		for range depth {
			v = []any{v}
		}
		return v
	}
	var codec sessionstore.JSON
	data, err := codec.Encode(sessionstore.Place{}, nested(10_000))
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := codec.Decode(sessionstore.Place{}, data, &v); err != nil {
		t.Error(err)
	}
	if _, err := codec.Encode(sessionstore.Place{}, nested(10_001)); err == nil {
		t.Error("deeper than can be read")
	}
}

// Fuzzing gob itself found it: a map that says it has a billion entries gets the
// room for them before the first is read.
func TestDamagedGobCostsNoMemory(t *testing.T) {
	codec := sessionstore.Gob{}
	data, err := codec.Encode(place, map[string]int{"a": 1})
	if err != nil {
		t.Fatal(err)
	}
	// The value's message: its length, the type's number, 0 for "no struct", and
	// the map: one entry, "a", 1.
	value := []byte{1, 1, 'a', 2}
	at := len(data) - len(value)
	if !bytes.Equal(data[at:], value) {
		t.Fatalf("not the encoding this test knows: % x", data)
	}
	damaged := slices.Concat(data[:at], []byte{0xfc, 0x40, 0, 0, 0}, data[at+1:])
	for i := at; ; i-- {
		if int(damaged[i]) == len(data)-i-1 {
			damaged[i] += 4
			break
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var v map[string]int
	err = codec.Decode(place, damaged, &v)
	runtime.ReadMemStats(&after)
	if err == nil || after.TotalAlloc-before.TotalAlloc > 1<<20 {
		t.Errorf("%v, %d bytes allocated", err, after.TotalAlloc-before.TotalAlloc)
	}
}

// fuzzCodec: whatever is stored, decoding neither panics nor, once decoded, fails
// to be stored again.
func fuzzCodec(f *testing.F, codec sessionstore.Codec) {
	for _, v := range []any{order{Number: 1, Lines: []string{"x"}, Paid: map[string]float64{"a": 1}}, order{Next: &order{}}, 1, "x", nil, []int{1}} {
		if data, err := codec.Encode(place, v); err == nil {
			f.Add(data)
		}
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		var v order
		if codec.Decode(place, data, &v) != nil {
			return
		}
		if _, err := codec.Encode(place, v); err != nil && v.At.Year() >= 0 && v.At.Year() <= 9999 {
			t.Errorf("decoded, but does not encode: %v", err)
		}
	})
}

func FuzzJSON(f *testing.F) { fuzzCodec(f, sessionstore.JSON{}) }
func FuzzGob(f *testing.F)  { fuzzCodec(f, sessionstore.Gob{}) }
func FuzzCBOR(f *testing.F) { fuzzCodec(f, cborcodec.New()) }

func FuzzEncrypted(f *testing.F) {
	codec, err := sessionstore.Encrypted(sessionstore.JSON{}, bytes.Repeat([]byte{1}, 32))
	if err != nil {
		f.Fatal(err)
	}
	fuzzCodec(f, codec)
}

// What CBOR encodes it decodes, whatever its decoder's defaults say.
func TestCBORDecodesWhatItEncodes(t *testing.T) {
	codec := cborcodec.New()
	var nested any = "core"
	for range 1000 {
		nested = []any{nested}
	}
	keys := make(map[string]int)
	for i := range 140_000 {
		keys[strconv.Itoa(i)] = i
	}
	for what, v := range map[string]any{
		"a string that is not UTF-8": "caf\xe9",
		"a key that is not UTF-8":    map[any]any{"caf\xe9": uint64(1)},
		"a long list":                make([]any, 140_000),
		"a large map":                keys,
		"a value in depth":           nested,
	} {
		data, err := codec.Encode(sessionstore.Place{}, v)
		if err != nil {
			t.Errorf("%s: encode: %v", what, err)
			continue
		}
		got := reflect.New(reflect.TypeOf(v))
		if err := codec.Decode(sessionstore.Place{}, data, got.Interface()); err != nil {
			t.Errorf("%s: decode: %v", what, err)
		} else if !reflect.DeepEqual(got.Elem().Interface(), v) {
			t.Errorf("%s came back as another one", what)
		}
	}
}

// A codec that panics fails the commit, not the handler.
func TestACodecThatPanicsFailsTheCommit(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", &sessionstore.Config{Codec: sessionstore.Gob{}})
	pointer := sessionstore.NewAttr[*int]("pointer")
	_, err := (&client{}).try(n.Manager, func(s *sessionstore.Session) { pointer.Set(s, nil) }) // gob has no nil
	if !errors.Is(err, sessionstore.ErrUnstorable) || !strings.Contains(err.Error(), "pointer") {
		t.Errorf("commit returned %v", err)
	}
}

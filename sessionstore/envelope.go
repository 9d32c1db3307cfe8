package sessionstore

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"unique"
)

// The envelope is what a Record's Data holds: a format byte, then for each
// attribute, in the order of their names, the name and the value's encoded
// bytes, each after its length as an unsigned varint. No attributes at all are
// no bytes at all.
const envelopeFormat = 1

// An attribute is one stored value. Its data is never modified.
type attribute struct {
	name string
	data []byte
	// decoded caches the value for types that may be shared, see Attr.Get.
	decoded atomic.Pointer[any]
}

// decodedBytes is the most data whose decoded value is kept beside them. To decode
// more takes little longer than to copy it, and would count twice in the cache.
const decodedBytes = 128

// attributes is a session's attributes, sorted by name. It is immutable, but for
// the decoded values it caches.
type attributes []*attribute

// newAttributes returns n attributes to be filled in, next to each other in memory.
func newAttributes(n int) attributes {
	if n == 0 {
		return nil
	}
	all, as := make([]attribute, n), make(attributes, n)
	for i := range as {
		as[i] = &all[i]
	}
	return as
}

// search returns where name is, or would be.
func (as attributes) search(name string) (i int, found bool) {
	return slices.BinarySearchFunc(as, name, func(a *attribute, name string) int {
		return strings.Compare(a.name, name)
	})
}

func (as attributes) find(name string) (*attribute, bool) {
	i, ok := as.search(name)
	if !ok {
		return nil, false
	}
	return as[i], true
}

// An outcome is what an attribute is to be: data, or absent.
type outcome struct {
	name    string
	data    []byte
	present bool
}

// with returns a copy in which the outcomes, one per name, are true, or as itself where
// they are already. It sorts them.
func (as attributes) with(outcomes ...outcome) attributes {
	slices.SortFunc(outcomes, func(x, y outcome) int { return strings.Compare(x.name, y.name) })
	merged, rest, changed := make(attributes, 0, len(as)+len(outcomes)), as, false
	for _, o := range outcomes {
		i, found := rest.search(o.name)
		merged, rest = append(merged, rest[:i]...), rest[i:]
		var old *attribute
		if found {
			old, rest = rest[0], rest[1:]
		}
		switch {
		case found && o.present && string(old.data) == string(o.data):
			merged = append(merged, old)
		case o.present:
			merged, changed = append(merged, &attribute{name: o.name, data: o.data}), true
		default:
			changed = changed || found
		}
	}
	if !changed {
		return as
	}
	return append(merged, rest...)
}

// encodedSize returns the number of bytes encode returns.
func (as attributes) encodedSize() int {
	if len(as) == 0 {
		return 0
	}
	n := 1
	for _, a := range as {
		n += uvarintLen(len(a.name)) + len(a.name) + uvarintLen(len(a.data)) + len(a.data)
	}
	return n
}

// encode returns the envelope.
func (as attributes) encode() []byte {
	if len(as) == 0 {
		return nil
	}
	b := make([]byte, 0, as.encodedSize())
	b = append(b, envelopeFormat)
	for _, a := range as {
		b = binary.AppendUvarint(b, uint64(len(a.name)))
		b = append(b, a.name...)
		b = binary.AppendUvarint(b, uint64(len(a.data)))
		b = append(b, a.data...)
	}
	return b
}

// in returns the attributes as parts of data, which encode has made of them, so that
// they hold no other memory: not the envelopes that they were loaded with.
func (as attributes) in(data []byte) attributes {
	moved, end := newAttributes(len(as)), 1
	for i, a := range as {
		start := end + uvarintLen(len(a.name)) + len(a.name) + uvarintLen(len(a.data))
		end = start + len(a.data)
		moved[i].name, moved[i].data = a.name, data[start:end:end]
		moved[i].decoded.Store(a.decoded.Load())
	}
	return moved
}

// decodeEnvelope reads what encode wrote. The attributes share data's memory.
// Errors wrap ErrCorrupt and never quote the data.
func decodeEnvelope(data []byte) (attributes, error) {
	if len(data) == 0 {
		return nil, nil
	}
	if data[0] != envelopeFormat {
		return nil, fmt.Errorf("%w: envelope format %d, this version reads %d", ErrCorrupt, data[0], envelopeFormat)
	}
	rest := data[1:]
	field := func() ([]byte, bool) {
		n, w := binary.Uvarint(rest)
		if w <= 0 || n > uint64(len(rest)-w) || w != uvarintLen(int(n)) {
			return nil, false
		}
		f := rest[w : w+int(n) : w+int(n)]
		rest = rest[w+int(n):]
		return f, true
	}
	count := 0
	for ; len(rest) > 0; count++ {
		if name, ok := field(); !ok || ValidateName(string(name)) != nil {
			return nil, fmt.Errorf("%w: bad attribute name at byte %d of %d", ErrCorrupt, len(data)-len(rest), len(data))
		}
		if _, ok := field(); !ok {
			return nil, fmt.Errorf("%w: bad attribute value at byte %d of %d", ErrCorrupt, len(data)-len(rest), len(data))
		}
	}
	as := newAttributes(count)
	rest = data[1:]
	for i, a := range as {
		name, _ := field()
		a.data, _ = field()
		a.name = unique.Make(string(name)).Value() // shared by most sessions
		if i > 0 && as[i-1].name >= a.name {
			return nil, fmt.Errorf("%w: attribute names out of order", ErrCorrupt)
		}
	}
	return as, nil
}

func uvarintLen(n int) int {
	l := 1
	for u := uint64(n); u >= 0x80; u >>= 7 {
		l++
	}
	return l
}

// changedAttributes returns the names, in order, whose values differ.
func changedAttributes(before, after attributes) []string {
	var names []string
	for len(before) > 0 || len(after) > 0 {
		switch {
		case len(after) == 0 || len(before) > 0 && before[0].name < after[0].name:
			names = append(names, before[0].name)
			before = before[1:]
		case len(before) == 0 || after[0].name < before[0].name:
			names = append(names, after[0].name)
			after = after[1:]
		default:
			if before[0] != after[0] && string(before[0].data) != string(after[0].data) {
				names = append(names, after[0].name)
			}
			before, after = before[1:], after[1:]
		}
	}
	return names
}

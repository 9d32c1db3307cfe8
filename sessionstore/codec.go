package sessionstore

import (
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"encoding/json"
	"errors"
	"hash/crc32"
)

// A Place says where a value is stored. An encrypting codec binds a value to its
// place, so that a sealed value moved elsewhere does not open.
type Place struct {
	Key  Key
	Attr string
}

// A Codec encodes attribute values, one at a time. Implementations are safe for
// concurrent use. Changing a manager's codec makes the values stored before
// undecodable, which costs each such attribute its value (P13), never the session.
type Codec interface {
	// Encode returns v's encoding, which the caller owns. It fails if v's type or
	// value has none.
	Encode(at Place, v any) ([]byte, error)
	// Decode stores the value in the pointer v and does not keep data. It fails,
	// and never panics, on bytes that Encode did not return for v's type.
	Decode(at Place, data []byte, v any) error
}

// JSON is the default codec: encoding/json. Bytes of strings that are not UTF-8 come
// back as U+FFFD, also in keys of maps, of which some may then be the same. Values nested
// deeper than 10,000 have no encoding. The zero value is ready for use.
type JSON struct{}

// maxNesting is how deep encoding/json nests what it reads. What it writes it nests
// without limit.
const maxNesting = 10_000

// Encode implements [Codec].
func (JSON) Encode(_ Place, v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err == nil && len(data) > 2*maxNesting && !json.Valid(data) { // two brackets for each
		return nil, errors.New("json: nested deeper than can be read")
	}
	return data, err
}

// Decode implements [Codec].
func (JSON) Decode(_ Place, data []byte, v any) error { return json.Unmarshal(data, v) }

// Gob is encoding/gob behind a checksum: four bytes of CRC-32C, because gob takes
// the sizes it reads for true, and a damaged count of map entries would cost the
// process its memory. Each value carries its type description, so small values are
// several times larger than in JSON. Values of interface types must be registered
// with [gob.Register]. The zero value is ready for use.
type Gob struct{}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encode implements [Codec].
func (Gob) Encode(_ Place, v any) ([]byte, error) {
	var buf bytes.Buffer
	buf.Write(make([]byte, crc32.Size))
	if err := gob.NewEncoder(&buf).Encode(v); err != nil {
		return nil, err
	}
	data := buf.Bytes()
	binary.BigEndian.PutUint32(data, crc32.Checksum(data[crc32.Size:], castagnoli))
	return data, nil
}

// Decode implements [Codec].
func (Gob) Decode(_ Place, data []byte, v any) error {
	if len(data) < crc32.Size || binary.BigEndian.Uint32(data) != crc32.Checksum(data[crc32.Size:], castagnoli) {
		return errors.New("gob: the checksum does not match: not a value of this codec, or damaged")
	}
	return gob.NewDecoder(bytes.NewReader(data[crc32.Size:])).Decode(v)
}

// Package cborcodec encodes session attributes in CBOR (RFC 8949), through
// fxamacker/cbor: about as fast as it gets, and smaller than JSON where values
// hold binary data or many numbers. It is a package of its own so that programs
// that do not use it do not compile it.
//
//	app, err := sessionstore.New(ids, "shop", &sessionstore.Config{Codec: cborcodec.New()})
package cborcodec

import (
	"math"

	"github.com/fxamacker/cbor/v2"
	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// A Codec is the CBOR codec: Core Deterministic Encoding, times as RFC 3339 text
// with nanoseconds. It is immutable and safe for concurrent use. The zero Codec
// is not ready for use; see [New]. It decodes no value nested deeper than 65,535 levels.
type Codec struct {
	enc cbor.EncMode
	dec cbor.DecMode
}

var _ sessionstore.Codec = Codec{}

// New returns the CBOR codec.
func New() Codec {
	options := cbor.CoreDetEncOptions()
	options.Time = cbor.TimeRFC3339Nano
	enc, err := options.EncMode()
	if err != nil {
		panic(err) // the options are constant and valid
	}
	dec, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, // what Encode never writes is no value
		// What Encode writes is a value: sessions are bounded by their bytes.
		UTF8:             cbor.UTF8DecodeInvalid,
		MaxArrayElements: math.MaxInt32,
		MaxMapPairs:      math.MaxInt32,
		MaxNestedLevels:  math.MaxUint16,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return Codec{enc, dec}
}

// Encode implements [sessionstore.Codec].
func (c Codec) Encode(_ sessionstore.Place, v any) ([]byte, error) { return c.enc.Marshal(v) }

// Decode implements [sessionstore.Codec].
func (c Codec) Decode(_ sessionstore.Place, data []byte, v any) error {
	return c.dec.Unmarshal(data, v)
}

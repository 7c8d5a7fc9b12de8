package bus

import (
	"encoding/binary"
	"errors"
)

// The record form of an event, the one the log keeps:
//
//	version  byte, 1
//	flags    byte, bit 0: the data is JSON
//	count    uvarint, then for each attribute: kind byte,
//	         uvarint length and bytes of the name, the same of the value
//	data     the rest, untouched
//
// Checksums are the pack's business, not the record's.
const (
	recordVersion = 1
	flagJSON      = 1
)

var errRecord = errors.New("bus: not an event record")

// AppendRecord appends the record form of e to dst.
func (e Event) AppendRecord(dst []byte) []byte {
	var flags byte
	if e.json {
		flags |= flagJSON
	}
	dst = append(dst, recordVersion, flags)
	dst = binary.AppendUvarint(dst, uint64(len(e.attrs)))
	for i := range e.attrs {
		a := &e.attrs[i]
		dst = append(dst, byte(a.Kind))
		dst = appendText(dst, a.Name)
		dst = appendText(dst, a.Value)
	}
	return append(dst, e.data...)
}

func appendText(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// DecodeRecord reads what AppendRecord wrote. The event keeps rec. It was
// validated before it was stored and is not validated again.
func DecodeRecord(rec []byte) (Event, error) {
	if len(rec) < 3 || rec[0] != recordVersion {
		return Event{}, errRecord
	}
	flags := rec[1]
	rest := rec[2:]
	n, size := binary.Uvarint(rest)
	if size <= 0 || n < required || n > uint64(len(rest)) {
		return Event{}, errRecord
	}
	rest = rest[size:]
	end, ok := skipAttrs(rest, int(n))
	if !ok {
		return Event{}, errRecord
	}
	// One copy makes strings of all the attributes.
	text := string(rest[:end])
	attrs := make([]Attr, n)
	for i, at := 0, 0; i < int(n); i++ {
		attrs[i].Kind = Kind(text[at])
		attrs[i].Name, at = cutText(text, at+1)
		attrs[i].Value, at = cutText(text, at)
	}
	for i, name := range [required]string{"specversion", "id", "source", "type"} {
		if attrs[i].Name != name {
			return Event{}, errRecord
		}
	}
	e := Event{attrs: attrs, json: flags&flagJSON != 0}
	if end < len(rest) {
		e.data = rest[end:]
	}
	return e, nil
}

// skipAttrs finds the end of n attributes.
func skipAttrs(b []byte, n int) (end int, ok bool) {
	for range n {
		end++ // the kind
		for range 2 {
			if end >= len(b) {
				return 0, false
			}
			length, size := binary.Uvarint(b[end:])
			if size <= 0 || length > uint64(len(b)-end-size) {
				return 0, false
			}
			end += size + int(length)
		}
	}
	return end, true
}

// cutText reads one length-prefixed text at a place that skipAttrs checked.
func cutText(s string, at int) (text string, next int) {
	var length, shift uint
	for {
		c := s[at]
		at++
		length |= uint(c&0x7f) << shift
		if c < 0x80 {
			break
		}
		shift += 7
	}
	return s[at : at+int(length)], at + int(length)
}

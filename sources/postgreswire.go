package sources

import (
	"bytes"
	"encoding/binary"
	"errors"
	"time"
)

// pgWire reads the fields of one message of the output plugin pgoutput (PostgreSQL
// documentation, "Logical Replication Message Formats", protocol version 1). Past
// the end of the message every field is zero and short is true, so that a message
// is read in one go and checked once. pglogrepl has such a decoder too, which
// panics on a message that is cut.
type pgWire struct {
	b     []byte
	short bool
}

// pgValue is one column of a row: text 't', NULL 'n', or 'u' for a large value that
// did not change and was not sent. text is part of the message.
type pgValue struct {
	kind byte
	text []byte
}

var errPgShort = errors.New("a replication message is cut or malformed: is the output plugin of the slot pgoutput?")

func (w *pgWire) take(n int) []byte {
	if n < 0 || n > len(w.b) {
		w.b, w.short = nil, true
		return nil
	}
	taken := w.b[:n]
	w.b = w.b[n:]
	return taken
}

func (w *pgWire) byte() byte {
	if b := w.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (w *pgWire) uint16() uint16 {
	if b := w.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (w *pgWire) uint32() uint32 {
	if b := w.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (w *pgWire) uint64() uint64 {
	if b := w.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// time is a moment in microseconds since 2000.
func (w *pgWire) time() time.Time {
	const epoch = 946684800 // 2000-01-01 in Unix seconds
	micros := int64(w.uint64())
	return time.Unix(epoch+micros/1e6, micros%1e6*1e3).UTC()
}

func (w *pgWire) string() string {
	end := bytes.IndexByte(w.b, 0)
	if end < 0 {
		w.b, w.short = nil, true
		return ""
	}
	return string(w.take(end + 1)[:end])
}

// row reads a row into dst, whose memory it uses again. A row without columns is not
// nil, which stands for no row.
func (w *pgWire) row(dst []pgValue) []pgValue {
	n := w.uint16()
	if dst = dst[:0]; dst == nil {
		dst = []pgValue{}
	}
	for range n {
		v := pgValue{kind: w.byte()}
		switch v.kind {
		case 't':
			v.text = w.take(int(w.uint32()))
		case 'n', 'u':
		default: // binary was not asked for
			w.b, w.short = nil, true
		}
		if w.short {
			break
		}
		dst = append(dst, v)
	}
	return dst
}

// end is the error of the message, when it was not what it should be.
func (w *pgWire) end() error {
	if w.short {
		return errPgShort
	}
	return nil
}

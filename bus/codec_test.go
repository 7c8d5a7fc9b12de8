package bus_test

import (
	"bytes"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"sluice/bus"
)

func TestRecordIdentity(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		e := anyEvent().Draw(t, "event")
		rec := e.AppendRecord(nil)
		back, err := bus.DecodeRecord(rec)
		if err != nil {
			t.Fatal(err)
		}
		same(t, e, back)
		// A record that was cut anywhere before its data is no event.
		cut := rapid.IntRange(0, len(rec)-len(e.Data())-1).Draw(t, "cut")
		if _, err := bus.DecodeRecord(rec[:cut]); err == nil {
			t.Fatalf("%d of %d bytes are an event", cut, len(rec))
		}
	})
}

func TestRecordLengths(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 127, 128, 129, 255, 256, 16383, 16384, 1 << 20} {
		e := mustEvent(t, "data", attr("x", strings.Repeat("v", n)), attr(strings.Repeat("n", n), "1"))
		back, err := bus.DecodeRecord(e.AppendRecord(nil))
		if err != nil {
			t.Fatalf("%d: %v", n, err)
		}
		same(t, e, back)
	}
}

func TestDecodeRecordFaults(t *testing.T) {
	t.Parallel()
	rec := mustEvent(t, "data").AppendRecord(nil)
	for name, bad := range map[string][]byte{
		"nothing":       nil,
		"short":         {1, 0},
		"other version": append([]byte{2}, rec[1:]...),
		"other order":   bytes.Replace(rec, []byte("\x02id"), []byte("\x02di"), 1),
		"huge count":    {1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01},
		"endless count": append([]byte{1, 0}, bytes.Repeat([]byte{0xff}, 20)...),
		"few":           {1, 0, 1, 0, 1, 'a', 1, 'b'},
	} {
		if e, err := bus.DecodeRecord(bad); err == nil || !e.IsZero() {
			t.Errorf("%s: %v, %v", name, e.Attrs(), err)
		}
	}
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add(mustEvent(f, `{"a":1}`, attr("x", "1")).AppendRecord(nil))
	f.Add(mustEvent(f, "").AppendRecord(nil))
	f.Add([]byte{1, 0, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, rec []byte) {
		e, err := bus.DecodeRecord(rec)
		if err != nil {
			return
		}
		back, err := bus.DecodeRecord(e.AppendRecord(nil))
		if err != nil {
			t.Fatal(err)
		}
		same(t, e, back)
		if e.Size() < len(e.Data()) {
			t.Fatalf("Size is %d", e.Size())
		}
	})
}

func BenchmarkRecord(b *testing.B) {
	e := mustEvent(b, `{"k":"`+strings.Repeat("x", 1015)+`"}`, attr("datacontenttype", "application/json"), attr("time", "2026-01-02T03:04:05Z"), attr("subject", "a/b.jpg"))
	rec := e.AppendRecord(nil)
	b.Run("append", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			rec = e.AppendRecord(rec[:0])
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := bus.DecodeRecord(rec); err != nil {
				b.Fatal(err)
			}
		}
	})
}

package jetstream

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func sealed(records ...[]byte) []byte {
	b := encodePack(records)
	sealPack(b, time.Unix(1_700_000_000, 123))
	return b
}

func TestPack(t *testing.T) {
	t.Parallel()
	for _, records := range [][][]byte{
		nil, {{}}, {nil, {}}, {[]byte("a")}, {[]byte("a"), {}, []byte("bc")}, slices.Repeat([][]byte{[]byte("x")}, 1000),
	} {
		got, at, err := decodePack(sealed(records...), true)
		if err != nil || len(got) != len(records) || at.UnixNano() != 1_700_000_000_000_000_123 {
			t.Fatalf("%d records came back as %d, of %v: %v", len(records), len(got), at, err)
		}
		for i := range got {
			if got[i] == nil || !bytes.Equal(got[i], records[i]) {
				t.Fatalf("record %d: got %q, want %q", i, got[i], records[i])
			}
		}
	}
}

// TestPackDamage flips each bit, and cuts at each byte: every record comes back as
// it was, or nil, or the whole pack is an error.
func TestPackDamage(t *testing.T) {
	t.Parallel()
	records := [][]byte{[]byte("first"), {}, []byte("the second"), []byte("third")}
	whole := sealed(records...)
	check := func(what string, b []byte, mayBeWhole bool) {
		t.Helper()
		got, _, err := decodePack(b, true)
		if err != nil {
			return
		}
		lost := 0
		for i, r := range got {
			if r == nil {
				lost++
			} else if !bytes.Equal(r, records[i]) {
				t.Fatalf("%s: record %d reads %q", what, i, r)
			}
		}
		if lost == 0 && !mayBeWhole {
			t.Fatalf("%s: nothing is reported", what)
		}
	}
	for i := range whole {
		for bit := range 8 {
			b := bytes.Clone(whole)
			b[i] ^= 1 << bit
			check(fmt.Sprintf("byte %d bit %d", i, bit), b, i == 3) // which is unused, and covered all the same
		}
		check(fmt.Sprintf("cut at %d", i), whole[:i], false)
	}
}

func FuzzDecodePack(f *testing.F) {
	f.Add(sealed([]byte("a"), nil))
	f.Add([]byte("SP\x01\x00\xff\xff\xff\xff"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		decodePack(b, true)
		decodePack(b, false)
	})
}

func FuzzKey(f *testing.F) {
	for _, key := range []string{"", "thumbs", "a.b", "*", "=", "=41", "ü", strings.Repeat("k", 256)} {
		f.Add(key)
	}
	token := regexp.MustCompile(`^[A-Za-z0-9_=-]+$`)
	f.Fuzz(func(t *testing.T, key string) {
		got, err := keyToken(key)
		if (err != nil) != (len(key) > maxKey) {
			t.Fatalf("a key of %d bytes: %v", len(key), err)
		}
		if err == nil && (!token.MatchString(got) || tokenKey(got) != key) {
			t.Fatalf("%q became %q and then %q", key, got, tokenKey(got))
		}
	})
}

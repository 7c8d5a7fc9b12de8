package sources

import (
	"bytes"
	"strings"
	"testing"
)

// Whatever was rejected can be wrapped, and its bytes are kept.
func TestRejectedEvent(t *testing.T) {
	t.Parallel()
	for name, r := range map[string]Rejected{
		"plain":     {ID: "a/1/2", Where: "a/1/2", Reason: "no", ContentType: "text/plain", Data: []byte("x")},
		"empty":     {},
		"odd bytes": {ID: "a\x00\xffb\n", Where: strings.Repeat("é", 2000), ContentType: "a\r\nb", Data: []byte{0, 255}},
		"not JSON":  {ID: "1", ContentType: "application/json", Data: []byte("{")},
		"cut JSON":  {ID: "1", Where: "a/1/2", ContentType: "application/json", Data: []byte("{")},
		"no JSON any more": {ID: "1", Where: "a/1/2", ContentType: "application/json",
			Data: []byte(`"` + strings.Repeat("x", maxRejected) + `"`)},
		"long": {ID: "1", Data: bytes.Repeat([]byte("x"), maxRejected+1)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := r.Event("clicks")
			if e.ID() == "" || e.Source() != "/sources/clicks" || e.Type() != TypeRejected {
				t.Errorf("got %s", e.AppendJSON(nil))
			}
			if want := r.Data[:min(len(r.Data), maxRejected)]; !bytes.Equal(e.Data(), want) {
				t.Errorf("%d bytes of data, want %d", len(e.Data()), len(want))
			}
			if (e.Subject() == "") != (r.Where == "") {
				t.Errorf("the place is %q, want that of %q", e.Subject(), r.Where)
			}
			if again := r.Event("clicks"); again.ID() != e.ID() {
				t.Error("the id is not the same the second time")
			}
		})
	}
}

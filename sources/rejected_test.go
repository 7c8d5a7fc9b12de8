package sources

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// What came beside the data is kept too, as far as there is room for it.
func TestRejectedRecord(t *testing.T) {
	t.Parallel()
	many := make([]Header, 0, 10_001)
	for range 10_000 {
		many = append(many, Header{"a", []byte("b")})
	}
	many = append(many, Header{"last", bytes.Repeat([]byte("x"), maxRejectedHeaders)})
	for name, c := range map[string]struct {
		r    Rejected
		want map[string]string // attributes; "" for none
	}{
		"text": {Rejected{Key: []byte("k é"), Headers: []Header{{"ce_id", []byte("<1>")}, {"ce_id", nil}}}, map[string]string{
			"originalkey": "k é", "originalkeybase64": "", "originalheaders": `[{"name":"ce_id","value":"\u003c1\u003e"},{"name":"ce_id","value":""}]`,
		}},
		"bytes": {Rejected{Key: []byte{0, 255}, Headers: []Header{{"a\x00\u0085\xff", []byte{0, 255}}, {"n", []byte("\uffff")}}}, map[string]string{
			"originalkey": "", "originalkeybase64": "AP8=", "originalheaders": `[{"name":"a???","base64":"AP8="},{"name":"n","base64":"77+/"}]`,
		}},
		"long key": {Rejected{Key: bytes.Repeat([]byte("é"), maxRejectedKey)}, map[string]string{
			"originalkey": strings.Repeat("é", maxRejectedKey/2), "originalkeysize": "8192", "originalheaders": "",
		}},
		"nothing": {Rejected{}, map[string]string{"originalkey": "", "originalkeybase64": "", "originalheaders": ""}},
	} {
		e := c.r.Event("clicks")
		for attr, want := range c.want {
			if got := e.Get(attr); got != want {
				t.Errorf("%s: %s is %s, want %s", name, attr, got, want)
			}
		}
	}
	text := Rejected{Headers: many}.Event("clicks").Get("originalheaders")
	var list []map[string]any
	if err := json.Unmarshal([]byte(text), &list); err != nil || len(text) > maxRejectedHeaders+100 {
		t.Fatalf("%d bytes, %v", len(text), err)
	}
	if left, _ := list[len(list)-1]["left_out"].(float64); left < 1 || int(left)+len(list)-1 != len(many) {
		t.Errorf("%d headers are kept and %v left out of %d", len(list)-1, left, len(many))
	}
}

// Whatever was rejected can be wrapped, and its bytes are kept.
func TestRejectedEvent(t *testing.T) {
	t.Parallel()
	for name, r := range map[string]Rejected{
		"plain":      {ID: "a/1/2", Where: "a/1/2", Reason: "no", ContentType: "text/plain", Data: []byte("x")},
		"empty":      {},
		"odd record": {ID: "1", Key: []byte("\xff"), Headers: []Header{{"\xff", []byte("\xff")}, {"", nil}, {"\u0080", []byte("\u0080\ufffe")}}},
		"odd bytes":  {ID: "a\x00\xffb\n", Where: strings.Repeat("é", 2000), ContentType: "a\r\nb", Data: []byte{0, 255}},
		"not JSON":   {ID: "1", ContentType: "application/json", Data: []byte("{")},
		"cut JSON":   {ID: "1", Where: "a/1/2", ContentType: "application/json", Data: []byte("{")},
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

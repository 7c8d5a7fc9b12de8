package sources

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The item of a batch reads back as it was.
func TestItemJSON(t *testing.T) {
	t.Parallel()
	for _, it := range []item{
		{}, {Index: 7, ID: "a\"\u2028\n", OK: true, Position: "12.3", Deduplicated: true},
		{Index: 1, Status: 400, Error: "<no> & \x00 \xff", Attribute: "id"},
	} {
		var got, want item
		if err := json.Unmarshal(it.appendJSON(nil), &got); err != nil {
			t.Fatalf("%+v: %v in %s", it, err, it.appendJSON(nil))
		}
		text, err := json.Marshal(it)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(item{})); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	}
}

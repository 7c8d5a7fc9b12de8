package rules_test

import (
	"fmt"

	"sluice/rules"
)

func Example() {
	thumbnails, err := rules.ParsePattern([]byte(`{
		"type": [{"prefix": "object.created"}],
		"data": {"key": [{"suffix": ".jpg"}, {"suffix": ".png"}], "size": [{"numeric": [">", 0]}]}
	}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	audit, err := rules.ParsePattern([]byte(`{"source": [{"exists": true}]}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	set, err := rules.Compile([]rules.Rule{
		{Name: "thumbnails", Pattern: thumbnails},
		{Name: "audit", Pattern: audit},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	hits, err := set.Match([]byte(`{"type":"object.created.put","source":"s3/uploads","data":{"key":"cat.jpg","size":3}}`), nil)
	fmt.Println(hits, err)
	// Output: [0 1] <nil>
}

func ExampleParsePattern() {
	_, err := rules.ParsePattern([]byte(`{"data": {"key": [{"sufix": ".jpg"}]}}`))
	fmt.Println(err)
	// Output: pattern, byte 19: data.key: there is no operator "sufix": did you mean "suffix"?
}

func ExampleExplain() {
	p, err := rules.ParsePattern([]byte(`{"type": ["order.created"], "data": {"total": [{"numeric": [">=", 100]}]}}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(rules.Explain(p, []byte(`{"type": "Order.created", "data": {"total": "250"}}`)))
	// Output:
	// no match: not fulfilled: type, data.total
	//   ✗ type: wanted ["order.created"], found "Order.created"
	//       differs only in case: use {"equals-ignore-case": "order.created"}
	//   ✗ data.total: wanted [{"numeric": [">=", 100]}], found "250"
	//       found the string "250", wanted a number: strings never equal numbers
}

// order is the smallest thing that can be matched as an event.
type order struct{ data string }

func (o order) NumAttributes() int { return 1 }
func (o order) Attribute(int) (name, value string, literal bool) {
	return "type", "order.created", false
}
func (o order) Data() []byte     { return []byte(o.data) }
func (o order) DataIsJSON() bool { return true }

func ExampleSet_MatchEvent() {
	p, err := rules.ParsePattern([]byte(`{"type": ["order.created"], "data.total": [250]}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	set, err := rules.Compile([]rules.Rule{{Name: "big", Pattern: p}})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(set.MatchEvent(order{`{"total": 250.0}`}, nil))
	// Output: [0] <nil>
}

package config_test

import (
	"errors"
	"fmt"

	"sluice/config"
)

func ExampleParse() {
	src := `
sinks:
  thumbs: {http: {url: "http://127.0.0.1:9000/thumb"}, timeout: 30}
rules:
  images:
    match: {type: [{prefix: object.created}]}
    to: [thums]
`
	_, err := config.Parse("sluice.yaml", []byte(src), options())
	var faults config.Faults
	if errors.As(err, &faults) {
		for _, f := range faults {
			fmt.Println(f)
		}
	}
	// Output:
	// sluice.yaml:3:65: sinks.thumbs.timeout: "30" has no unit: write "30s", or another unit of ms, s, m, h, d
	// sluice.yaml:7:10: rules.images.to[0]: there is no sink "thums", did you mean "thumbs"?
}

func ExampleDiff() {
	before, err := config.Parse("sluice.yaml", []byte(`sinks: {a: {stdout: {}}, b: {stdout: {}}}`), options())
	if err != nil {
		fmt.Println(err)
		return
	}
	after, err := config.Parse("sluice.yaml", []byte(`sinks: {b: {stdout: {}, timeout: 5s}, c: {stdout: {}}}`), options())
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(config.Diff(before, after))
	// Output: sinks +c -a ~b
}

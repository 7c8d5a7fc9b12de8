package value_test

import (
	"encoding"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/config/value"
)

// check parses text and compares what it prints, or its error, with want.
func check[T encoding.TextMarshaler](t *testing.T, parse func(string) (T, error), text, want string) {
	t.Helper()
	v, err := parse(text)
	var got string
	if err != nil {
		got = "error: " + err.Error()
	} else {
		b, err := v.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		got = string(b)
	}
	if got != want {
		t.Errorf("%q\n got %s\nwant %s", text, got, want)
	}
	if err == nil {
		if again, err := parse(got); err != nil || any(again) != any(v) {
			t.Errorf("%q prints as %q, which reads as %v, %v", text, got, again, err)
		}
	}
}

func TestDuration(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"250ms":    "250ms",
		"72h":      "3d",
		"7d":       "7d",
		"1d12h30m": "1d12h30m",
		"90s":      "1m30s",
		"60m":      "1h",
		"1h0m5s":   "1h0m5s",
		"1.5s":     "1.5s",
		"0":        "0s",
		"10m0s":    "10m",
		"30":       `error: "30" has no unit: write "30s", or another unit of ms, s, m, h, d`,
		"":         `error: is empty: write a duration such as "30s"`,
		"-5s":      `error: "-5s" is negative: write a duration of 0 or more`,
		"soon":     `error: "soon" is not a duration: write one such as "250ms", "30s", "1h30m" or "7d"`,
		"1.5d":     `error: "1.5d" is not a duration: write one such as "250ms", "30s", "1h30m" or "7d"`,
		"1d-5h":    `error: "1d-5h" is not a duration: write one such as "250ms", "30s", "1h30m" or "7d"`,
		"200000d":  `error: "200000d" is too long: write at most 292 years, 106751d`,
	} {
		check(t, value.ParseDuration, text, want)
	}
}

func TestBytes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"10GiB":      "10GiB",
		"1MiB":       "1MiB",
		"500KB":      "500KB",
		"1.5KiB":     "1536B",
		"1536MiB":    "1536MiB",
		"4096":       "4KiB",
		"1234":       "1234B",
		"0":          "0",
		"10 GiB":     "10GiB",
		"10gib":      `error: "gib" is not a unit: write "10GiB"`,
		"10G":        `error: "G" is not a unit: write "10GiB" (1024s) or "10GB" (1000s)`,
		"10Gi":       `error: "Gi" is not a unit: write "10GiB" (1024s) or "10GB" (1000s)`,
		"10 pages":   `error: "pages" is not a unit: write B, KB, MB, GB, TB, KiB, MiB, GiB or TiB`,
		"large":      `error: "large" is not a size: write one such as "500KB", "1MiB" or "10GiB"`,
		"-1MiB":      `error: "-1MiB" is not a size: write one such as "500KB", "1MiB" or "10GiB"`,
		"1.2.3KB":    `error: "1.2.3" is not a number: write a size such as "500KB", "1MiB" or "10GiB"`,
		"0.5B":       `error: "0.5B" is not a whole number of bytes`,
		"9999999TiB": `error: "9999999TiB" is too large: write at most 9223372036854775807 bytes`,
	} {
		check(t, value.ParseBytes, text, want)
	}
}

func TestRate(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"100/s":     "100/s",
		"6000/m":    "6000/m",
		"10/h":      "10/h",
		"0.5/s":     "0.5/s",
		"1/10s":     "1/10s",
		"5/d":       "5/d",
		"unlimited": "unlimited",
		"100":       `error: "100" has no time: write "100/s", or another of /s, /m, /h, /d`,
		"0/s":       `error: "0/s" lets nothing through: write a rate above 0, or "unlimited"`,
		"NaN/s":     `error: "NaN/s" is not a rate: write one such as "100/s", "6000/m" or "10/h"`,
		"fast":      `error: "fast" is not a rate: write one such as "100/s", "6000/m" or "10/h"`,
		"1/week":    `error: "1/week" is not a rate: after the / write s, m, h, d or a duration such as 10s`,
		"1/":        `error: "1/" is not a rate: after the / write s, m, h, d or a duration such as 10s`,
	} {
		check(t, value.ParseRate, text, want)
	}
	if got := (value.Rate{Count: 6000, Per: time.Minute}).PerSecond(); got != 100 {
		t.Errorf("6000/m is %v in a second", got)
	}
	if r := (value.Rate{}); !r.Unlimited() || r.PerSecond() != 0 {
		t.Errorf("the zero rate is %v", r)
	}
}

func TestParseURL(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"http://127.0.0.1:9000/thumb": "",
		"https://[::1]/x?y=z":         "",
		"":                            "is empty: write a URL such as http://host/path",
		"127.0.0.1:9000":              "is not a URL: write one such as http://host/path, with special characters percent-encoded",
		"/thumb":                      "is not an absolute URL: write one such as http://host/path",
		"localhost:9000":              "is not an absolute URL: write one such as http://host/path",
		"ftp://host/":                 `has the scheme "ftp": write http or https`,
		"http:///thumb":               "names no host: write one such as http://host/path",
		"http://u:hun/ter2@host":      "is not a URL: write one such as http://host/path, with special characters percent-encoded",
	} {
		u, err := value.ParseURL(text)
		if got := message(err); got != want {
			t.Errorf("%q\n got %s\nwant %s", text, got, want)
		}
		if err == nil && u.String() != text {
			t.Errorf("%q prints as %s", text, u)
		}
	}
	if _, err := value.ParseURL("redis://host:6379", "redis", "rediss"); err != nil {
		t.Error(err)
	}
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestUnmarshalTextKeepsTheOldValueOnError(t *testing.T) {
	t.Parallel()
	d, b, r := value.Duration(time.Second), value.Bytes(7), value.Rate{Count: 1, Per: time.Second}
	for _, v := range []encoding.TextUnmarshaler{&d, &b, &r} {
		if err := v.UnmarshalText([]byte("?")); err == nil {
			t.Errorf("%T took a ?", v)
		}
	}
	if d != value.Duration(time.Second) || b != 7 || r.Count != 1 {
		t.Errorf("changed to %v, %v, %v", d, b, r)
	}
	for v, text := range map[encoding.TextUnmarshaler]string{&d: "2s", &b: "8", &r: "2/s"} {
		if err := v.UnmarshalText([]byte(text)); err != nil {
			t.Error(err)
		}
	}
	if d != value.Duration(2*time.Second) || b != 8 || r.Count != 2 {
		t.Errorf("read %v, %v, %v", d, b, r)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "7d", "1d2h", "10GiB", "1.5KiB", "1e9999GiB", "100/s", "1/10s", "http://u:p@h/${env:A}", "${", "$${", "${env:A:-b}", "${file:/x}"} {
		f.Add(s)
	}
	r := value.Resolver{
		Env:      func(name string) (string, bool) { return name, name != "" },
		ReadFile: func(path string) ([]byte, error) { return []byte(path), nil },
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := value.ParseDuration(s); err == nil {
			if again, err := value.ParseDuration(d.String()); err != nil || again != d {
				t.Errorf("%q is %s, which reads as %s, %v", s, d, again, err)
			}
		}
		if b, err := value.ParseBytes(s); err == nil {
			if again, err := value.ParseBytes(b.String()); err != nil || again != b {
				t.Errorf("%q is %s, which reads as %s, %v", s, b, again, err)
			}
		}
		if rate, err := value.ParseRate(s); err == nil {
			if again, err := value.ParseRate(rate.String()); err != nil || again != rate {
				t.Errorf("%q is %s, which reads as %s, %v", s, rate, again, err)
			}
		}
		var u value.URL
		if err := u.Resolve(s, r); err == nil {
			_ = u.String()
		}
		var text value.Text
		if err := text.Resolve(s, r); err == nil && !strings.Contains(s, "${") && text.Value() != s {
			t.Errorf("%q resolved to %q", s, text.Value())
		}
		if got := value.NewText(s); got.Value() != s {
			t.Errorf("NewText(%q) is %q", s, got.Value())
		} else if err := text.Resolve(got.String(), r); err != nil || text.Value() != s {
			t.Errorf("%q prints as %q, which reads as %q, %v", s, got, text.Value(), err)
		}
	})
}

func TestFaults(t *testing.T) {
	t.Parallel()
	var none, faults value.Faults
	if err := none.Under("k").Err(); err != nil {
		t.Error(err)
	}
	faults.Add("size", "must be at most %d", 3)
	faults.Add("", "is empty")
	got := faults.Under("limits")
	want := value.Faults{{Key: "limits.size", Msg: "must be at most 3"}, {Key: "limits", Msg: "is empty"}}
	if !slices.Equal(got, want) || got.Err().Error() != "limits.size must be at most 3" {
		t.Errorf("%v, %v", got, got.Err())
	}
	if faults[0].Key != "size" {
		t.Errorf("the faults themselves were changed: %v", faults)
	}
}

package value_test

import (
	"net/netip"
	"strings"
	"testing"

	"sluice/config/value"
)

func TestCIDR(t *testing.T) {
	t.Parallel()
	for text, c := range map[string]struct{ text, in, out string }{
		"10.1.0.0/16":  {"10.1.0.0/16", "10.1.255.255", "10.2.0.0"},
		"192.168.7.1":  {"192.168.7.1/32", "192.168.7.1", "192.168.7.2"},
		"fd00:1::/32":  {"fd00:1::/32", "fd00:1:2::3", "fd00:2::"},
		"fd00::7":      {"fd00::7/128", "fd00::7", "fd00::8"},
		"0.0.0.0/0":    {"0.0.0.0/0", "127.0.0.1", "::1"},
		"127.0.0.1/32": {"127.0.0.1/32", "127.0.0.1", "::ffff:127.0.0.1"},
	} {
		got, err := value.ParseCIDR(text)
		if err != nil || got.String() != c.text || !got.Contains(netip.MustParseAddr(c.in)) || got.Contains(netip.MustParseAddr(c.out)) {
			t.Errorf("%s is %s, %v; it has to contain %s and not %s", text, got, err, c.in, c.out)
		}
	}
	for text, want := range map[string]string{
		"":                    "is not a range of addresses",
		"10.1.0.0/33":         "is not a range of addresses",
		"10.1/16":             "is not a range of addresses",
		"localhost":           "is not a range of addresses",
		"fe80::1%eth0":        "is not a range of addresses",
		"10.1.2.3/16":         `write "10.1.0.0/16", or "10.1.2.3" for the one address`,
		"::ffff:10.1.0.0/112": "write it as IPv4",
		"::ffff:10.1.2.3":     "is not a range of addresses",
	} {
		c := value.CIDR{}
		if err := c.UnmarshalText([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
		if c.Contains(netip.MustParseAddr("10.1.2.3")) {
			t.Errorf("%q: what could not be read contains addresses", text)
		}
	}
}

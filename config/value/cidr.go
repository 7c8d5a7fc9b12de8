package value

import (
	"fmt"
	"net/netip"
)

// CIDR is a range of IP addresses, written "10.1.0.0/16" or "fd00:1::/32"; an address
// alone is the range of just that. The zero value contains nothing.
type CIDR struct{ prefix netip.Prefix }

// ParseCIDR reads a range.
func ParseCIDR(text string) (CIDR, error) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" && !addr.Is4In6() {
		return CIDR{netip.PrefixFrom(addr, addr.BitLen())}, nil
	}
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return CIDR{}, fmt.Errorf(`%q is not a range of addresses: write one such as "10.1.0.0/16" or "fd00:1::/32"`, text)
	case p.Addr().Is4In6():
		return CIDR{}, fmt.Errorf("%q is IPv4 in the form of IPv6: write it as IPv4", text)
	case p != p.Masked():
		return CIDR{}, fmt.Errorf("%q has address bits behind its length: write %q, or %q for the one address", text, p.Masked(), p.Addr())
	}
	return CIDR{p}, nil
}

// Contains tells whether an address is in the range. One that is IPv4 in the form of
// IPv6 has to be unmapped first.
func (c CIDR) Contains(addr netip.Addr) bool { return c.prefix.Contains(addr) }

// String is the form that ParseCIDR reads.
func (c CIDR) String() string { return c.prefix.String() }

// UnmarshalText reads what ParseCIDR reads.
func (c *CIDR) UnmarshalText(text []byte) error {
	v, err := ParseCIDR(string(text))
	if err == nil {
		*c = v
	}
	return err
}

// MarshalText is String.
func (c CIDR) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

package sinks

import (
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"sluice/config/value"
)

// refusedAddress is an address that nothing is delivered to.
type refusedAddress struct {
	addr    netip.Addr
	guarded bool // the sink may not, others may
}

func (e *refusedAddress) Error() string {
	if e.guarded {
		return fmt.Sprintf("%s is an address of this machine or of a private network, which a sink that was added at run time may not reach unless subscriptions.allow of the config has it", e.addr)
	}
	return fmt.Sprintf("%s is a cloud metadata address, which hands out credentials: nothing is delivered there but by an http sink of the config with metadata_service: true", e.addr)
}

// guard is the net.Dialer.Control of a sink. It runs after name resolution and
// before each connect, so that no name, and no name that changes its address, leads
// around it.
func (e Env) guard(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("not an address: %s", address)
	}
	addr := ap.Addr().WithZone("").Unmap()
	if metadataService(addr) {
		if e.Guarded || !e.metadata {
			return &refusedAddress{addr: ap.Addr()}
		}
		return nil
	}
	if e.Guarded && private(addr) && !e.allows(addr) {
		return &refusedAddress{ap.Addr(), true}
	}
	return nil
}

// reach is env with what the settings say about metadata services.
func (s *HTTP) reach(env Env) Env {
	env.metadata = s.Metadata
	return env
}

// allows tells whether the operator lets guarded sinks reach an address. What another
// address leads to, such as one of NAT64, has to be written as that.
func (e Env) allows(addr netip.Addr) bool {
	return slices.ContainsFunc(e.Allow, func(c value.CIDR) bool { return c.Contains(addr) })
}

// metadataService tells whether an address belongs to the metadata service of a cloud, which
// hands out credentials to whoever asks. The operator's sinks may reach what else is
// link-local.
func metadataService(addr netip.Addr) bool {
	addr = embedded(addr.WithZone("").Unmap())
	switch addr.String() {
	case "100.100.100.200", // Alibaba Cloud
		"168.63.129.16",   // Azure
		"192.0.0.192",     // Oracle Cloud
		"169.254.0.23",    // Tencent Cloud
		"169.254.42.42",   // Scaleway
		"fd00:42::42",     // Scaleway
		"fe80::a9fe:a9fe": // OpenStack
		return true
	}
	return within(addr, "169.254.169.0/24") || // nearly everybody
		within(addr, "169.254.170.0/24") || // the credentials of containers and pods of AWS
		within(addr, "fd00:ec2::/32") || // AWS
		within(addr, "fd20:ce::/32") // Google Cloud
}

// private tells whether an address is not one of the public internet: loopback,
// private, multicast, or set aside for something else (RFC 6890 and its
// successors).
func private(addr netip.Addr) bool {
	if addr.Is6() && slices.ContainsFunc([]string{
		"64:ff9b:1::/48", // NAT64 of a network's own: where the IPv4 address stands is not known
		"100::/64", "2001::/23", "2001:db8::/32", "3fff::/20", "5f00::/16", "fec0::/10",
	}, func(prefix string) bool { return within(addr, prefix) }) {
		return true
	}
	addr = embedded(addr)
	if addr.Is6() {
		return !within(addr, "2000::/3") // all that is given out; loopback, fc00::/7 and multicast are not
	}
	return addr.IsMulticast() || slices.ContainsFunc([]string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
		"192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
	}, func(prefix string) bool { return within(addr, prefix) })
}

func within(addr netip.Addr, prefix string) bool { return netip.MustParsePrefix(prefix).Contains(addr) }

// embedded is the IPv4 address that an IPv6 address stands for in NAT64, 6to4,
// ISATAP and the old compatible form, or the address itself.
func embedded(addr netip.Addr) netip.Addr {
	b := addr.As16()
	switch {
	case !addr.Is6() || addr == netip.IPv6Loopback() || addr == netip.IPv6Unspecified():
		return addr
	case within(addr, "64:ff9b::/96"), within(addr, "64:ff9b:1::/48"), within(addr, "::/96"),
		string(b[8:12]) == "\x00\x00\x5e\xfe", string(b[8:12]) == "\x02\x00\x5e\xfe":
		return netip.AddrFrom4([4]byte(b[12:]))
	case within(addr, "2002::/16"):
		return netip.AddrFrom4([4]byte(b[2:6]))
	}
	return addr
}

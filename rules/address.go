package rules

import (
	"encoding/binary"

	"sluice/bus/jsonscan"
)

// address is an IP address as a number. IPv4 and IPv6 never compare equal.
type address struct {
	hi, lo uint64
	v6     bool
}

func (a address) less(b address) bool {
	if a.hi != b.hi {
		return a.hi < b.hi
	}
	return a.lo < b.lo
}

// block is the addresses of one CIDR, both ends included.
type block struct {
	first, last address
	bits        int
}

func (b *block) contains(a address) bool {
	return a.v6 == b.first.v6 && !a.less(b.first) && !b.last.less(a)
}

// newBlock is the block of a's network of the given prefix length.
func newBlock(a address, bits int) *block {
	b := &block{first: a, last: a, bits: bits}
	if !a.v6 {
		host := uint64(1)<<(32-bits) - 1
		b.first.lo &^= host
		b.last.lo |= host
		return b
	}
	hiHost, loHost := ^uint64(0)>>min(bits, 64), ^uint64(0)
	if bits > 64 {
		loHost = ^uint64(0) >> (bits - 64)
	}
	if bits == 128 {
		loHost = 0
	}
	if bits >= 64 {
		hiHost = 0
	}
	b.first.hi &^= hiHost
	b.first.lo &^= loHost
	b.last.hi |= hiHost
	b.last.lo |= loHost
	return b
}

// parseAddress reads an IP address literal, the dotted form or the colon form
// without a zone. It does not use net/netip because that allocates its error,
// and most strings of an event are not addresses.
func parseAddress[T string | []byte](s T) (address, bool) {
	if len(s) < 2 || len(s) > 45 || jsonscan.HexDigit(s[0]) < 0 && s[0] != ':' {
		return address{}, false
	}
	for i := 0; i < len(s) && i < 5; i++ {
		switch s[i] {
		case '.':
			return parseV4(s)
		case ':':
			return parseV6(s)
		}
	}
	return address{}, false
}

func parseV4[T string | []byte](s T) (address, bool) {
	var v, part uint64
	dots, digits := 0, 0
	for i := range len(s) {
		c := s[i]
		if c == '.' {
			if digits == 0 || dots == 3 {
				return address{}, false
			}
			v, part, digits = v<<8|part, 0, 0
			dots++
			continue
		}
		if c < '0' || c > '9' {
			return address{}, false
		}
		part = part*10 + uint64(c-'0')
		digits++
		if digits > 3 || part > 255 {
			return address{}, false
		}
	}
	if dots != 3 || digits == 0 {
		return address{}, false
	}
	return address{lo: v<<8 | part}, true
}

func parseV6[T string | []byte](s T) (address, bool) {
	var ip [16]byte
	n, gap := 0, -1 // bytes written, and where "::" stands
	i := 0
	if s[0] == ':' {
		if s[1] != ':' {
			return address{}, false
		}
		gap, i = 0, 2
	}
	for i < len(s) {
		if n == 16 {
			return address{}, false
		}
		v, digits := 0, 0
		for ; i < len(s) && jsonscan.HexDigit(s[i]) >= 0; i++ {
			v = v<<4 | jsonscan.HexDigit(s[i])
			digits++
			if digits > 4 {
				return address{}, false
			}
		}
		if digits == 0 {
			return address{}, false
		}
		ip[n], ip[n+1] = byte(v>>8), byte(v)
		n += 2
		if i == len(s) {
			break
		}
		if s[i] != ':' || i+1 == len(s) {
			return address{}, false
		}
		i++
		if s[i] == ':' {
			if gap >= 0 {
				return address{}, false
			}
			gap = n
			i++
		}
	}
	if gap < 0 && n != 16 || gap >= 0 && n == 16 {
		return address{}, false
	}
	if gap >= 0 {
		copy(ip[16-(n-gap):], ip[gap:n])
		clear(ip[gap : 16-(n-gap)])
	}
	return address{hi: binary.BigEndian.Uint64(ip[:8]), lo: binary.BigEndian.Uint64(ip[8:]), v6: true}, true
}

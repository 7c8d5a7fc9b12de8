package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/config/value"
)

// Exposed reports that other machines can reach the listener.
func (s Server) Exposed() bool {
	host, _, err := net.SplitHostPort(s.Listen)
	if err != nil {
		return true
	}
	if strings.EqualFold(host, "localhost") {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return err != nil || !ip.IsLoopback()
}

// Validate finds what single values cannot show. Call it again after a flag has
// changed the address.
func (s Server) Validate() value.Faults {
	var faults value.Faults
	if msg := badAddress(s.Listen); msg != "" {
		faults.Add("listen", "%s", msg)
	} else if s.Exposed() && s.Auth.IsZero() && s.TLS.ClientCA == "" {
		faults.Add("listen", "other machines reach %s, and nothing says who may call: "+
			"write auth with tokens, or auth: none if everybody may, or listen on 127.0.0.1", s.Listen)
	}
	if s.ReadHeaderTimeout <= 0 {
		faults.Add("read_header_timeout", "must be more than 0: without it slow clients hold the server")
	}
	if s.ReadTimeout < s.Limits.BodyTimeout {
		faults.Add("read_timeout", "must not be below limits.body_timeout (%s), is %s", s.Limits.BodyTimeout, s.ReadTimeout)
	}
	if (s.TLS.Cert == "") != (s.TLS.Key == "") {
		faults.Add("tls", "needs both cert and key")
	}
	if s.TLS.ClientCA != "" && !s.TLS.Enabled() {
		faults.Add("tls.client_ca", "needs cert and key: only TLS has client certificates")
	}
	if len(s.Auth.Certificates) > 0 && s.TLS.ClientCA == "" {
		faults.Add("auth.certificates", "needs server.tls.client_ca: it says whose certificates count")
	}
	return slices.Concat(faults, s.Auth.Validate().Under("auth"), s.Limits.validate().Under("limits"), s.CORS.Validate())
}

func (l Limits) validate() value.Faults {
	var faults value.Faults
	if l.EventBytes < 1<<10 || l.EventBytes > 16<<20 {
		faults.Add("event", "must be from 1KiB to 16MiB, is %s", l.EventBytes)
	}
	if l.BatchBytes < l.EventBytes || l.BatchBytes > 256<<20 {
		faults.Add("batch", "must be from limits.event (%s) to 256MiB, is %s", l.EventBytes, l.BatchBytes)
	}
	if l.BatchEvents < 1 || l.BatchEvents > 100_000 {
		faults.Add("batch_events", "must be from 1 to 100000, is %d", l.BatchEvents)
	}
	if l.BodyTimeout <= 0 {
		faults.Add("body_timeout", "must be more than 0: without it slow clients hold the server")
	}
	if l.Connections < 1 {
		faults.Add("connections", "must be at least 1, is %d", l.Connections)
	}
	return faults
}

// badAddress says what is wrong with an address to listen on, or "".
func badAddress(listen string) string {
	_, port, err := net.SplitHostPort(listen)
	if err != nil {
		return fmt.Sprintf("%s is not an address: write host:port, such as 127.0.0.1:8484", quote(listen))
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Sprintf("%s is not a port: write a number from 0 to 65535", quote(port))
	}
	return ""
}

// Sync says when an accepted event is forced to disk. The zero value is always.
type Sync struct {
	every time.Duration
}

// SyncEvery forces to disk every so often; a power loss can undo what was accepted
// since. SyncEvery(0) is always.
func SyncEvery(d time.Duration) Sync { return Sync{d} }

// Always reports that nothing is accepted before it is on disk.
func (s Sync) Always() bool { return s.every <= 0 }

// Every is the time between two syncs; 0 when it is always.
func (s Sync) Every() time.Duration { return max(0, s.every) }

const always = "always"

// UnmarshalText reads "always" or a duration.
func (s *Sync) UnmarshalText(text []byte) error {
	if string(text) == always {
		*s = Sync{}
		return nil
	}
	d, err := value.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf(`%q is no way to sync: write always, or a duration such as "100ms"`, text)
	}
	if d == 0 {
		return errors.New("write always instead of 0")
	}
	*s = Sync{time.Duration(d)}
	return nil
}

// String is the form that is read.
func (s Sync) String() string {
	if s.Always() {
		return always
	}
	return value.Duration(s.every).String()
}

// MarshalText is String.
func (s Sync) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Validate finds what single values cannot show.
func (s Store) Validate() value.Faults {
	var faults value.Faults
	if s.Dir == "" {
		faults.Add("dir", "names no directory")
	}
	if s.MaxBytes != 0 && s.MaxBytes < 1<<20 {
		faults.Add("max_bytes", "must be at least 1MiB, or 0 for as large as the disk")
	}
	return faults
}

// Validate finds what single values cannot show.
func (c CORS) Validate() value.Faults {
	var faults value.Faults
	for i, origin := range c.Origins {
		u, err := url.Parse(origin)
		if origin != "*" && (err != nil || u.Scheme == "" || u.Host == "" || u.Scheme+"://"+u.Host != origin) {
			faults.Add(fmt.Sprintf("cors.origins[%d]", i),
				"%s is not an origin: write one such as https://shop.example.com, without a path, or * for all", quote(origin))
		}
	}
	return faults
}

// Allows tells whether pages of an origin may send events.
func (c CORS) Allows(origin string) bool {
	return slices.Contains(c.Origins, "*") || slices.Contains(c.Origins, origin)
}

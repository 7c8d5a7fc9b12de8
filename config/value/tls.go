package value

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

// TLS are the settings of an encrypted connection to a server. The files are read again
// when they have changed: new connections use what they hold then.
type TLS struct {
	CA         string `yaml:"ca" doc:"A PEM file with the authorities that may sign the server's certificate, in place of the system's."`
	Cert       string `yaml:"cert" doc:"A PEM file with the certificate to show to the server."`
	Key        string `yaml:"key" doc:"A PEM file with the key of cert."`
	ServerName string `yaml:"server_name" doc:"The name in the server's certificate, where it is not the host that is connected to."`
	Insecure   bool   `yaml:"insecure" doc:"Trust any certificate: whoever is in between can read and change everything. For tests only."`
}

// Validate finds what a single value cannot show. The faults' keys begin with tls,
// which is what such settings are called. A nil TLS has none.
func (t *TLS) Validate() Faults {
	var faults Faults
	if t == nil {
		return nil
	}
	if (t.Cert == "") != (t.Key == "") {
		faults.Add("tls", "has one of cert and key: give both, or neither")
	}
	if t.Insecure && t.CA != "" {
		faults.Add("tls.insecure", "makes ca useless: leave out one of them")
	}
	return faults
}

// Config reads the files and makes a client's configuration.
func (t *TLS) Config() (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName, InsecureSkipVerify: t.Insecure} //nolint:gosec // only where the operator wrote it
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("tls.ca: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls.ca: %s holds no certificate in PEM form", t.CA)
		}
	}
	if t.Cert != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("tls.cert and tls.key: %w", err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}

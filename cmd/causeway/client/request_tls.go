package client

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// maxPEM bounds the files that flags name.
const maxPEM = 1 << 20

// tlsFlags say how the client does TLS with whoever ends it.
type tlsFlags struct {
	ca, cert, key, sni string
	insecure           bool
}

func (f *tlsFlags) addFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.ca, "tls-cacert", "", "file with the roots that the answering server's certificate must be of, PEM (default: the system's)")
	flags.StringVar(&f.cert, "tls-cert", "", "file with the certificate to show to the answering server, PEM")
	flags.StringVar(&f.key, "tls-key", "", "file with its key, PEM")
	flags.StringVar(&f.sni, "sni", "", "server name of TLS (default: the URL's host)")
	flags.BoolVarP(&f.insecure, "insecure", "k", false, "take any certificate of the answering server")
}

func (f *tlsFlags) any() bool { return f.named() != "" }

// named lists the flags that are set.
func (f *tlsFlags) named() string {
	var out []string
	for _, flag := range []struct {
		name string
		set  bool
	}{{"--tls-cacert", f.ca != ""}, {"--tls-cert", f.cert != ""}, {"--tls-key", f.key != ""}, {"--sni", f.sni != ""}, {"--insecure", f.insecure}} {
		if flag.set {
			out = append(out, flag.name)
		}
	}
	return strings.Join(out, ", ")
}

// config is that of the target's connections, nil if they are not encrypted.
func (f *tlsFlags) config(t target) (*tls.Config, error) {
	if !t.TLS() {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.url.Hostname(), InsecureSkipVerify: f.insecure}
	if f.sni != "" {
		c.ServerName = f.sni
	}
	if f.ca != "" {
		data, err := readPEM(f.ca)
		if err != nil {
			return nil, fmt.Errorf("--tls-cacert: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("--tls-cacert: %s holds no certificate", f.ca)
		}
	}
	if (f.cert == "") != (f.key == "") {
		return nil, errors.New("--tls-cert and --tls-key go together")
	}
	if f.cert != "" {
		cert, err := readPEM(f.cert)
		if err != nil {
			return nil, fmt.Errorf("--tls-cert: %w", err)
		}
		key, err := readPEM(f.key)
		if err != nil {
			return nil, fmt.Errorf("--tls-key: %w", err)
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("--tls-cert and --tls-key: %w", err)
		}
		// Shown whatever authorities the server asks for: it is to judge.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	return c, nil
}

func readPEM(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxPEM {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxPEM)
	}
	return os.ReadFile(path)
}

// TLSSeen is a connection as the client sees it.
type TLSSeen struct {
	Version    string      `json:"version"` // "TLSv1.3"
	Protocol   string      `json:"negotiatedProtocol,omitempty"`
	ServerName string      `json:"serverName"`
	Server     Certificate `json:"certificate"`
}

// Certificate is what a server has shown.
type Certificate struct {
	Subject  string   `json:"subject"`
	Issuer   string   `json:"issuer"`
	Serial   string   `json:"serial"`
	DNSNames []string `json:"dnsNames,omitempty"`
	URIs     []string `json:"uris,omitempty"`
}

func tlsSeen(s *tls.ConnectionState) *TLSSeen {
	if s == nil {
		return nil
	}
	out := &TLSSeen{Version: strings.Replace(tls.VersionName(s.Version), "TLS ", "TLSv", 1), Protocol: s.NegotiatedProtocol, ServerName: s.ServerName}
	if len(s.PeerCertificates) > 0 {
		leaf := s.PeerCertificates[0]
		out.Server = Certificate{Subject: leaf.Subject.String(), Issuer: leaf.Issuer.String(), Serial: hex.EncodeToString(leaf.SerialNumber.Bytes()), DNSNames: leaf.DNSNames}
		for _, u := range leaf.URIs {
			out.Server.URIs = append(out.Server.URIs, u.String())
		}
	}
	return out
}

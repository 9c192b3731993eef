// Package mounted reads the credentials that `causeway clusterset init` and `cluster
// add` make and the Helm charts mount: a folder of files, one for each key of their
// Secret.
//
// What is renewed in the folder is taken up without a restart: certificates are
// read at each handshake. A file that can't be read fails that handshake, with an
// error that names it, and nothing else. The functions may be called from any
// goroutine.
package mounted

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/causeway-mesh/causeway/cluster/identity"
	"github.com/causeway-mesh/causeway/federation/gossip"
)

// Files of every member of the clusterset.
const (
	StoreRoots  = "store-ca.crt"      // who signs etcd's certificates
	StoreCert   = "store.crt"         // of the etcd user: a cluster's agent, or the hub
	StoreKey    = "store.key"         //
	Gossip      = "gossip.key"        //
	DomainRoots = "clusterset-ca.crt" // of the clusterset's own trust domain: hubs and people
)

// Further files of hubs.
const (
	PolicyCert = "policy.crt" // of the etcd user that writes the policy
	PolicyKey  = "policy.key"
	HubCert    = "hub.crt" // the hubs' SVID
	HubKey     = "hub.key"
)

// maxFile bounds each file.
const maxFile = 1 << 20

// Dir is such a folder.
type Dir string

func (d Dir) path(name string) string { return filepath.Join(string(d), name) }

func (d Dir) read(name string) ([]byte, error) { return readFile(d.path(name)) }

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > maxFile:
		return nil, fmt.Errorf("%s has more than %d bytes", path, maxFile)
	}
	return data, nil
}

// Store is the client side of the store for the user that a certificate names,
// StoreCert and StoreKey as a rule.
func (d Dir) Store(cert, key string) (*tls.Config, error) {
	return StoreTLS(d.path(StoreRoots), d.path(cert), d.path(key))
}

// StoreTLS is the client side of a store, from PEM files. All must be there from
// the beginning; the certificate may be renewed.
func StoreTLS(roots, cert, key string) (*tls.Config, error) {
	pem, err := readFile(roots)
	if err != nil {
		return nil, fmt.Errorf("the store's roots: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", roots)
	}
	load := func() (*tls.Certificate, error) {
		c, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("the store's client certificate: %w", err)
		}
		return &c, nil
	}
	if _, err := load(); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: pool,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() },
	}, nil
}

// GossipKey is the key of the clusterset's gossip.
func (d Dir) GossipKey() (gossip.Key, error) {
	data, err := d.read(Gossip)
	if err != nil {
		return gossip.Key{}, err
	}
	k, err := gossip.ParseKey(string(data))
	if err != nil {
		return gossip.Key{}, fmt.Errorf("%s: %w", d.path(Gossip), err)
	}
	return k, nil
}

// GossipConfig is what flags of a command say of its gossip: --gossip, the address to
// bind, --advertise, empty for that one, and --join. The caller adds who it is.
func (d Dir) GossipConfig(bind, advertise string, join []string, log *slog.Logger) (gossip.Config, error) {
	key, err := d.GossipKey()
	if err != nil {
		return gossip.Config{}, err
	}
	out := gossip.Config{Key: key, Join: func() []string { return slices.Clone(join) }, Timing: gossip.LAN(), Logger: log}
	if out.Bind, err = netip.ParseAddrPort(bind); err != nil {
		return gossip.Config{}, fmt.Errorf("--gossip: %w", err)
	}
	if advertise != "" {
		if out.Advertise, err = netip.ParseAddrPort(advertise); err != nil {
			return gossip.Config{}, fmt.Errorf("--advertise: %w", err)
		}
	}
	return out, nil
}

// Domain is the roots of the clusterset's own trust domain, read at each handshake.
func (d Dir) Domain(td spiffeid.TrustDomain) identity.BundleSource { return domain{d, td} }

type domain struct {
	dir Dir
	td  spiffeid.TrustDomain
}

// GetX509BundleForTrustDomain implements identity.BundleSource.
func (s domain) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	if td != s.td {
		return nil, fmt.Errorf("no roots of trust domain %s here, only of %s", td.Name(), s.td.Name())
	}
	data, err := s.dir.read(DomainRoots)
	if err != nil {
		return nil, err
	}
	b, err := identity.ParseBundle(td, data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.dir.path(DomainRoots), err)
	}
	return b, nil
}

// SVID is a certificate with its key, read at each handshake. It fails if they are
// not there now, or are not of the id.
func (d Dir) SVID(cert, key string, want spiffeid.ID) (identity.SVIDSource, error) {
	s := svid{d.path(cert), d.path(key), want}
	_, err := s.GetX509SVID()
	return s, err
}

type svid struct {
	cert, key string
	want      spiffeid.ID
}

// GetX509SVID implements identity.SVIDSource.
func (s svid) GetX509SVID() (*x509svid.SVID, error) {
	out, err := x509svid.Load(s.cert, s.key)
	switch {
	case err != nil:
		return nil, err
	case out.ID != s.want:
		return nil, errors.New(s.cert + " is the certificate of " + out.ID.String() + ", not of " + s.want.String())
	}
	return out, nil
}

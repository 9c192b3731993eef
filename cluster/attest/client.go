package attest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/causeway-mesh/causeway/cluster/identity"
)

// ClientConfig makes a Client. All fields are required.
type ClientConfig struct {
	// Address is the agents' host:port.
	Address string
	// TokenFile holds the ServiceAccount token, RootsFile the roots of the cluster's
	// trust domain (PEM). Both are read at each request.
	TokenFile, RootsFile string
	TrustDomain          spiffeid.TrustDomain
	Role                 identity.Role
	Namespace, Name      string
}

// Client asks for one proxy's SVID. Its methods may be called from any goroutine.
type Client struct {
	cfg ClientConfig
	id  spiffeid.ID

	mu      sync.Mutex
	roots   []byte // of the last answer; nil before
	changed chan struct{}
}

// requestTimeout bounds one exchange.
const requestTimeout = 15 * time.Second

// NewClient validates and asks nobody yet.
func NewClient(cfg ClientConfig) (*Client, error) {
	if cfg.Address == "" || cfg.TokenFile == "" || cfg.RootsFile == "" || cfg.TrustDomain.IsZero() {
		return nil, errors.New("attestation: the configuration is not complete")
	}
	id, err := identity.ProxyID(cfg.TrustDomain, cfg.Role, cfg.Namespace, cfg.Name)
	if err != nil {
		return nil, err
	}
	return &Client{cfg: cfg, id: id, changed: make(chan struct{})}, nil
}

// ID is whom the SVID will name.
func (c *Client) ID() spiffeid.ID { return c.id }

// Roots gives the roots of the cluster's trust domain (PEM), and a channel that is
// closed when an answer has brought others: identity.RotatorConfig.Trust.
func (c *Client) Roots() ([]byte, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.roots != nil {
		return c.roots, c.changed
	}
	data, _ := os.ReadFile(c.cfg.RootsFile) // Issue says what is wrong with it
	return data, c.changed
}

// bundle is the roots in the file and those of the last answer: the server's
// certificate may be of either.
func (c *Client) bundle() (*x509bundle.Bundle, error) {
	data, err := os.ReadFile(c.cfg.RootsFile)
	c.mu.Lock()
	known := c.roots
	c.mu.Unlock()
	if err != nil && known == nil {
		return nil, fmt.Errorf("the cluster's roots: %w", err)
	}
	out := x509bundle.New(c.cfg.TrustDomain)
	for _, pem := range [][]byte{data, known} {
		if len(pem) == 0 {
			continue
		}
		b, err := identity.ParseBundle(c.cfg.TrustDomain, pem)
		if err != nil {
			return nil, fmt.Errorf("the cluster's roots in %s: %w", c.cfg.RootsFile, err)
		}
		for _, r := range b.X509Authorities() {
			out.AddX509Authority(r)
		}
	}
	return out, nil
}

// Issue gets a new SVID: identity.RotatorConfig.Issue.
func (c *Client) Issue(ctx context.Context) (*identity.Credential, error) {
	cred, err := c.issue(ctx)
	if err != nil {
		return nil, fmt.Errorf("certificate of %s from %s: %w", c.id, c.cfg.Address, err)
	}
	return cred, nil
}

func (c *Client) issue(ctx context.Context) (*identity.Credential, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	bundle, err := c.bundle()
	if err != nil {
		return nil, err
	}
	token, err := os.ReadFile(c.cfg.TokenFile)
	if err != nil {
		return nil, fmt.Errorf("ServiceAccount token: %w", err)
	}
	agent, err := identity.AgentID(c.cfg.TrustDomain)
	if err != nil {
		return nil, err
	}
	key, err := identity.NewKeyRequest()
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(request{Role: c.cfg.Role, Namespace: c.cfg.Namespace, Name: c.cfg.Name, CSR: key.CSR()})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+c.cfg.Address+Path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	req.Header.Set("Content-Type", "application/json")
	transport := &http.Transport{TLSClientConfig: identity.ClientConfig(nil, bundle, identity.Exactly(agent)), DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("refused (%d): %s", resp.StatusCode, strings.TrimSpace(string(data[:min(len(data), 1000)])))
	}
	var answer response
	if err := json.Unmarshal(data, &answer); err != nil {
		return nil, fmt.Errorf("the answer: %w", err)
	}
	if _, err := identity.ParseBundle(c.cfg.TrustDomain, []byte(answer.Roots)); err != nil {
		return nil, fmt.Errorf("the roots in the answer: %w", err)
	}
	cred, err := key.Credential([]byte(answer.Chain), c.id)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !bytes.Equal(c.roots, []byte(answer.Roots)) {
		c.roots = []byte(answer.Roots)
		close(c.changed)
		c.changed = make(chan struct{})
	}
	return cred, nil
}

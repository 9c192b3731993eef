package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/cluster/identity"
)

// errNoServer says that no server is named and none was found.
var errNoServer = errors.New("no running causeway found; start one with `causeway up DIR` or name a server with --server")

const maxAnswerBytes = 64 << 20

// connection are the flags by which every command finds its server.
type connection struct {
	server, cacert, cert, key, state string
	getenv                           func(string) string
}

func (c *connection) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&c.server, "server", "", "address of the query API, HOST:PORT ($CAUSEWAY_SERVER; else the running 'causeway up')")
	f.StringVar(&c.cacert, "cacert", "", "file with the server's roots, PEM ($CAUSEWAY_CACERT)")
	f.StringVar(&c.cert, "cert", "", "file with the client certificate, PEM ($CAUSEWAY_CERT)")
	f.StringVar(&c.key, "key", "", "file with the client key, PEM ($CAUSEWAY_KEY)")
	f.StringVar(&c.state, "state", "", "state directory of 'causeway up' ($CAUSEWAY_STATE)")
}

// context merges flags, environment and the file that `causeway up` wrote. What
// is named by hand wins, piece by piece, so --server alone goes on with the
// file's credentials.
func (c *connection) context() (Context, error) {
	named := func(flag, env string) string {
		if flag != "" {
			return flag
		}
		return c.getenv(env)
	}
	out := Context{
		Server: named(c.server, "CAUSEWAY_SERVER"), CACert: named(c.cacert, "CAUSEWAY_CACERT"),
		Cert: named(c.cert, "CAUSEWAY_CERT"), Key: named(c.key, "CAUSEWAY_KEY"),
	}
	if out.Server != "" && out.CACert != "" && out.Cert != "" && out.Key != "" {
		return out, nil
	}
	dir, err := StateDir(c.state, c.getenv)
	if err != nil {
		return Context{}, err
	}
	file, err := ReadContext(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) && out.Server == "" && named(c.state, "CAUSEWAY_STATE") != "":
		return Context{}, fmt.Errorf("%w; %s names none, as it would while `causeway up` runs with it, or after `causeway clusterset init --api=HOST:PORT`", errNoServer, dir)
	case errors.Is(err, fs.ErrNotExist) && out.Server == "":
		return Context{}, errNoServer
	case errors.Is(err, fs.ErrNotExist):
		return Context{}, fmt.Errorf("no credentials for %s: give --cacert, --cert and --key", out.Server)
	case err != nil:
		return Context{}, err
	}
	for _, p := range []struct {
		have *string
		file string
	}{{&out.Server, file.Server}, {&out.CACert, file.CACert}, {&out.Cert, file.Cert}, {&out.Key, file.Key}} {
		if *p.have == "" {
			*p.have = p.file
		}
	}
	return out, nil
}

// dial connects to the query API. The caller calls end.
func (c *connection) dial() (client causewayv1.FederationClient, end func(), err error) {
	conn, end, err := c.connect()
	if err != nil {
		return nil, nil, err
	}
	return causewayv1.NewFederationClient(conn), end, nil
}

// connect connects, lazily as gRPC does: a server that isn't there shows at the
// first call. The caller calls end.
func (c *connection) connect() (*grpc.ClientConn, func(), error) {
	ctx, err := c.context()
	if err != nil {
		return nil, nil, err
	}
	config, err := tlsConfig(ctx)
	if err != nil {
		return nil, nil, err
	}
	conn, err := grpc.NewClient(ctx.Server,
		grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswerBytes)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithUserAgent("causeway"),
		grpc.WithDisableServiceConfig(),
		grpc.WithChainUnaryInterceptor(func(rpc context.Context, method string, req, answer any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return readable(invoke(rpc, method, req, answer, cc, opts...), ctx.Server)
		}),
	)
	if err != nil {
		return nil, nil, fmt.Errorf("server address %q: %w", ctx.Server, err)
	}
	return conn, func() { _ = conn.Close() }, nil
}

// tlsConfig trusts the roots alone, and of what they certify only servers for
// the address that was dialled which are agents or hubs: a proxy or person with
// a certificate of the same authority can't stand in for one. The client's
// certificate is read at each handshake, since it is renewed while we run.
func tlsConfig(c Context) (*tls.Config, error) {
	roots, err := os.ReadFile(c.CACert)
	if err != nil {
		return nil, fmt.Errorf("roots of the server: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(roots) {
		return nil, fmt.Errorf("roots of the server: %s holds no certificate", c.CACert)
	}
	load := func() (*tls.Certificate, error) {
		cert, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		if err != nil {
			return nil, fmt.Errorf("client certificate: %w", err)
		}
		return &cert, nil
	}
	if _, err := load(); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:           tls.VersionTLS12,
		RootCAs:              pool,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() },
		VerifyConnection: func(state tls.ConnectionState) error {
			id, err := identity.PeerIdentity(state)
			if err != nil {
				return err
			}
			if id.Kind != identity.KindAgent && id.Kind != identity.KindHub {
				return fmt.Errorf("the server is %s, which is neither an agent nor a hub", id)
			}
			return nil
		},
	}, nil
}

// serverError is an answer of the server, or the lack of one, in words.
type serverError struct {
	code codes.Code
	text string
}

func (e *serverError) Error() string { return e.text }

// readable turns gRPC's errors into what a person needs to know.
func readable(err error, server string) error {
	if err == nil {
		return nil
	}
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	text := s.Message()
	switch s.Code() {
	case codes.Canceled:
		return context.Canceled
	case codes.Unavailable:
		if strings.Contains(text, "connection refused") || strings.Contains(text, "no such host") {
			text = fmt.Sprintf("no causeway answers at %s; start one with `causeway up DIR` or name a server with --server (%s)", server, text)
		} else if strings.Contains(text, "authentication handshake failed") {
			text = fmt.Sprintf("%s and this client do not trust each other: see --cacert, --cert and --key (%s)", server, text)
		}
	case codes.DeadlineExceeded:
		text = fmt.Sprintf("no answer from %s in time", server)
	case codes.Unimplemented:
		text = fmt.Sprintf("%s does not know that question; it is older than this client, or no causeway", server)
	}
	return &serverError{code: s.Code(), text: text}
}

func codeOf(err error) codes.Code {
	var e *serverError
	if errors.As(err, &e) {
		return e.code
	}
	return codes.Unknown
}

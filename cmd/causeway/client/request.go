package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/causeway-mesh/causeway/federation/explain"
)

// Answers is what `request -o json` prints.
type Answers struct {
	// Answers are in the order in which the requests were sent.
	Answers []Answer `json:"answers"`
	// Counts are sorted.
	Counts []Count `json:"counts"`
}

// Answer is one response.
type Answer struct {
	// Status is that of HTTP, which gRPC and WebSocket have too; 0 if there was no
	// response, and for bytes and datagrams.
	Status int `json:"status"`
	// Result is the status as text, for gRPC the name of its code, "answered" for
	// bytes and datagrams, "none" if there was no response.
	Result  string              `json:"result"`
	Proto   string              `json:"proto,omitempty"` // of HTTP, as spoken here
	Headers map[string][]string `json:"headers"`
	// Trailers come after the body; gRPC has them.
	Trailers map[string][]string `json:"trailers,omitempty"`
	// GRPC is set for gRPC, if the answer was one of it.
	GRPC *RPCStatus `json:"grpc,omitempty"`
	// TLS is the connection's, if it was encrypted.
	TLS *TLSSeen `json:"tls,omitempty"`
	// Body is the JSON of the body, or a string with it if it is none.
	Body json.RawMessage `json:"body"`
	// Error says why there was no response.
	Error string `json:"error,omitempty"`
}

// RPCStatus is how an RPC ended.
type RPCStatus struct {
	Code    int    `json:"code"`
	Name    string `json:"name"` // "UNAVAILABLE"
	Message string `json:"message,omitempty"`
}

// Count is the number of answers with one status from one pod. What the answer
// does not tell, since it comes from no echo server, is empty.
type Count struct {
	Cluster   string `json:"cluster"`
	Namespace string `json:"namespace"`
	Pod       string `json:"pod"`
	Status    int    `json:"status"`
	Result    string `json:"result"`
	Count     int    `json:"count"`
}

// Bounds of a `request`.
const (
	maxRequests    = 100_000
	maxConcurrency = 256
	maxBodyBytes   = 1 << 20
	shownBody      = 2 << 10
)

// routeHeader is the response header in which an Envoy may name the route that
// governed the request.
const routeHeader = "X-Causeway-Route"

// resultNone and resultBytes are the Results that are no status.
const (
	resultNone  = "none"
	resultBytes = "answered"
)

// requester is one run of `request`.
type requester struct {
	from, method, data string
	headers            []string
	count, concurrency int
	timeout            time.Duration
	fail               bool
	http2              bool
	reconnect          bool
	share              bool // --reconnect=false was given
	tls                tlsFlags
	format             format
}

func newRequest(cfg Config) *cobra.Command {
	conn := connection{getenv: cfg.Getenv}
	r := &requester{}
	cmd := &cobra.Command{
		Use:   "request --from CLUSTER/NAMESPACE|CLUSTER/gateway/NAMESPACE/NAME URL",
		Short: "Send real requests through a namespace's sidecar Envoy or a Gateway",
		Long: `Send real requests as a workload of a namespace would, through its sidecar
Envoy, or as someone outside would, through a Gateway.

From a namespace, the URL's host is a Service's name: svc-a, svc-a.app-ns,
svc-a.app-ns.svc.cluster.local (this cluster's Service), or
svc-a.app-ns.svc.clusterset.local (the service of all clusters). From a Gateway it
may be any; the URL's port is the listener's.

The URL's scheme says what is spoken: http (the default), ws, grpc (port 80 if none
is given); the same within TLS: https, wss, grpcs (443); bytes: tcp, tls (443), and
datagrams: udp. A URL of gRPC may name a method, grpc://HOST/package.Service/Method,
to call it as causeway.v1.Echo/Echo is called without; -d is the request's JSON then.
Over ws, tcp, tls and udp, -d is the message, and the answer is the first one.

TLS goes to whoever ends it: a Gateway's listener, or the service itself. The server's
name is the URL's host unless --sni gives another; its certificate is checked against
the system's roots or --tls-cacert, unless --insecure is given.

Redirects are shown, not followed. An answer that isn't 2xx is an answer: the exit
status is 0, unless --fail is given. It is 1 if a request got no answer at all.

-o json prints {"answers": [{"status", "result", "headers", "body"}], "counts":
[{"cluster", "namespace", "pod", "status", "result", "count"}]}. Headers are lists of
values by name; body is the body's own JSON if it is JSON, else a string.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.share = cmd.Flags().Changed("reconnect") && !r.reconnect
			return r.run(cmd.Context(), cfg, &conn, args[0])
		},
	}
	conn.addFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&r.from, "from", "", "who sends: CLUSTER/NAMESPACE or CLUSTER/gateway/NAMESPACE/NAME")
	f.StringArrayVarP(&r.headers, "header", "H", nil, "header of the request, \"Name: value\"; may be repeated")
	f.StringVarP(&r.method, "request", "X", "", "method (default GET, with -d POST)")
	f.StringVarP(&r.data, "data", "d", "", "body of the request, or the message")
	f.IntVarP(&r.count, "count", "n", 1, "how many requests")
	f.IntVarP(&r.concurrency, "concurrency", "c", 1, "how many at a time")
	f.DurationVar(&r.timeout, "timeout", 15*time.Second, "how long each may take")
	f.BoolVar(&r.fail, "fail", false, "exit 1 if an answer is not 2xx, or an RPC not OK")
	f.BoolVar(&r.http2, "http2", false, "speak HTTP/2: by prior knowledge (http) or ALPN (https)")
	f.BoolVar(&r.reconnect, "reconnect", false, "open a connection for each request (default for https and grpcs)")
	r.tls.addFlags(cmd)
	out := newChoice(&r.format, formatTable, formatJSON, formatYAML)
	f.VarP(out, "output", "o", "how to print: "+out.usage())
	return cmd
}

func (r *requester) check(t target) error {
	switch {
	case r.count < 1 || r.count > maxRequests:
		return fmt.Errorf("-n must be from 1 to %d", maxRequests)
	case r.concurrency < 1 || r.concurrency > maxConcurrency:
		return fmt.Errorf("-c must be from 1 to %d", maxConcurrency)
	case r.timeout <= 0:
		return errors.New("--timeout must be more than zero")
	case r.method != "" && t.Speaks != explain.SpeaksHTTP:
		return fmt.Errorf("-X is for http and https: %s has no methods", t.url.Scheme)
	case r.http2 && t.Speaks != explain.SpeaksHTTP:
		return fmt.Errorf("--http2 is for http and https, not %s", t.url.Scheme)
	case len(r.headers) > 0 && t.Speaks == explain.SpeaksBytes:
		return fmt.Errorf("-H is for HTTP: %s has no headers", t.url.Scheme)
	case r.tls.any() && !t.TLS():
		return fmt.Errorf("there is no TLS in %s: leave out %s", t.url.Scheme, r.tls.named())
	}
	if r.method == "" {
		r.method = http.MethodGet
		if r.data != "" {
			r.method = http.MethodPost
		}
	}
	return nil
}

func (r *requester) run(ctx context.Context, cfg Config, conn *connection, rawURL string) error {
	t, err := parseTarget(rawURL)
	if err != nil {
		return err
	}
	if err := r.check(t); err != nil {
		return err
	}
	from, err := parseSource(r.from)
	if err != nil {
		return err
	}
	headers, err := parseHeaders(r.headers)
	if err != nil {
		return err
	}
	config, err := r.tls.config(t)
	if err != nil {
		return err
	}
	c, end, err := conn.dial()
	if err != nil {
		return err
	}
	defer end()
	proxy, err := findProxy(ctx, c, from)
	if err != nil {
		return err
	}
	listener, err := findListener(proxy, from, t)
	if err != nil {
		return err
	}
	if t.TLS() && !r.share {
		r.reconnect = true // or all would go where the first one went
	}
	call, done, err := r.caller(t, wire{address: listener.GetAddress(), tls: config, headers: headers})
	if err != nil {
		return err
	}
	defer done()
	answers, err := r.send(ctx, call)
	if err != nil {
		return err
	}
	return r.report(cfg, answers, fmt.Sprintf("%s at %s", proxy.GetId(), listener.GetAddress()))
}

// call sends one request and gives its answer. It may be called concurrently.
type call func(context.Context) Answer

// caller chooses how requests are made; done frees what they share.
func (r *requester) caller(t target, w wire) (c call, done func(), err error) {
	switch t.Speaks {
	case explain.SpeaksGRPC:
		return r.rpcs(t, w)
	case explain.SpeaksWebSocket:
		return r.webSockets(t, w), func() {}, nil
	case explain.SpeaksBytes:
		return r.bytes(t, w), func() {}, nil
	}
	return r.requests(t, w)
}

// header is one -H, in the order given.
type header struct{ name, value string }

func parseHeaders(lines []string) ([]header, error) {
	var out []header
	for _, l := range lines {
		name, value, ok := strings.Cut(l, ":")
		if name = strings.TrimSpace(name); !ok || name == "" {
			return nil, fmt.Errorf("header %q must be \"Name: value\"", l)
		}
		out = append(out, header{name, strings.TrimSpace(value)})
	}
	return out, nil
}

// send makes all requests. It fails only when its context ends.
func (r *requester) send(ctx context.Context, c call) ([]Answer, error) {
	answers := make([]Answer, r.count)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(r.concurrency, r.count) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < r.count && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				ctx, cancel := context.WithTimeout(ctx, r.timeout)
				answers[i] = c(ctx)
				cancel()
			}
		})
	}
	wg.Wait()
	return answers, ctx.Err()
}

// none is the answer that there wasn't.
func none(err error) Answer {
	return Answer{Result: resultNone, Headers: map[string][]string{}, Body: json.RawMessage(`""`), Error: err.Error()}
}

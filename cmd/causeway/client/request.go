package client

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
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
	// Status is 0 if there was no response.
	Status  int                 `json:"status"`
	Headers map[string][]string `json:"headers"`
	// Body is the JSON of the body, or a string with it if it is none.
	Body json.RawMessage `json:"body"`
	// Error says why there was no response.
	Error string `json:"error,omitempty"`
}

// Count is the number of answers with one status from one pod. What the answer
// does not tell, since it comes from no echo server, is empty.
type Count struct {
	Cluster   string `json:"cluster"`
	Namespace string `json:"namespace"`
	Pod       string `json:"pod"`
	Status    int    `json:"status"`
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

// requester is one run of `request`.
type requester struct {
	from, method, data string
	headers            []string
	count, concurrency int
	timeout            time.Duration
	fail               bool
	format             format
}

func newRequest(cfg Config) *cobra.Command {
	conn := connection{getenv: cfg.Getenv}
	r := &requester{}
	cmd := &cobra.Command{
		Use:   "request --from CLUSTER/NAMESPACE|CLUSTER/gateway/NAMESPACE/NAME URL",
		Short: "Send real requests through a namespace's sidecar Envoy or a Gateway",
		Long: `Send real HTTP requests as a workload of a namespace would, through its sidecar
Envoy, or as someone outside would, through a Gateway.

From a namespace, the URL's host is a Service's name: svc-a, svc-a.app-ns,
svc-a.app-ns.svc.cluster.local (this cluster's Service), or
svc-a.app-ns.svc.clusterset.local (the service of all clusters). From a Gateway it
may be any; the URL's port is the listener's. The port is 80 if none is given.

Redirects are shown, not followed. An answer that isn't 2xx is an answer: the exit
status is 0, unless --fail is given. It is 1 if a request got no answer at all.

-o json prints {"answers": [{"status", "headers", "body"}], "counts": [{"cluster",
"namespace", "pod", "status", "count"}]}. Headers are lists of values by name;
body is the body's own JSON if it is JSON, else a string.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.run(cmd.Context(), cfg, &conn, args[0])
		},
	}
	conn.addFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&r.from, "from", "", "who sends: CLUSTER/NAMESPACE or CLUSTER/gateway/NAMESPACE/NAME")
	f.StringArrayVarP(&r.headers, "header", "H", nil, "header of the request, \"Name: value\"; may be repeated")
	f.StringVarP(&r.method, "request", "X", "", "method (default GET, with -d POST)")
	f.StringVarP(&r.data, "data", "d", "", "body of the request")
	f.IntVarP(&r.count, "count", "n", 1, "how many requests")
	f.IntVarP(&r.concurrency, "concurrency", "c", 1, "how many at a time")
	f.DurationVar(&r.timeout, "timeout", 15*time.Second, "how long each may take")
	f.BoolVar(&r.fail, "fail", false, "exit 1 if an answer is not 2xx")
	out := newChoice(&r.format, formatTable, formatJSON, formatYAML)
	f.VarP(out, "output", "o", "how to print: "+out.usage())
	return cmd
}

func (r *requester) check() error {
	switch {
	case r.count < 1 || r.count > maxRequests:
		return fmt.Errorf("-n must be from 1 to %d", maxRequests)
	case r.concurrency < 1 || r.concurrency > maxConcurrency:
		return fmt.Errorf("-c must be from 1 to %d", maxConcurrency)
	case r.timeout <= 0:
		return errors.New("--timeout must be more than zero")
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
	if err := r.check(); err != nil {
		return err
	}
	from, err := parseSource(r.from)
	if err != nil {
		return err
	}
	u, port, err := parseURL(rawURL)
	if err != nil {
		return err
	}
	headers, err := parseHeaders(r.headers)
	if err != nil {
		return err
	}
	if _, err := http.NewRequest(r.method, u.String(), nil); err != nil {
		return fmt.Errorf("request: %w", err)
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
	listener, err := findListener(proxy, from, u.Hostname(), port)
	if err != nil {
		return err
	}
	answers, err := r.send(ctx, u, listener.GetAddress(), headers)
	if err != nil {
		return err
	}
	return r.report(cfg, answers, fmt.Sprintf("%s at %s", proxy.GetId(), listener.GetAddress()))
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

// send sends all requests to the address, whatever the URL's host resolves to.
// It fails only when its context ends.
func (r *requester) send(ctx context.Context, u *url.URL, address string, headers []header) ([]Answer, error) {
	dialer := &net.Dialer{Timeout: r.timeout}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		},
		MaxIdleConnsPerHost: r.concurrency,
		DisableCompression:  true, // or the answer's headers would not be the server's
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{
		Transport:     transport,
		Timeout:       r.timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	answers := make([]Answer, r.count)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(r.concurrency, r.count) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < r.count && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				answers[i] = r.one(ctx, client, u, headers)
			}
		})
	}
	wg.Wait()
	return answers, ctx.Err()
}

func (r *requester) one(ctx context.Context, client *http.Client, u *url.URL, headers []header) Answer {
	none := func(err error) Answer {
		// Without the URL, which is the same for all.
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return Answer{Headers: map[string][]string{}, Body: json.RawMessage(`""`), Error: err.Error()}
	}
	var body io.Reader
	if r.data != "" {
		body = strings.NewReader(r.data)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, u.String(), body)
	if err != nil {
		return none(err)
	}
	req.Header.Set("User-Agent", "causeway")
	for _, h := range headers {
		switch strings.ToLower(h.name) {
		case "host":
			req.Host = h.value
		case "user-agent":
			req.Header.Set(h.name, h.value)
		default:
			req.Header.Add(h.name, h.value)
		}
	}
	resp, err := client.Do(req)
	if err != nil {
		return none(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxBodyBytes+1))
	if err != nil {
		return none(fmt.Errorf("read the answer with status %d: %w", resp.StatusCode, err))
	}
	if len(data) > maxBodyBytes {
		return none(fmt.Errorf("the answer with status %d is larger than %d bytes", resp.StatusCode, maxBodyBytes))
	}
	return Answer{Status: resp.StatusCode, Headers: resp.Header, Body: bodyJSON(data)}
}

// bodyJSON keeps JSON as it is and makes everything else a string.
func bodyJSON(data []byte) json.RawMessage {
	if trimmed := bytes.TrimSpace(data); len(trimmed) > 0 && json.Valid(trimmed) {
		return trimmed
	}
	text, err := json.Marshal(string(data)) // replaces what isn't UTF-8
	if err != nil {
		return json.RawMessage(`""`)
	}
	return text
}

// echo is what the echo servers tell of themselves.
type echo struct {
	Cluster   string `json:"cluster"`
	Namespace string `json:"namespace"`
	Pod       string `json:"pod"`
}

func echoOf(a Answer) (e echo) {
	if len(a.Body) == 0 || a.Body[0] != '{' || json.Unmarshal(a.Body, &e) != nil {
		return echo{}
	}
	return e
}

func countAnswers(answers []Answer) []Count {
	counts := map[Count]int{}
	for _, a := range answers {
		e := echoOf(a)
		counts[Count{Cluster: e.Cluster, Namespace: e.Namespace, Pod: e.Pod, Status: a.Status}]++
	}
	out := make([]Count, 0, len(counts))
	for c, n := range counts {
		c.Count = n
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b Count) int {
		return cmp.Or(cmp.Compare(a.Status, b.Status), cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod))
	})
	return out
}

// report prints the answers and judges them.
func (r *requester) report(cfg Config, answers []Answer, through string) error {
	if err := r.print(cfg, answers); err != nil {
		return err
	}
	lost, bad, why := 0, 0, ""
	for _, a := range answers {
		switch {
		case a.Error != "":
			lost++
			why = cmp.Or(why, a.Error)
		case a.Status < 200 || a.Status > 299:
			bad++
		}
	}
	switch {
	case lost > 0:
		return fmt.Errorf("%d of %d requests through %s got no answer: %s", lost, len(answers), through, why)
	case bad > 0 && r.fail:
		return fmt.Errorf("%d of %d answers were not 2xx", bad, len(answers))
	}
	return nil
}

func (r *requester) print(cfg Config, answers []Answer) error {
	if r.format != formatTable {
		var data bytes.Buffer
		e := json.NewEncoder(&data)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		if err := e.Encode(Answers{Answers: answers, Counts: countAnswers(answers)}); err != nil {
			return fmt.Errorf("print answers: %w", err)
		}
		return printJSON(cfg.Out, data.Bytes(), r.format)
	}
	rows := [][]string{{"STATUS", "CLUSTER", "NAMESPACE", "POD", "COUNT", "ROUTE"}}
	routes := routesByCount(answers)
	for _, c := range countAnswers(answers) {
		status := strconv.Itoa(c.Status)
		if c.Status == 0 {
			status = "none"
		}
		n := c.Count
		c.Count = 0
		rows = append(rows, []string{status, cell(c.Cluster), cell(c.Namespace), cell(c.Pod), strconv.Itoa(n), list(routes[c], 3)})
	}
	if err := (&table{w: cfg.Out}).print(rows...); err != nil {
		return err
	}
	if len(answers) != 1 || answers[0].Error != "" {
		return nil
	}
	return printRest(cfg.Out, answers[0])
}

// printRest shows what matters in a single answer that isn't an echo.
func printRest(w io.Writer, a Answer) error {
	if to := http.Header(a.Headers).Get("Location"); to != "" {
		if _, err := fmt.Fprintf(w, "Location: %s\n", to); err != nil {
			return err
		}
	}
	if echoOf(a) != (echo{}) {
		return nil
	}
	text := string(a.Body)
	var s string
	if json.Unmarshal(a.Body, &s) == nil {
		text = s
	}
	if text = strings.TrimSpace(text); text == "" {
		return nil
	}
	if len(text) > shownBody {
		text = strings.ToValidUTF8(text[:shownBody], "") + "..."
	}
	_, err := fmt.Fprintf(w, "%s\n", text)
	return err
}

// routesByCount lists the routes that governed the answers of each row.
func routesByCount(answers []Answer) map[Count][]string {
	out := map[Count][]string{}
	for _, a := range answers {
		e := echoOf(a)
		c := Count{Cluster: e.Cluster, Namespace: e.Namespace, Pod: e.Pod, Status: a.Status}
		for _, r := range a.Headers[routeHeader] {
			if !slices.Contains(out[c], r) {
				out[c] = append(out[c], r)
			}
		}
	}
	for _, routes := range out {
		slices.Sort(routes)
	}
	return out
}

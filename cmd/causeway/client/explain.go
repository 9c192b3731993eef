package client

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/federation/explain"
)

func newExplain(cfg Config) *cobra.Command {
	conn := connection{getenv: cfg.Getenv}
	var f format
	var from, method string
	var headers []string
	var revision int64
	var verbose bool
	cmd := &cobra.Command{
		Use:   "explain --from CLUSTER/NAMESPACE|CLUSTER/gateway/NAMESPACE/NAME URL",
		Short: "Tell what becomes of a request, and why, without sending it",
		Long: `Tell what becomes of a request: which rule takes it and why the others lost, which
clusters and endpoints get it at what priority and share, and how old the state is
that says so. Nothing is sent. Hosts and schemes are those of the request command: http,
https, ws, wss, grpc, grpcs, tcp, tls and udp.

-o json prints the query API's ExplainResponse in the JSON of Protocol Buffers.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			src, err := parseSource(from)
			if err != nil {
				return err
			}
			if _, err := explain.NewRequest(method, args[0], nil); err != nil {
				return err
			}
			parsed, err := parseHeaders(headers)
			if err != nil {
				return err
			}
			req := &causewayv1.ExplainRequest{Source: sourceMessage(src), Url: args[0], Method: method, Revision: revision}
			for _, h := range parsed {
				req.Headers = append(req.Headers, &causewayv1.Header{Name: h.name, Value: h.value})
			}
			c, end, err := conn.dial()
			if err != nil {
				return err
			}
			defer end()
			answer, err := c.Explain(cmd.Context(), req)
			if err != nil {
				return err
			}
			if f != formatTable {
				return printMessage(cfg.Out, answer, f)
			}
			return printExplanation(cfg.Out, answer, verbose, time.Now())
		},
	}
	conn.addFlags(cmd)
	fl := cmd.Flags()
	fl.StringVar(&from, "from", "", "who sends: CLUSTER/NAMESPACE or CLUSTER/gateway/NAMESPACE/NAME")
	fl.StringArrayVarP(&headers, "header", "H", nil, "header of the request, \"Name: value\"; may be repeated")
	fl.StringVarP(&method, "request", "X", "GET", "method")
	fl.Int64Var(&revision, "revision", 0, "as it was at this revision of the store (default: now)")
	fl.BoolVarP(&verbose, "verbose", "v", false, "list every endpoint")
	out := newChoice(&f, formatTable, formatJSON, formatYAML)
	fl.VarP(out, "output", "o", "how to print: "+out.usage())
	return cmd
}

// printer writes lines with indentation and remembers the first error.
type printer struct {
	w       io.Writer
	verbose bool
	err     error
}

func (p *printer) line(depth int, format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, "%s\n", strings.TrimRight(strings.Repeat("  ", depth)+fmt.Sprintf(format, args...), " "))
	}
}

// printExplanation writes the answer for people, from the request to the endpoints.
func printExplanation(w io.Writer, e *causewayv1.ExplainResponse, verbose bool, now time.Time) error {
	p := &printer{w: w, verbose: verbose}
	p.line(0, "%s", requestText(e.GetMethod(), e.GetUrl()))
	p.line(0, "from %s", sourceText(e.GetSource()))
	p.line(0, "")
	if e.GetProblem() != "" {
		p.line(0, "It reaches nothing: %s.", e.GetProblem())
	}
	if e.GetHop() != nil {
		p.hop(0, e.GetHop())
	}
	for i, w := range e.GetWithheld() {
		if i == 0 {
			p.line(0, "")
			p.line(0, "Kept out by the administrators' policy:")
		}
		p.line(1, "%s of cluster %s: %s", w.GetObject(), w.GetCluster(), w.GetReason())
	}
	p.line(0, "")
	p.staleness(e.GetStaleness(), now)
	return p.err
}

// requestText is a request as people say it: connections and datagrams have
// neither method nor path.
func requestText(method, url string) string {
	for _, scheme := range []string{"tcp://", "tls://", "udp://"} {
		if strings.HasPrefix(url, scheme) {
			return strings.TrimSuffix(url, "/")
		}
	}
	return method + " " + url
}

func sourceText(s *causewayv1.Source) string {
	if g := s.GetGateway(); g != nil {
		return fmt.Sprintf("outside, by Gateway %s/%s of cluster %s", g.GetNamespace(), g.GetName(), s.GetCluster())
	}
	return fmt.Sprintf("namespace %s of cluster %s", s.GetNamespace(), s.GetCluster())
}

func groupText(g causewayv1.RouteGroup) string {
	switch g {
	case causewayv1.RouteGroup_ROUTE_GROUP_CONSUMER:
		return "consumer routes govern"
	case causewayv1.RouteGroup_ROUTE_GROUP_PRODUCER:
		return "producer routes govern"
	case causewayv1.RouteGroup_ROUTE_GROUP_PLAIN:
		return "plain delivery"
	case causewayv1.RouteGroup_ROUTE_GROUP_GATEWAY:
		return "the Gateway's routes govern"
	}
	return "nothing governs"
}

func hopTitle(h *causewayv1.Hop) string {
	text := fmt.Sprintf("%s %s/%s", h.GetAt().GetKind(), h.GetAt().GetNamespace(), h.GetAt().GetName())
	if h.GetAtCluster() != "" {
		text += " of cluster " + h.GetAtCluster()
	}
	text += fmt.Sprintf(", port %d", h.GetPort())
	if h.GetListener() != "" {
		text += ", listener " + h.GetListener()
		if h.GetHostname() != "" { // TCP and UDP have none
			text += " (" + h.GetHostname() + ")"
		}
	}
	return text
}

func (p *printer) hop(depth int, h *causewayv1.Hop) {
	p.line(depth, "%s", hopTitle(h))
	text := groupText(h.GetGroup())
	if h.GetReason() != "" {
		text += ": " + h.GetReason()
	}
	p.line(depth+1, "%s", text)
	for _, r := range h.GetRules() {
		p.rule(depth+1, r)
	}
	if f := h.GetForward(); f != nil {
		name := fmt.Sprintf("%s rule %d", f.GetRoute(), f.GetRule())
		if f.GetRuleName() != "" {
			name += " (" + f.GetRuleName() + ")"
		}
		p.line(depth+1, "-> %s", name)
	}
	for _, c := range h.GetChanges() {
		p.line(depth+1, "then %s", c)
	}
	if h.GetClosed() {
		p.line(depth+1, "close the connection: %s", h.GetStatusReason())
	}
	if d := h.GetRequestTimeout(); d != nil {
		p.line(depth+1, "within %s", d.AsDuration())
	}
	if d := h.GetBackendTimeout(); d != nil {
		p.line(depth+1, "within %s for each try", d.AsDuration())
	}
	if h.GetStatus() != 0 {
		text := fmt.Sprintf("answer %d: %s", h.GetStatus(), h.GetStatusReason())
		if h.GetLocation() != "" {
			text += " to " + h.GetLocation()
		}
		p.line(depth+1, "%s", text)
	}
	for _, b := range h.GetBranches() {
		p.branch(depth+1, b)
	}
}

func (p *printer) rule(depth int, r *causewayv1.RuleVerdict) {
	name := fmt.Sprintf("%s rule %d", r.GetRoute(), r.GetRule())
	if r.GetRuleName() != "" {
		name += " (" + r.GetRuleName() + ")"
	}
	text := fmt.Sprintf("%s, match %d: %s", name, r.GetMatch(), cell(r.GetCondition()))
	if r.GetChosen() {
		p.line(depth, "-> %s", text)
		return
	}
	p.line(depth, "   %s; no: %s", text, r.GetLost())
}

func (p *printer) branch(depth int, b *causewayv1.Branch) {
	p.line(depth, "%s to %s", percent(b.GetShare()), backendName(b.GetBackend()))
	for _, c := range b.GetChanges() {
		p.line(depth+1, "then %s", c)
	}
	if b.GetClosed() {
		p.line(depth+1, "close the connection: %s", b.GetStatusReason())
	}
	if b.GetStatus() != 0 {
		text := fmt.Sprintf("answer %d: %s", b.GetStatus(), b.GetStatusReason())
		if b.GetLocation() != "" {
			text += " to " + b.GetLocation()
		}
		p.line(depth+1, "%s", text)
	}
	for _, m := range b.GetMirrors() {
		p.line(depth+1, "copy %s to %s", percent(m.GetShare()), backendName(m.GetBackend()))
	}
	if b.GetChain() != nil {
		p.hop(depth+1, b.GetChain())
	}
	for _, g := range b.GetGroups() {
		p.group(depth+1, g)
	}
}

func (p *printer) group(depth int, g *causewayv1.DestinationGroup) {
	where := g.GetCluster()
	if g.GetRegion() != "" {
		where += " (" + g.GetRegion() + ")"
	}
	text := fmt.Sprintf("priority %d, %s: cluster %s, ", g.GetPriority(), percent(g.GetShare()), where)
	if g.GetViaCrossing() {
		text += fmt.Sprintf("%s healthy behind %s", plural(int(g.GetHealthy()), "endpoint"), plural(int(g.GetTotal()), "crossing gateway"))
	} else {
		text += fmt.Sprintf("%d of %s healthy", g.GetHealthy(), plural(int(g.GetTotal()), "endpoint"))
	}
	p.line(depth, "%s", text)
	if !p.verbose {
		return
	}
	for _, e := range g.GetEndpoints() {
		if e.GetMissing() {
			continue // stands for what the line above doesn't count
		}
		text := e.GetAddress()
		if text == "" {
			text = plural(int(e.GetBehind()), "endpoint") + " of unpublished address"
		}
		if e.GetPod() != "" {
			text += ", pod " + e.GetPod()
		}
		if !e.GetHealthy() {
			p.line(depth+1, "%s, not ready", text)
			continue
		}
		p.line(depth+1, "%s, weight %d, %s", text, e.GetWeight(), percent(e.GetShare()))
	}
}

func percent(share float64) string {
	text := fmt.Sprintf("%.1f", share*100)
	return strings.TrimSuffix(text, ".0") + "%"
}

func (p *printer) staleness(s *causewayv1.Staleness, now time.Time) {
	text := fmt.Sprintf("As of revision %d", s.GetRevision())
	if behind := s.GetNewestRevision() - s.GetRevision(); behind > 0 {
		text += fmt.Sprintf(", %d behind the newest that the server knows", behind)
	} else {
		text += ", the newest that the server knows"
	}
	if t := s.GetConfirmed(); t != nil {
		text += fmt.Sprintf("; the store confirmed it %s ago", max(0, now.Sub(t.AsTime())).Round(10*time.Millisecond))
	}
	p.line(0, "%s.", text)
	for _, c := range s.GetClusters() {
		if c.GetDrained() != 0 || c.GetDrainTarget() != 0 {
			text := fmt.Sprintf("Cluster %s is drained by %d%%", c.GetCluster(), c.GetDrained())
			if c.GetDrained() != c.GetDrainTarget() {
				text += fmt.Sprintf(", on the way to %d%%", c.GetDrainTarget())
			}
			p.line(0, "%s: where somebody else is ready, it gets so much less of other clusters' requests.", text)
		}
		if c.GetLiveness() == causewayv1.Liveness_LIVENESS_ALIVE {
			continue
		}
		text := fmt.Sprintf("Cluster %s takes part and is %s", c.GetCluster(), strings.ToLower(liveness(c.GetLiveness())))
		if c.GetLivenessReason() != "" {
			text += ": " + c.GetLivenessReason()
		}
		p.line(0, "%s.", text)
	}
}

package client

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

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

// answerer is what the echo servers tell of themselves.
type answerer struct {
	Cluster   string `json:"cluster"`
	Namespace string `json:"namespace"`
	Pod       string `json:"pod"`
}

func echoOf(a Answer) (e answerer) {
	if len(a.Body) == 0 || a.Body[0] != '{' || json.Unmarshal(a.Body, &e) != nil {
		return answerer{}
	}
	return e
}

func countAnswers(answers []Answer) []Count {
	counts := map[Count]int{}
	for _, a := range answers {
		e := echoOf(a)
		counts[Count{Cluster: e.Cluster, Namespace: e.Namespace, Pod: e.Pod, Status: a.Status, Result: a.Result}]++
	}
	out := make([]Count, 0, len(counts))
	for c, n := range counts {
		c.Count = n
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b Count) int {
		return cmp.Or(cmp.Compare(a.Status, b.Status), cmp.Compare(a.Result, b.Result), cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod))
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
		case !a.good():
			bad++
		}
	}
	switch {
	case lost > 0:
		return fmt.Errorf("%d of %d requests through %s got no answer: %s", lost, len(answers), through, why)
	case bad > 0 && r.fail && answers[0].GRPC != nil:
		return fmt.Errorf("%d of %d answers were not OK", bad, len(answers))
	case bad > 0 && r.fail:
		return fmt.Errorf("%d of %d answers were not 2xx", bad, len(answers))
	}
	return nil
}

// good reports whether an answer is what a client hopes for.
func (a Answer) good() bool {
	switch {
	case a.Result == resultBytes:
		return true
	case a.GRPC != nil:
		return a.GRPC.Code == 0
	}
	return a.Status >= 200 && a.Status <= 299 || a.Status == http.StatusSwitchingProtocols
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
		n := c.Count
		c.Count = 0
		rows = append(rows, []string{c.Result, cell(c.Cluster), cell(c.Namespace), cell(c.Pod), strconv.Itoa(n), list(routes[c], 3)})
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
	if a.TLS != nil {
		c := a.TLS.Server
		if _, err := fmt.Fprintf(w, "%s with %s: certificate of %s for %s, by %s\n", a.TLS.Version, a.TLS.ServerName, cell(c.Subject), list(slices.Concat(c.DNSNames, c.URIs), 3), cell(c.Issuer)); err != nil {
			return err
		}
	}
	if a.GRPC != nil && a.GRPC.Message != "" {
		if _, err := fmt.Fprintf(w, "grpc-message: %s\n", a.GRPC.Message); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.Trailers)) {
		if lower := strings.ToLower(name); lower != "grpc-status" && lower != "grpc-message" {
			if _, err := fmt.Fprintf(w, "trailer %s: %s\n", lower, strings.Join(a.Trailers[name], ", ")); err != nil {
				return err
			}
		}
	}
	if echoOf(a) != (answerer{}) {
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
		c := Count{Cluster: e.Cluster, Namespace: e.Namespace, Pod: e.Pod, Status: a.Status, Result: a.Result}
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

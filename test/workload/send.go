package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/causeway-mesh/causeway/cluster/workload/echo"
)

const (
	maxAnswer   = 1 << 20
	maxDatagram = 64 << 10
)

// Results are what became of requests.
type Results struct {
	// Answers has one entry for each request, in their order.
	Answers []Result `json:"answers"`
	// Clusters and Pods count the answers by who gave them.
	Clusters map[string]int `json:"clusters"`
	Pods     map[string]int `json:"pods"`
	Failed   int            `json:"failed"`
}

// Result is what became of one.
type Result struct {
	// Status is that of HTTP, 0 for other protocols and for requests without an answer.
	Status int `json:"status,omitempty"`
	echo.Identity
	// Body is an answer that comes from no echo server.
	Body string `json:"body,omitempty"`
	// Error says why there is no answer.
	Error   string  `json:"error,omitempty"`
	Seconds float64 `json:"seconds"`
}

// sender makes one request, on a connection of its own.
type sender func(ctx context.Context) (Result, error)

func send(ctx context.Context, protocol string, args []string) (*Results, error) {
	flags := flag.NewFlagSet(protocol, flag.ContinueOnError)
	n := flags.Int("n", 1, "how many, one after the other")
	every := flags.Duration("every", 0, "at least this long from the start of one to the next")
	timeout := flags.Duration("timeout", 5*time.Second, "for each")
	method := flags.String("method", http.MethodGet, "of http")
	data := flags.String("data", "hello", "what to send; http sends it with other methods than GET")
	headers := http.Header{}
	flags.Func("H", "NAME: VALUE of http, as often as there are", func(s string) error {
		name, value, ok := strings.Cut(s, ":")
		if !ok {
			return fmt.Errorf("a header is NAME: VALUE")
		}
		headers.Add(strings.TrimSpace(name), strings.TrimSpace(value))
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() != 1 {
		return nil, fmt.Errorf("one target is to be given")
	}
	target := flags.Arg(0)
	one := func(ctx context.Context) (Result, error) { return bytesOnce(ctx, protocol, target, *data) }
	if protocol == "http" {
		one = func(ctx context.Context) (Result, error) { return httpOnce(ctx, *method, target, headers, *data) }
	}
	out := &Results{Clusters: map[string]int{}, Pods: map[string]int{}}
	next := time.Now()
	for range *n {
		select {
		case <-ctx.Done():
			return out, nil
		case <-time.After(time.Until(next)):
		}
		start := time.Now()
		next = start.Add(*every)
		r := attempt(ctx, *timeout, one)
		r.Seconds = time.Since(start).Seconds()
		out.Answers = append(out.Answers, r)
		if r.Error != "" {
			out.Failed++
			continue
		}
		out.Clusters[r.Cluster]++
		out.Pods[r.Pod]++
	}
	return out, nil
}

func attempt(ctx context.Context, timeout time.Duration, one sender) Result {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	r, err := one(ctx)
	if err != nil {
		r.Error = err.Error()
	}
	return r
}

func httpOnce(ctx context.Context, method, url string, headers http.Header, data string) (Result, error) {
	var body io.Reader
	if method != http.MethodGet {
		body = strings.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return Result{}, err
	}
	req.Header = headers
	if h := headers.Get("Host"); h != "" {
		req.Host = h
	}
	t := &http.Transport{DisableKeepAlives: true}
	client := &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return Result{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	r := identify(b)
	r.Status = resp.StatusCode
	return r, err
}

// bytesOnce sends a line and reads one back, over TCP or in datagrams.
func bytesOnce(ctx context.Context, network, target, data string) (Result, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, target)
	if err != nil {
		return Result{}, err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	if network == "udp" {
		if _, err := io.WriteString(conn, data); err != nil {
			return Result{}, err
		}
		b := make([]byte, maxDatagram)
		n, err := conn.Read(b)
		return identify(b[:n]), err
	}
	if _, err := io.WriteString(conn, data+"\n"); err != nil {
		return Result{}, err
	}
	line, err := bufio.NewReader(io.LimitReader(conn, maxAnswer)).ReadBytes('\n')
	return identify(line), err
}

// identify reads who has answered.
func identify(b []byte) Result {
	var r Result
	if json.Unmarshal(b, &r.Identity) != nil || r.Pod == "" {
		r.Body = string(b)
	}
	return r
}

package up_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// answer is one of `causeway request -o json`.
type answer struct {
	Status  int                 `json:"status"`
	Result  string              `json:"result"`
	Error   string              `json:"error"`
	Headers map[string][]string `json:"headers"`
	Body    json.RawMessage     `json:"body"`
	TLS     struct {
		Certificate struct{ DNSNames []string }
	} `json:"tls"`
}

// facts of an answer, by name: status, result, cluster, namespace, pod, path, host, method,
// proto, data, protocol, sni, alpn and client (of TLS as the pod saw it), certificate (as
// the client saw it), rpc (service/method), received, error, route, header.NAME (of the answer), sent.NAME (of the request as the pod got it).
func (a answer) fact(name string) (string, error) {
	var echo struct {
		Cluster, Namespace, Pod, Path, Host, Method, Proto, Data, Protocol string
		Headers                                                            map[string][]string
		TLS                                                                struct {
			ServerName, NegotiatedProtocol string
			Client                         struct{ DNSNames []string }
		}
		GRPC     struct{ Service, Method string }
		Received int
	}
	_ = json.Unmarshal(a.Body, &echo) // other bodies have no such facts
	one := func(h map[string][]string, name string) string {
		for k, v := range h {
			if strings.EqualFold(k, name) {
				return strings.Join(v, ",")
			}
		}
		return ""
	}
	if h, ok := strings.CutPrefix(name, "header."); ok {
		return one(a.Headers, h), nil
	}
	if h, ok := strings.CutPrefix(name, "sent."); ok {
		return one(echo.Headers, h), nil
	}
	switch name {
	case "status":
		return strconv.Itoa(a.Status), nil
	case "result":
		return a.Result, nil
	case "proto":
		return echo.Proto, nil
	case "data":
		return echo.Data, nil
	case "protocol":
		return echo.Protocol, nil
	case "sni":
		return echo.TLS.ServerName, nil
	case "alpn":
		return echo.TLS.NegotiatedProtocol, nil
	case "client":
		return strings.Join(echo.TLS.Client.DNSNames, ","), nil
	case "certificate":
		return strings.Join(a.TLS.Certificate.DNSNames, ","), nil
	case "received":
		return strconv.Itoa(echo.Received), nil
	case "error":
		return a.Error, nil
	case "rpc":
		return echo.GRPC.Service + "/" + echo.GRPC.Method, nil
	case "cluster":
		return echo.Cluster, nil
	case "namespace":
		return echo.Namespace, nil
	case "pod":
		return echo.Pod, nil
	case "path":
		return echo.Path, nil
	case "host":
		return echo.Host, nil
	case "method":
		return echo.Method, nil
	case "route":
		return one(a.Headers, "x-causeway-route"), nil
	}
	return "", fmt.Errorf("no fact %q", name)
}

func (a answer) String() string {
	return fmt.Sprintf("status %d %s %v %s", a.Status, a.Error, a.Headers, a.Body)
}

// output runs causeway and gives its standard output.
func (s *story) output(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return causeway(ctx, s.MkAbs("."), s.environ(), args)
}

func causeway(ctx context.Context, dir string, env, args []string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(binDir, "causeway"), args...)
	cmd.Dir, cmd.Env = dir, env
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("causeway %s: %w\n%s%s", strings.Join(args, " "), err, out.String(), errs.String())
	}
	return out.String(), nil
}

// ask sends a request as `causeway request --from FROM URL FLAGS...`.
func (s *story) ask(from, url string, flags []string) ([]answer, error) {
	out, err := s.output(append([]string{"request", "--from", from, url, "-o", "json"}, flags...)...)
	if err != nil {
		return nil, err
	}
	var got struct{ Answers []answer }
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		return nil, fmt.Errorf("%w in %s", err, out)
	}
	if len(got.Answers) == 0 {
		return nil, errors.New("no answers")
	}
	return got.Answers, nil
}

// judge says what of the expectations some answer breaks. An expectation is
// FACT=VALUE, FACT~REGEXP, or FACT:VALUE,VALUE,... for "each of these at least
// once, and nothing else".
func judge(answers []answer, want []string) error {
	for _, w := range want {
		at := strings.IndexAny(w, "=~:")
		if at < 1 {
			return fmt.Errorf("%q is no expectation", w)
		}
		name, value := w[:at], w[at+1:]
		seen := map[string]bool{}
		for _, a := range answers {
			got, err := a.fact(name)
			if err != nil {
				return err
			}
			seen[got] = true
			ok := true
			switch w[at] {
			case '=':
				ok = got == value
			case '~':
				re, err := regexp.Compile(value)
				if err != nil {
					return err
				}
				ok = re.MatchString(got)
			case ':':
				ok = slices.Contains(strings.Split(value, ","), got)
			}
			if !ok {
				return fmt.Errorf("want %s, got %q in %v", w, got, a)
			}
		}
		if w[at] == ':' {
			for _, v := range strings.Split(value, ",") {
				if !seen[v] {
					return fmt.Errorf("want %s, but nothing had %s; there were %v", w, v, seen)
				}
			}
		}
	}
	return nil
}

// split parts the arguments of a request from the expectations behind `--`.
func (s *story) split(args []string) (cmd, want []string) {
	at := slices.Index(args, "--")
	if at < 0 || at+1 == len(args) {
		s.Fatalf("nothing is expected; write -- FACT=VALUE...")
	}
	return args[:at], args[at+1:]
}

// request FROM URL [FLAG...] -- EXPECTATION...: all answers must be so, now.
func (s *story) request(neg bool, args []string) {
	s.plain(neg, "request", len(args) >= 4)
	cmd, want := s.split(args)
	got, err := s.ask(cmd[0], cmd[1], cmd[2:])
	s.Check(err)
	if err := judge(got, want); err != nil {
		s.Fatalf("request %v: %v", cmd, err)
	}
}

// await request FROM URL [FLAG...] -- EXPECTATION... repeats it until it is so.
// await REGEXP causeway ARG... repeats that command, whatever its exit status, until
// its output has the (multi-line) pattern; ! await, until it has it no more.
func (s *story) await(neg bool, args []string) {
	s.plain(false, "await", len(args) >= 3)
	var try func() error
	if args[0] == "request" {
		s.plain(neg, "await request", true)
		cmd, want := s.split(args[1:])
		try = func() error {
			got, err := s.ask(cmd[0], cmd[1], cmd[2:])
			if err != nil {
				return err
			}
			return judge(got, want)
		}
	} else {
		re, err := regexp.Compile("(?m)" + args[0])
		s.Check(err)
		s.plain(false, "await", args[1] == "causeway")
		try = func() error {
			out, err := s.output(args[2:]...)
			if neg && err != nil {
				return err
			}
			if re.MatchString(out) == neg {
				return fmt.Errorf("causeway %s: %w\n%s", strings.Join(args[2:], " "), err, out)
			}
			return nil
		}
	}
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			s.Fatalf("await %v: still not so after %v: %v", args, patience, err)
		}
		<-tick.C
	}
}

// session VAR COOKIE FROM URL [FLAG...] sends one request, and puts the cookie of its
// answer in $VAR and the cluster that answered in $CLUSTER.
func (s *story) session(neg bool, args []string) {
	s.plain(neg, "session", len(args) >= 4)
	got, err := s.ask(args[2], args[3], args[4:])
	s.Check(err)
	for _, c := range (&http.Response{Header: got[0].Headers}).Cookies() {
		if c.Name == args[1] {
			from, err := got[0].fact("cluster")
			s.Check(err)
			s.Setenv(args[0], c.Value)
			s.Setenv("CLUSTER", from)
			return
		}
	}
	s.Fatalf("session: no cookie %s in %v", args[1], got[0])
}

// share FACT=VALUE LOW HIGH FROM URL [FLAG...]: so much of the answers, from 0 to 1.
func (s *story) share(neg bool, args []string) {
	s.plain(neg, "share", len(args) >= 5)
	low, err := strconv.ParseFloat(args[1], 64)
	s.Check(err)
	high, err := strconv.ParseFloat(args[2], 64)
	s.Check(err)
	got, err := s.ask(args[3], args[4], args[5:])
	s.Check(err)
	name, value, _ := strings.Cut(args[0], "=")
	hits := 0
	for _, a := range got {
		f, err := a.fact(name)
		s.Check(err)
		if f == value {
			hits++
		}
	}
	if is := float64(hits) / float64(len(got)); is < low || is > high {
		s.Fatalf("share of %s is %.3f of %d, want %v to %v", args[0], is, len(got), low, high)
	}
}

// traffic is a client that never stops asking.
type traffic struct {
	name   string
	cancel context.CancelFunc
	done   chan struct{} // closed when the client has stopped; then the rest may be read

	sent   int
	failed []string
	from   map[string]int // answers by cluster
}

// load FROM URL sends requests to the listener that FROM has for a Service's full
// host name, one after the other, until unload. It asks causeway where that is once:
// a client goes on, whatever becomes of control planes.
func (s *story) load(neg bool, args []string) {
	s.plain(neg, "load", len(args) == 2)
	target, err := url.Parse(args[1])
	s.Check(err)
	address, err := s.listener(args[0], target.Hostname())
	s.Check(err)
	ctx, cancel := context.WithCancel(context.Background())
	l := &traffic{name: args[0] + " " + args[1], cancel: cancel, done: make(chan struct{}), from: map[string]int{}}
	go func() {
		defer close(l.done)
		client := &http.Client{Transport: &http.Transport{}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		defer client.CloseIdleConnections()
		for ctx.Err() == nil {
			from, err := once(ctx, client, address, target)
			switch {
			case ctx.Err() != nil:
			case err != nil:
				l.failed = append(l.failed, fmt.Sprintf("request %d at %s: %v", l.sent+1, time.Now().Format("15:04:05.000"), err))
			default:
				l.from[from]++
			}
			l.sent++
			select { // a hundred or two a second
			case <-time.After(5 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}()
	s.traffic = append(s.traffic, l)
}

// once sends one request, and says which cluster answered.
func once(ctx context.Context, client *http.Client, address string, target *url.URL) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+target.RequestURI(), nil)
	if err != nil {
		return "", err
	}
	req.Host = target.Host
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %.200s", resp.Status, body)
	}
	return answer{Body: body}.fact("cluster")
}

// listener finds where a namespace's sidecar listens for a Service's full host name.
func (s *story) listener(from, host string) (string, error) {
	cluster, namespace, _ := strings.Cut(from, "/")
	out, err := s.output("get", "proxies", "-o", "json", "--cluster", cluster)
	if err != nil {
		return "", err
	}
	var got struct {
		Proxies []struct {
			Role, Namespace string
			Listeners       []struct {
				Address string
				Target  struct{ Kind, Namespace, Name string }
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		return "", err
	}
	domains := map[string]string{"Service": "svc.cluster.local", "ServiceImport": "svc.clusterset.local"}
	for _, p := range got.Proxies {
		for _, l := range p.Listeners {
			if p.Role == "PROXY_ROLE_SIDECAR" && p.Namespace == namespace &&
				l.Target.Name+"."+l.Target.Namespace+"."+domains[l.Target.Kind] == host {
				return l.Address, nil
			}
		}
	}
	return "", fmt.Errorf("no listener for %s in %s: %s", host, from, out)
}

// unload [CLUSTER,...] ends all load. None of its requests may have failed, and with
// an argument each client must have got answers from these clusters and no others.
func (s *story) unload(neg bool, args []string) {
	s.plain(neg, "unload", len(args) <= 1 && len(s.traffic) > 0)
	var bad []string
	for _, l := range s.traffic {
		l.cancel()
		<-l.done
		s.Logf("load %s: %d requests, answered by %v", l.name, l.sent, l.from)
		if len(l.from) == 0 {
			bad = append(bad, l.name+": no answers")
		}
		for _, f := range l.failed {
			bad = append(bad, l.name+": "+f)
		}
		got := strings.Join(slices.Sorted(maps.Keys(l.from)), ",")
		if len(args) == 1 && got != args[0] {
			bad = append(bad, fmt.Sprintf("%s: answers from %s, want %s", l.name, got, args[0]))
		}
	}
	s.traffic = nil
	if len(bad) > 0 {
		s.Fatalf("%d failures under load, the first: %s", len(bad), bad[0])
	}
}

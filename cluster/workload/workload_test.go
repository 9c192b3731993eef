package workload

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/workload/echo"
)

// pool hands out loopback addresses that other test processes hardly use.
type pool struct {
	t    testing.TB
	held map[string]netip.Addr
	fail error
}

var nextAddress atomic.Uint32

func newPool(t testing.TB) *pool {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has all of 127.0.0.0/8 without set-up")
	}
	return &pool{t: t, held: map[string]netip.Addr{}}
}

func (p *pool) Addr(key string) (netip.Addr, error) {
	if p.fail != nil {
		return netip.Addr{}, p.fail
	}
	if a, ok := p.held[key]; ok {
		return a, nil
	}
	pid, n := os.Getpid(), nextAddress.Add(1)
	a := netip.AddrFrom4([4]byte{127, byte(100 + pid>>8%64), byte(pid), byte(1 + n%250)})
	p.held[key] = a
	return a, nil
}

func (p *pool) Release(key string) {
	if _, ok := p.held[key]; !ok {
		p.t.Errorf("%s is released twice", key)
	}
	delete(p.held, key)
}

func manager(t testing.TB, cfg Config) (*Manager, *pool) {
	p := newPool(t)
	cfg.Cluster, cfg.Addresses, cfg.Logger = "east", p, slog.New(slog.DiscardHandler)
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		m.Close(ctx)
		if len(p.held) != 0 {
			t.Error("not released:", p.held)
		}
	})
	return m, p
}

func endpoints(r Result) []cluster.Endpoint {
	var all []cluster.Endpoint
	for _, s := range r.Slices {
		all = append(all, s.Value.(*cluster.EndpointSlice).Endpoints...)
	}
	return all
}

func at(e cluster.Endpoint, port int) string {
	return net.JoinHostPort(e.Addr.String(), strconv.Itoa(port))
}

func get(t testing.TB, client *http.Client, url string, header http.Header) (*http.Response, echo.HTTP) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var e echo.HTTP
	_ = json.Unmarshal(body, &e)
	return resp, e
}

func oneWeb(replicas int32) Input {
	return Input{
		Services:    []Service{service("web", "app", "a", port("http", 80, 15678), over(port("udp", 53, 15678), corev1.ProtocolUDP))},
		Deployments: []Deployment{deployment("a", replicas)},
	}
}

// What listens on a pod's ports is an echo server with the pod's name.
func TestPodAnswers(t *testing.T) {
	t.Parallel()
	m, _ := manager(t, Config{})
	eps := endpoints(m.Apply(oneWeb(2)))
	if len(eps) != 2 || !eps[0].Ready || eps[0].Addr == eps[1].Addr {
		t.Fatalf("%+v", eps)
	}
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for _, ep := range eps {
		if _, e := get(t, client, "http://"+at(ep, 15678), nil); e.Pod != ep.Pod || e.Namespace != "ns" || e.Service != "web" || e.Cluster != "east" {
			t.Errorf("%s: %+v", ep.Pod, e)
		}
		conn, err := net.Dial("udp", at(ep, 15678))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		_, _ = conn.Write([]byte("hello"))
		var answer echo.Stream
		if err := json.NewDecoder(conn).Decode(&answer); err != nil || answer.Pod != ep.Pod || answer.Data.Data != "hello" {
			t.Errorf("udp: %+v %v", answer, err)
		}
	}
}

// Annotations make pods misbehave and mend them, while they stay ready: it is
// for proxies to find out.
func TestFaultsByAnnotation(t *testing.T) {
	t.Parallel()
	m, _ := manager(t, Config{})
	in := oneWeb(2)
	apply := func(annotations map[string]string) []cluster.Endpoint {
		t.Helper()
		d := deployment("a", 2)
		d.Annotations = annotations
		in.Deployments = []Deployment{d}
		r := m.Apply(in)
		m.Delivered()
		if len(r.Problems) > 0 {
			t.Fatal(r.Problems)
		}
		eps := endpoints(r)
		if len(eps) != 2 || !eps[0].Ready || !eps[1].Ready {
			t.Fatalf("%v: must both be ready: %+v", annotations, eps)
		}
		return eps
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	// outcome is a status, or 0 for a connection that broke.
	outcome := func(ep cluster.Endpoint) int {
		resp, err := client.Get("http://" + at(ep, 15678))
		if err != nil {
			return 0
		}
		defer resp.Body.Close()
		var e echo.HTTP
		if err := json.NewDecoder(resp.Body).Decode(&e); err != nil || e.Pod != ep.Pod {
			t.Errorf("answer with status %d: %+v %v", resp.StatusCode, e, err)
		}
		return resp.StatusCode
	}
	for _, step := range []struct {
		annotations   map[string]string
		first, second int
	}{
		{map[string]string{AnnotationFail: "503"}, 503, 503},
		{map[string]string{AnnotationFail: "503", AnnotationFaulty: "1"}, 503, 200},
		{map[string]string{AnnotationFail: "reset", AnnotationFaulty: "1"}, 0, 200},
		{map[string]string{AnnotationFail: "refuse", AnnotationFaulty: "1"}, 0, 200},
		{nil, 200, 200},
		{map[string]string{AnnotationSlow: "50ms"}, 200, 200},
	} {
		eps := apply(step.annotations)
		for i, want := range []int{step.first, step.second} {
			started := time.Now()
			if got := outcome(eps[i]); got != want {
				t.Errorf("%v: pod %d gives %d, want %d", step.annotations, i, got, want)
			}
			if slow, _ := time.ParseDuration(step.annotations[AnnotationSlow]); time.Since(started) < slow {
				t.Errorf("%v: pod %d answered at once", step.annotations, i)
			}
		}
	}
	conn, err := net.Dial("tcp", at(apply(map[string]string{AnnotationFail: "refuse"})[0], 15678))
	if err == nil {
		conn.Close()
		t.Error("a pod that refuses must not listen")
	}
}

// The certificate of the Secret that the annotation names is shown, a
// self-signed one for the Services' names without it.
func TestCertificates(t *testing.T) {
	t.Parallel()
	m, _ := manager(t, Config{})
	in := oneWeb(1)
	in.Services = append(in.Services, service("web2", "app", "a", port("", 80, 15678)))
	shown := func() *x509.Certificate {
		t.Helper()
		conn, err := tls.Dial("tcp", at(endpoints(m.Apply(in))[0], 15678), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0]
	}
	own := shown()
	for _, name := range []string{"web.ns.svc", "web.ns.svc.cluster.local", "web2.ns.svc.clusterset.local"} {
		if err := own.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	given, err := echo.SelfSigned([]string{"given.example"})
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(given.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	in.Secrets = map[string]*corev1.Secret{"ns/cert": {Type: corev1.SecretTypeTLS, Data: map[string][]byte{
		corev1.TLSCertKey:       pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: given.Certificate[0]}),
		corev1.TLSPrivateKeyKey: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
	}}}
	in.Deployments[0].Annotations = map[string]string{AnnotationTLSSecret: "cert"}
	if err := shown().VerifyHostname("given.example"); err != nil {
		t.Error(err)
	}
	in.Deployments[0].Annotations[AnnotationTLSSecret] = "other"
	if r := m.Apply(in); len(r.Problems) != 1 || !strings.Contains(r.Problems[0].Message, `names "other"`) {
		t.Errorf("%+v", r.Problems)
	}
}

// until ticks a manager as its owner does, until a condition holds.
func until(t testing.TB, m *Manager, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never:", what)
		}
		if next := m.Next(); !next.IsZero() && !time.Now().Before(next) {
			m.Tick()
		}
	}
}

// A pod that goes is unpublished first, answers on for the grace period and
// ends what it is at; a pod that returns meanwhile keeps its server.
func TestScaleDownLosesNothing(t *testing.T) {
	t.Parallel()
	m, p := manager(t, Config{Grace: 100 * time.Millisecond})
	before := endpoints(m.Apply(oneWeb(2)))
	m.Delivered()
	gone := before[1]
	after := m.Apply(oneWeb(1))
	if eps := endpoints(after); len(eps) != 1 || eps[0] != before[0] {
		t.Fatalf("must be unpublished at once: %+v", eps)
	}
	client := &http.Client{Transport: &http.Transport{}}
	if resp, _ := get(t, client, "http://"+at(gone, 15678), nil); resp.Close {
		t.Error("what is not delivered yet must not be felt")
	}
	m.Delivered()
	if resp, _ := get(t, client, "http://"+at(gone, 15678), nil); !resp.Close {
		t.Error("clients must be told to give up their connections")
	}
	m.Apply(oneWeb(2)) // it returns
	m.Delivered()
	if resp, _ := get(t, client, "http://"+at(gone, 15678), nil); resp.Close {
		t.Error("a pod that is back must stay")
	}
	if next := m.Next(); !next.IsZero() {
		t.Error("a pod that is back has nothing to wait for:", next)
	}

	answered := make(chan int, 1)
	asked := make(chan struct{})
	trace := &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { close(asked) }}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), http.MethodGet, "http://"+at(gone, 15678)+"/?delay=500ms", nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		resp, err := client.Do(req)
		if err != nil {
			answered <- 0
			return
		}
		resp.Body.Close()
		answered <- resp.StatusCode
	}()
	<-asked
	m.Apply(oneWeb(1))
	m.Delivered()
	until(t, m, "closed", func() bool {
		conn, err := net.Dial("tcp", at(gone, 15678))
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	if code := <-answered; code != 200 {
		t.Error("a running request got", code)
	}
	until(t, m, "address given back", func() bool { return len(p.held) == 1 })
	if _, e := get(t, client, "http://"+at(before[0], 15678), nil); e.Pod != before[0].Pod {
		t.Error("the other pod must stay")
	}
}

// A port that is taken makes that pod not ready where it needs the port, names
// the object and the port, hurts no other, and is taken as soon as it is free.
func TestPortTaken(t *testing.T) {
	t.Parallel()
	m, p := manager(t, Config{Retry: 10 * time.Millisecond})
	in := oneWeb(2)
	in.Services = append(in.Services, service("admin", "app", "a", port("", 80, 15679)))
	addr, _ := p.Addr("pod/ns/" + podName("east", "ns", "a", 0))
	squatter, err := net.Listen("tcp", net.JoinHostPort(addr.String(), "15678"))
	if err != nil {
		t.Fatal(err)
	}
	defer squatter.Close()
	r := m.Apply(in)
	ready := func(r Result) string {
		var b strings.Builder
		for _, e := range endpoints(r) {
			fmt.Fprint(&b, e.Ready, " ")
		}
		return b.String()
	}
	if got := ready(r); got != "true true false true " {
		t.Error("ready:", got)
	}
	if len(r.Problems) != 1 || r.Problems[0].Object != "Deployment/ns/a" || r.Problems[0].Where != "a.yaml:1" || !strings.Contains(r.Problems[0].Message, "TCP port 15678") || !strings.Contains(r.Problems[0].Message, "taken by another process") {
		t.Errorf("%+v", r.Problems)
	}
	if m.Tick() {
		t.Error("nothing has changed yet")
	}
	squatter.Close()
	until(t, m, "ready", func() bool { return ready(m.Result()) == "true true true true " })
	if r := m.Result(); len(r.Problems) != 0 || !m.Next().IsZero() {
		t.Errorf("%+v", r.Problems)
	}
}

func TestNoAddress(t *testing.T) {
	t.Parallel()
	m, p := manager(t, Config{Retry: time.Millisecond})
	p.fail = errors.New("the pool is empty")
	r := m.Apply(oneWeb(1))
	if len(endpoints(r)) != 0 || len(r.Problems) == 0 || !strings.Contains(r.Problems[0].Message, "the pool is empty") {
		t.Errorf("%+v", r)
	}
	p.fail = nil
	until(t, m, "an endpoint", func() bool { return len(endpoints(m.Result())) == 1 && len(m.Result().Problems) == 0 })
}

func TestConfig(t *testing.T) {
	for _, cfg := range []Config{
		{Cluster: "no.label", Addresses: &pool{}, Logger: slog.Default()},
		{Cluster: "east", Logger: slog.Default()},
		{Cluster: "east", Addresses: &pool{}, Logger: slog.Default(), Grace: -1},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v must be refused", cfg)
		}
	}
}

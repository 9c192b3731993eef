package gateways

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster/workload/echo"
	"github.com/causeway-mesh/causeway/test/conformance/fleet"
	"github.com/causeway-mesh/causeway/test/lab"
	"github.com/causeway-mesh/causeway/test/traffic"
)

var (
	seedWanted    = flag.Uint64("seed", 0, "of what is drawn under load; 0: another each time")
	changesWanted = flag.Int("changes", 200, "how many changes under load")
)

// requestRate is how many requests a second are sent while things change.
const requestRate = 500

// A change is there once so many answers in a row, over so long, are the new one's: every
// thread of Envoy's has its own copy of the configuration, and each connection one thread.
const (
	rowLength = 24
	rowTime   = 200 * time.Millisecond
)

func seed(t *testing.T) uint64 {
	t.Helper()
	n := *seedWanted
	if n == 0 {
		n = uint64(time.Now().UnixNano())
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("this was -seed %d", n)
		}
	})
	return n
}

// changer writes setups of the Gateway "busy" and judges what it answers.
type changer struct {
	*world
	address string
	clients map[bool]*http.Client // by whether over TLS
}

// testChanges changes routes, backends, weights, certificates and listeners one after the
// other, under load: every answer must be one that the old or the new setup gives, from when
// a change is written until it is seen, and the new one's alone from then on.
func testChanges(t *testing.T, of *world) {
	w := of.in(t)
	x := &changer{world: w, clients: map[bool]*http.Client{false: client(&http.Transport{MaxIdleConnsPerHost: 40}), true: client(&http.Transport{
		DisableKeepAlives: true,                                                                 // which certificate a connection shows, it shows at its beginning
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, ServerName: "any.example.com"}, //nolint:gosec // it is compared with those that there are
	})}}
	n := seed(t)
	chance := rand.New(rand.NewPCG(n, 0))
	fresh := func() pair {
		p, err := newPair()
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	now := firstSetup(chance, fresh)
	x.apply(servers(t))
	if err := x.write(&setup{}, now); err != nil {
		t.Fatal(err)
	}
	x.address = x.programmed("busy")
	x.ready()
	if err := x.seen(chance, nil, now); err != nil {
		t.Fatalf("seed %d: %v", n, err)
	}

	var h traffic.History[*setup]
	h.Add(now)
	load := traffic.Send(t, n, requestRate, func(chance *rand.Rand) error {
		span := h.Begin()
		a := h.Newest().drawAsk(chance)
		got, err := x.send(a)
		return judged(a, got, err, span.End())
	})
	var slowest time.Duration
	for range *changesWanted {
		next := now.next(chance, fresh)
		for len(telling(now, next)) == 0 { // nobody would see it
			next = now.next(chance, fresh)
		}
		revision := h.Add(next)
		begun := time.Now()
		if err := x.write(now, next); err != nil {
			t.Fatal(err)
		}
		if err := x.seen(chance, now, next); err != nil {
			t.Errorf("seed %d: %v", n, err)
		}
		if took := time.Since(begun); took > slowest {
			slowest = took
		}
		h.Settle(revision)
		now = next
		if t.Failed() {
			break
		}
	}
	sent, rate := load.Stop()
	t.Logf("%d requests, %.0f/s, during %d changes, each seen by all within %s", sent, rate, now.changed, slowest.Round(time.Millisecond))
	if !t.Failed() && sent < int64(20**changesWanted) {
		t.Errorf("only %d requests were sent", sent)
	}
	if err := w.objects.Resource(httpRoutes).Namespace(ns).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	w.removed("busy")
}

func client(transport *http.Transport) *http.Client {
	transport.DialContext = (&net.Dialer{Timeout: 3 * time.Second}).DialContext
	// A machine that has too much to do answers late, and loses nothing by it.
	return &http.Client{Timeout: time.Minute, Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func newPair() (pair, error) {
	c, err := echo.SelfSigned([]string{"*.example.com"})
	if err != nil {
		return pair{}, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return pair{}, err
	}
	return pair{
		cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}),
		key:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), der: string(c.Certificate[0]),
	}, nil
}

// servers are the workloads behind the Services.
func servers(t *testing.T) string {
	var out strings.Builder
	for _, name := range workloads {
		fmt.Fprintf(&out, `---
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s, namespace: shop}
spec:
  replicas: 1
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: echo
        image: %[2]q
        args: [serve, -http, "8080"]
        env: [{name: SERVICE, value: %[1]s}]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
`, name, lab.TestImage(t, "causeway-test"))
	}
	return out.String()
}

// ready awaits that the workloads are.
func (x *changer) ready() {
	x.Helper()
	for _, name := range workloads {
		fleet.Eventually(x, "Deployment "+name+" is ready", func() error {
			d, err := x.core.AppsV1().Deployments(ns).Get(x.Context(), name, metav1.GetOptions{})
			if err == nil && d.Status.AvailableReplicas == 0 {
				err = errors.New("no pod is ready")
			}
			return err
		})
	}
}

// seen awaits that the next setup, and it alone, answers. old is nil before the first.
func (x *changer) seen(chance *rand.Rand, old, next *setup) error {
	before := old
	if old == nil {
		before = &setup{}
	}
	tells, row, since := telling(before, next), 0, time.Time{}
	for deadline := time.Now().Add(fleet.Patience); row < rowLength || time.Since(since) < rowTime; {
		a := pick(chance, tells)
		got, err := x.send(a)
		if old != nil {
			if err := judged(a, got, err, []*setup{old, next}); err != nil {
				return err
			}
		}
		last := judged(a, got, err, []*setup{next})
		if last != nil {
			row = 0
			time.Sleep(5 * time.Millisecond)
		} else if row++; row == 1 {
			since = time.Now()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("after %s this is still answered by what was before: %w", fleet.Patience, last)
		}
	}
	return nil
}

// judged tells what is wrong with an answer, if none of the setups gives it.
func judged(a ask, got string, failed error, may []*setup) error {
	var all []string
	for _, s := range may {
		words := s.answers(a)
		if slices.Contains(words, got) {
			return nil
		}
		all = append(all, fmt.Sprintf("%d, %s: %s", s.changed, s.what, strings.Join(words, " or ")))
	}
	return fmt.Errorf("%s is answered with %s (%w); what may answer is\n  %s", a, got, failed, strings.Join(all, "\n  "))
}

const markHeader = "X-Mark"

// send gives the word for what became of a request, and if there was no answer why.
func (x *changer) send(a ask) (word string, failed error) {
	scheme := "http"
	if a.tls {
		scheme = "https"
	}
	req, err := http.NewRequestWithContext(x.Context(), a.method, fmt.Sprintf("%s://%s%s", scheme, net.JoinHostPort(x.address, fmt.Sprint(a.port)), a.path), nil)
	if err != nil {
		return "", err
	}
	req.Host = hostName(a.host)
	if a.kind != "" {
		req.Header.Set("X-Kind", a.kind)
	}
	resp, err := x.clients[a.tls].Do(req)
	if err != nil {
		return wordRefused, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return wordRefused, err
	}
	der := ""
	if a.tls {
		der = string(resp.TLS.PeerCertificates[0].Raw)
	}
	return over(der, wordFor(resp, body)), nil
}

// wordFor names an answer; one that nothing gives is told as it is.
func wordFor(resp *http.Response, body []byte) string {
	strange := fmt.Sprintf("%d %v: %s", resp.StatusCode, resp.Header, body)
	switch resp.StatusCode {
	case http.StatusNotFound:
		return wordNone
	case http.StatusInternalServerError:
		return wordBroken
	case http.StatusFound:
		to, err := url.Parse(resp.Header.Get("Location"))
		if err != nil {
			return strange
		}
		mark, _, _ := strings.Cut(to.Hostname(), ".")
		return wordMoved(mark)
	case http.StatusOK:
		var e echo.HTTP
		if err := json.Unmarshal(body, &e); err != nil {
			return strange
		}
		mark := resp.Header.Get(markHeader)
		if upstream := http.Header(e.Headers).Values(markHeader); mark == "" || !slices.Equal(upstream, []string{mark}) {
			return strange // half of a rule
		}
		return wordServed(mark, e.Service, e.Path)
	}
	return strange
}

// write makes the cluster's objects those of a setup, of which there are the old one's.
func (x *changer) write(old, next *setup) error {
	for name, p := range next.certs {
		if old.certs[name].der != p.der {
			if err := x.put(corev1.SchemeGroupVersion.WithResource("secrets"), &corev1.Secret{
				TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}, ObjectMeta: metav1.ObjectMeta{Name: name}, Type: corev1.SecretTypeTLS,
				Data: map[string][]byte{corev1.TLSCertKey: p.cert, corev1.TLSPrivateKeyKey: p.key},
			}); err != nil {
				return err
			}
		}
	}
	for name, workload := range next.behind {
		if old.behind[name] != workload {
			http := "http"
			if err := x.put(corev1.SchemeGroupVersion.WithResource("services"), &corev1.Service{
				TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: metav1.ObjectMeta{Name: name},
				Spec: corev1.ServiceSpec{Selector: map[string]string{"app": workload}, Ports: []corev1.ServicePort{{Name: "http", Port: 8080, AppProtocol: &http}}},
			}); err != nil {
				return err
			}
		}
	}
	if !reflect.DeepEqual(old.ports, next.ports) || !reflect.DeepEqual(old.shown, next.shown) {
		if err := x.put(gateways, next.gateway()); err != nil {
			return err
		}
	}
	for i := range hostsDrawn {
		r, there := next.routes[i]
		switch was, was2 := old.routes[i]; {
		case there && (!was2 || !reflect.DeepEqual(was, r)):
			if err := x.put(httpRoutes, r.object(i)); err != nil {
				return err
			}
		case !there && was2:
			if err := x.objects.Resource(httpRoutes).Namespace(ns).Delete(x.Context(), fmt.Sprintf("h%d", i), metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
				return err
			}
		}
	}
	return nil
}

// put applies an object in its namespace.
func (x *changer) put(kind schema.GroupVersionResource, o metav1.Object) error {
	data, err := json.Marshal(o)
	if err != nil {
		return err
	}
	yes := true
	_, err = x.objects.Resource(kind).Namespace(ns).Patch(context.WithoutCancel(x.Context()), o.GetName(), types.ApplyPatchType, data, metav1.PatchOptions{FieldManager: "changes", Force: &yes})
	return err
}

func (s *setup) gateway() *gatewayv1.Gateway {
	g := &gatewayv1.Gateway{TypeMeta: metav1.TypeMeta{APIVersion: gatewayv1.GroupVersion.String(), Kind: "Gateway"}, ObjectMeta: metav1.ObjectMeta{Name: "busy"}}
	g.Spec.GatewayClassName = "causeway"
	for _, name := range slices.Sorted(maps.Keys(s.ports)) {
		l := gatewayv1.Listener{Name: gatewayv1.SectionName(name), Port: s.ports[name], Protocol: gatewayv1.HTTPProtocolType}
		if hasTLS(name) {
			l.Protocol = gatewayv1.HTTPSProtocolType
			l.TLS = &gatewayv1.ListenerTLSConfig{CertificateRefs: []gatewayv1.SecretObjectReference{{Name: gatewayv1.ObjectName(s.shown[name])}}}
		}
		g.Spec.Listeners = append(g.Spec.Listeners, l)
	}
	return g
}

func (r route) object(host int) *gatewayv1.HTTPRoute {
	o := &gatewayv1.HTTPRoute{TypeMeta: metav1.TypeMeta{APIVersion: gatewayv1.GroupVersion.String(), Kind: "HTTPRoute"}, ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("h%d", host)}}
	parent := gatewayv1.ParentReference{Name: "busy"}
	if r.section != "" {
		section := gatewayv1.SectionName(r.section)
		parent.SectionName = &section
	}
	o.Spec.ParentRefs = []gatewayv1.ParentReference{parent}
	o.Spec.Hostnames = []gatewayv1.Hostname{gatewayv1.Hostname(hostName(host))}
	for _, x := range r.rules {
		o.Spec.Rules = append(o.Spec.Rules, x.object())
	}
	return o
}

func (r rule) object() (out gatewayv1.HTTPRouteRule) {
	by, replaced := gatewayv1.PathMatchPathPrefix, "/"+r.mark
	change := &gatewayv1.HTTPPathModifier{Type: gatewayv1.PrefixMatchHTTPPathModifier, ReplacePrefixMatch: &replaced}
	if r.exact {
		by = gatewayv1.PathMatchExact
		change = &gatewayv1.HTTPPathModifier{Type: gatewayv1.FullPathHTTPPathModifier, ReplaceFullPath: &replaced}
	}
	m := gatewayv1.HTTPRouteMatch{Path: &gatewayv1.HTTPPathMatch{Type: &by, Value: &r.path}}
	if r.kind != "" {
		m.Headers = []gatewayv1.HTTPHeaderMatch{{Name: "X-Kind", Value: r.kind}}
	}
	if r.method != "" {
		method := gatewayv1.HTTPMethod(r.method)
		m.Method = &method
	}
	out.Matches = []gatewayv1.HTTPRouteMatch{m}
	if r.moved {
		host, status := gatewayv1.PreciseHostname(r.mark+".example.com"), http.StatusFound
		out.Filters = []gatewayv1.HTTPRouteFilter{{Type: gatewayv1.HTTPRouteFilterRequestRedirect, RequestRedirect: &gatewayv1.HTTPRequestRedirectFilter{Hostname: &host, StatusCode: &status}}}
		return out
	}
	mark := &gatewayv1.HTTPHeaderFilter{Set: []gatewayv1.HTTPHeader{{Name: markHeader, Value: r.mark}}}
	out.Filters = []gatewayv1.HTTPRouteFilter{
		{Type: gatewayv1.HTTPRouteFilterRequestHeaderModifier, RequestHeaderModifier: mark}, {Type: gatewayv1.HTTPRouteFilterResponseHeaderModifier, ResponseHeaderModifier: mark},
	}
	if r.rewrite {
		out.Filters = append(out.Filters, gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterURLRewrite, URLRewrite: &gatewayv1.HTTPURLRewriteFilter{Path: change}})
	}
	port := gatewayv1.PortNumber(8080)
	for _, name := range slices.Sorted(maps.Keys(r.weights)) {
		weight := int32(r.weights[name])
		b := gatewayv1.HTTPBackendRef{}
		b.Name, b.Port, b.Weight = gatewayv1.ObjectName(name), &port, &weight
		out.BackendRefs = append(out.BackendRefs, b)
	}
	return out
}

package gateways

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/resolve/resolvetest"
	"github.com/causeway-mesh/causeway/test/conformance/fleet"
	"github.com/causeway-mesh/causeway/test/lab"
)

// What the manifests of testdata/bad say of themselves by annotations, a line each.
const (
	// wantSays: what the object's status has to say, as "WHERE TYPE=STATUS REASON TEXT": WHERE
	// is "-" for its own conditions, "parent" for those of each parent or ancestor, else a
	// listener; TEXT is a part of the message.
	wantSays = "test/says"
	// wantRefused: the API server does not take it, and says so.
	wantRefused = "test/refused"
	// wantAnswers: how a request is answered in the end, as "URL STATUS".
	wantAnswers = "test/answers"
)

// Whatever is wrong on a Gateway says what to change, and leaves the rest alone.
func TestBadInput(t *testing.T) {
	f := fleet.Start(t, fleet.Options{Networks: []string{"one"}, CRDs: lab.CRDs{GatewayAPI: lab.Experimental, MCS: true}})
	w := equip(t, f.Clusters[0])
	w.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: other}\n")
	w.certificates()
	w.apply(mainOptions + "  logLevel: warning\n---\n" + `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: good, namespace: shop}
spec:
  parentRefs: [{name: main, sectionName: good-http}, {name: main, sectionName: good-https}]
  hostnames: [good.example.com]
  rules: [{backendRefs: [{name: web, port: 80}]}]
`)
	bad := w.manifests()
	at := slices.IndexFunc(bad, func(u *unstructured.Unstructured) bool { return u.GetKind() == "Gateway" && u.GetName() == "main" })
	if at < 0 {
		t.Fatal("there is no Gateway main")
	}
	main := bad[at]
	bad = slices.Delete(bad, at, at+1)
	w.server(onlyGood(t, main))
	address := w.programmed("main")
	good := w.watched(address)

	w.server(main)
	w.server(full(t, 64))
	if err := w.create(full(t, 65)); err == nil || !strings.Contains(err.Error(), "Too many") {
		t.Errorf("65 listeners: %v", err)
	}
	for _, u := range bad {
		why := u.GetAnnotations()[wantRefused]
		switch err := w.create(u); {
		case why == "" && err != nil:
			t.Errorf("%s %s is refused: %v", u.GetKind(), u.GetName(), err)
		case why != "" && (err == nil || !strings.Contains(err.Error(), why)):
			t.Errorf("%s %s is to be refused with %q: %v", u.GetKind(), u.GetName(), why, err)
		}
	}
	w.judged(append(bad, main), func(u *unstructured.Unstructured) (wrong []error) {
		if len(lines(u, wantSays)) == 0 {
			return nil
		}
		live, err := w.resource(u).Get(t.Context(), u.GetName(), metav1.GetOptions{})
		if err != nil {
			return []error{err}
		}
		for _, line := range lines(u, wantSays) {
			if err := said(live, line); err != nil {
				wrong = append(wrong, fmt.Errorf("%s: %w", line, err))
			}
		}
		return wrong
	})
	w.judged(append(bad, main), func(u *unstructured.Unstructured) (wrong []error) {
		for _, line := range lines(u, wantAnswers) {
			url, status, _ := strings.Cut(line, " ")
			if err := asked(address, url, status); err != nil {
				wrong = append(wrong, fmt.Errorf("%s: %w", line, err))
			}
		}
		return wrong
	})
	w.allServed("full", 64)

	// While its options are wrong the Gateway serves on, and follows its routes.
	w.apply(mainOptions + "  replicas: many\n")
	w.awaits("main", gatewayv1.GatewayConditionAccepted, metav1.ConditionFalse, gatewayv1.GatewayReasonInvalidParameters)
	w.apply(`
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: meanwhile, namespace: shop}
spec:
  parentRefs: [{name: main, sectionName: good-http}]
  hostnames: [meanwhile.example.com]
  rules: [{backendRefs: [{name: web, port: 80}]}]
`)
	fleet.Eventually(t, "a route of a Gateway that is refused", func() error { return asked(address, "http://meanwhile.example.com/", "200") })
	w.apply(mainOptions + "  logLevel: info\n")
	w.programmed("main")

	good()
	w.nothingSetAside()
}

const mainOptions = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: main, namespace: shop}\ndata:\n"

// manifests reads testdata/bad, with what goes without saying.
func (w *world) manifests() (out []*unstructured.Unstructured) {
	w.Helper()
	label := strings.Repeat("a", 63)
	long := label + "." + label + "." + label + "." + strings.Repeat("b", 49) + ".example.com"
	fill := strings.NewReplacer("a${LONG}", "a"+long, "${LONG}", long, "${LONGPATH}", "/"+strings.Repeat("p/", 511)+"p")
	if len(long) != 253 {
		w.Fatalf("a hostname of %d characters", len(long))
	}
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) == 0 {
		w.Fatal("no manifests:", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			w.Fatal(err)
		}
		for _, doc := range strings.Split(fill.Replace(string(data)), "\n---\n") {
			u := &unstructured.Unstructured{}
			if err := yaml.UnmarshalStrict([]byte(doc), &u.Object); err != nil {
				w.Fatalf("%s: %v\n%s", file, err, doc)
			}
			otherwise := func(value any, path ...string) {
				if _, there, err := unstructured.NestedFieldNoCopy(u.Object, path...); err == nil && !there {
					if err := unstructured.SetNestedField(u.Object, value, path...); err != nil {
						w.Fatal(err)
					}
				}
			}
			otherwise("HTTPRoute", "kind")
			otherwise(gatewayv1.GroupVersion.String(), "apiVersion")
			if u.GetKind() != "GatewayClass" {
				otherwise(ns, "metadata", "namespace")
			}
			if strings.HasSuffix(u.GetKind(), "Route") {
				otherwise([]any{map[string]any{"name": "main", "sectionName": "good-http"}}, "spec", "parentRefs")
				refs, _, _ := unstructured.NestedSlice(u.Object, "spec", "parentRefs")
				if ref := refs[0].(map[string]any); u.GetKind() != "TCPRoute" && ref["sectionName"] == "good-http" {
					otherwise([]any{u.GetName() + ".example.com"}, "spec", "hostnames")
				}
			}
			out = append(out, u)
		}
	}
	return out
}

func lines(u *unstructured.Unstructured, annotation string) (out []string) {
	for _, line := range strings.Split(u.GetAnnotations()[annotation], "\n") {
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, line)
		}
	}
	return out
}

// onlyGood is a Gateway without those listeners that are not called good.
func onlyGood(t *testing.T, u *unstructured.Unstructured) *unstructured.Unstructured {
	t.Helper()
	out := u.DeepCopy()
	list, _, err := unstructured.NestedSlice(out.Object, "spec", "listeners")
	if err != nil {
		t.Fatal(err)
	}
	list = slices.DeleteFunc(list, func(l any) bool { return !strings.HasPrefix(l.(map[string]any)["name"].(string), "good-") })
	if err := unstructured.SetNestedSlice(out.Object, list, "spec", "listeners"); err != nil {
		t.Fatal(err)
	}
	return out
}

// full is a Gateway with n listeners of different hostnames on two ports.
func full(t *testing.T, n int) *unstructured.Unstructured {
	t.Helper()
	out := &unstructured.Unstructured{Object: map[string]any{}}
	out.SetAPIVersion(gatewayv1.GroupVersion.String())
	out.SetKind("Gateway")
	out.SetNamespace(ns)
	out.SetName("full")
	if n > 64 {
		out.SetName("overfull")
	}
	var list []any
	for i := range n {
		list = append(list, map[string]any{"name": fmt.Sprintf("l%d", i), "port": int64(80 + i%2), "protocol": "HTTP", "hostname": fmt.Sprintf("l%d.example.com", i)})
	}
	out.Object["spec"] = map[string]any{"gatewayClassName": "causeway", "listeners": list}
	return out
}

// resource is where objects like this are.
func (w *world) resource(u *unstructured.Unstructured) dynamic.ResourceInterface {
	kind := u.GroupVersionKind()
	r := kind.GroupVersion().WithResource(strings.ToLower(kind.Kind) + "s")
	switch kind.Kind {
	case "GatewayClass":
		return w.objects.Resource(r.GroupVersion().WithResource("gatewayclasses"))
	case "BackendTLSPolicy":
		r.Resource = "backendtlspolicies"
	}
	return w.objects.Resource(r).Namespace(u.GetNamespace())
}

// create makes an object as a client does that does not mind unknown fields.
func (w *world) create(u *unstructured.Unstructured) error {
	_, err := w.resource(u).Create(w.Context(), u, metav1.CreateOptions{})
	return err
}

func (w *world) server(u *unstructured.Unstructured) {
	w.Helper()
	data, err := json.Marshal(u)
	if err != nil {
		w.Fatal(err)
	}
	w.apply(string(data))
}

// judged awaits that nothing is wrong with any of the objects, and tells of each what is.
func (w *world) judged(list []*unstructured.Unstructured, wrong func(*unstructured.Unstructured) []error) {
	w.Helper()
	for deadline := time.Now().Add(fleet.Patience); ; time.Sleep(200 * time.Millisecond) {
		list = slices.DeleteFunc(slices.Clone(list), func(u *unstructured.Unstructured) bool { return len(wrong(u)) == 0 })
		if len(list) == 0 {
			return
		}
		if time.Now().After(deadline) {
			break
		}
	}
	for _, u := range list {
		for _, err := range wrong(u) {
			w.Errorf("%s %s/%s: %v", u.GetKind(), u.GetNamespace(), u.GetName(), err)
		}
	}
}

// said tells why an object's status does not say a line.
func said(u *unstructured.Unstructured, line string) error {
	var status struct {
		Conditions         []metav1.Condition
		Parents, Ancestors []gatewayv1.RouteParentStatus
		Listeners          []gatewayv1.ListenerStatus
	}
	raw, err := json.Marshal(u.Object["status"])
	if err == nil {
		err = json.Unmarshal(raw, &status)
	}
	if err != nil {
		return err
	}
	part := strings.SplitN(line+" ", " ", 4)
	where, what, reason, text := part[0], part[1], part[2], strings.TrimSpace(part[3])
	var lists [][]metav1.Condition
	switch where {
	case "-":
		lists = append(lists, status.Conditions)
	case "parent":
		for _, p := range slices.Concat(status.Parents, status.Ancestors) {
			if p.ControllerName == cluster.ControllerName {
				lists = append(lists, p.Conditions)
			}
		}
	default:
		for _, l := range status.Listeners {
			if string(l.Name) == where {
				lists = append(lists, l.Conditions)
			}
		}
	}
	for _, list := range lists {
		if !slices.ContainsFunc(list, func(c metav1.Condition) bool {
			return c.Type+"="+string(c.Status) == what && c.Reason == reason && strings.Contains(c.Message, text) && c.ObservedGeneration == u.GetGeneration()
		}) {
			return fmt.Errorf("generation %d says %+v", u.GetGeneration(), list)
		}
	}
	if len(lists) == 0 {
		return fmt.Errorf("the status is %s", raw)
	}
	return nil
}

// anyHost calls a Gateway's address whatever the host, and trusts every certificate.
func anyHost(address string) *http.Client {
	return &http.Client{
		Timeout:       3 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DisableKeepAlives: true,
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
			DialContext: func(ctx context.Context, network, to string) (net.Conn, error) {
				_, port, err := net.SplitHostPort(to)
				if err != nil {
					return nil, err
				}
				return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(address, port))
			},
		},
	}
}

// asked tells in which other way than with a status a URL is answered.
func asked(address, url, status string) error {
	resp, err := anyHost(address).Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if err == nil && strconv.Itoa(resp.StatusCode) != status {
		err = fmt.Errorf("%d: %s", resp.StatusCode, body)
	}
	return err
}

// watched asks what is good on a Gateway, again and again, by new connections and by
// ones that stay, until the function that it gives is called: nothing may have failed.
func (w *world) watched(address string) (end func()) {
	w.Helper()
	ctx, cancel := context.WithCancel(w.Context())
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed []string
	n := 0
	for _, url := range []string{"http://good.example.com/", "https://good.example.com/"} {
		for _, keep := range []bool{false, true} {
			c := anyHost(address)
			c.Transport.(*http.Transport).DisableKeepAlives = !keep
			c.Timeout = slow
			if err := answers(c, url, "good.example.com"); err != nil {
				w.Fatalf("%s before anything is bad: %v", url, err)
			}
			wg.Go(func() {
				for ctx.Err() == nil {
					err := answers(c, url, "good.example.com")
					mu.Lock()
					if n++; err != nil {
						failed = append(failed, fmt.Sprintf("%s %s: %v", time.Now().Format(time.TimeOnly), url, err))
					}
					mu.Unlock()
					time.Sleep(20 * time.Millisecond)
				}
				c.CloseIdleConnections()
			})
		}
	}
	w.Cleanup(func() { cancel(); wg.Wait() })
	return func() {
		w.Helper()
		cancel()
		wg.Wait()
		if len(failed) > 0 {
			w.Errorf("%d of %d good requests failed: %s", len(failed), n, strings.Join(failed[:min(len(failed), 5)], "\n"))
		}
		w.Logf("%d good requests", n)
	}
}

// allServed awaits that a Gateway with n listeners serves each.
func (w *world) allServed(name string, n int) {
	w.Helper()
	w.apply(`
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: ` + name + `, namespace: shop}
spec:
  parentRefs: [{name: ` + name + `}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
`)
	address := w.programmed(name)
	for i := range n {
		url := fmt.Sprintf("http://l%d.example.com:%d/", i, 80+i%2)
		fleet.Eventually(w, url, func() error { return asked(address, url, "200") })
	}
	fleet.Eventually(w, "each listener of Gateway "+name+" has its route", func() error {
		g, err := w.gateway(name)
		if err == nil && (len(g.Status.Listeners) != n || slices.ContainsFunc(g.Status.Listeners, func(l gatewayv1.ListenerStatus) bool { return l.AttachedRoutes != 1 })) {
			err = fmt.Errorf("%d listeners: %+v", len(g.Status.Listeners), g.Status.Listeners)
		}
		return err
	})
}

// nothingSetAside: Envoys have refused nothing, which would have kept a whole table of
// routes, or a port's listener, as it was.
func (w *world) nothingSetAside() {
	w.Helper()
	agents, err := w.core.CoreV1().Pods("causeway-system").List(w.Context(), metav1.ListOptions{})
	if err != nil {
		w.Fatal(err)
	}
	for _, p := range agents.Items {
		log, err := w.core.CoreV1().Pods(p.Namespace).GetLogs(p.Name, &corev1.PodLogOptions{}).DoRaw(w.Context())
		if err != nil {
			w.Fatal(err)
		}
		for _, line := range strings.Split(string(log), "\n") {
			if strings.Contains(line, "set aside") || strings.Contains(line, "rejected a response") {
				w.Errorf("%s: %s", p.Name, line)
			}
		}
	}
}

// certificates makes the Secrets and ConfigMaps that listeners refer to.
func (w *world) certificates() {
	w.Helper()
	cert, key := resolvetest.PEM(w, "good.example.com")
	_, otherKey := resolvetest.Sign(w, x509.Certificate{}, mustKey(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)))
	secret := func(namespace, name string, kind corev1.SecretType, data map[string][]byte) {
		w.Helper()
		if _, err := w.core.CoreV1().Secrets(namespace).Create(w.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, Type: kind, Data: data}, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			w.Fatal(err)
		}
	}
	pair := func(name string, cert, key []byte) {
		w.Helper()
		secret(ns, name, corev1.SecretTypeTLS, map[string][]byte{corev1.TLSCertKey: cert, corev1.TLSPrivateKeyKey: key})
	}
	made := func(name string, template x509.Certificate, key crypto.Signer) {
		w.Helper()
		c, k := resolvetest.Sign(w, template, key)
		pair(name, c, k)
	}
	pair("good", cert, key)
	pair("mismatch", cert, otherKey)
	pair("garbage", []byte("no certificate"), []byte("no key"))
	pair("chain", slices.Concat(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("none")})), key)
	secret(ns, "no-key", corev1.SecretTypeOpaque, map[string][]byte{corev1.TLSCertKey: cert})
	secret(ns, "opaque", corev1.SecretTypeOpaque, map[string][]byte{corev1.TLSCertKey: cert, corev1.TLSPrivateKeyKey: key})
	secret("other", "good", corev1.SecretTypeTLS, map[string][]byte{corev1.TLSCertKey: cert, corev1.TLSPrivateKeyKey: key})
	named := x509.Certificate{DNSNames: []string{"any.example.com"}}
	made("weak", named, mustKey(rsa.GenerateKey(rand.Reader, 1024)))
	made("curve", named, mustKey(ecdsa.GenerateKey(elliptic.P224(), rand.Reader)))
	made("nameless", x509.Certificate{Subject: pkix.Name{Organization: []string{"nobody"}}}, mustKey(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)))
	past := named
	past.NotAfter = time.Now().Add(-time.Hour)
	made("expired", past, mustKey(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)))
	for namespace, ca := range map[string]map[string]string{ns: {"garbage": "no certificate"}, "other": {"good": string(cert)}} {
		for name, data := range ca {
			m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"ca.crt": data}}
			if _, err := w.core.CoreV1().ConfigMaps(namespace).Create(w.Context(), m, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
				w.Fatal(err)
			}
		}
	}
}

func mustKey[K crypto.Signer](k K, err error) crypto.Signer {
	if err != nil {
		panic(err) // there is no randomness
	}
	return k
}

package gateways

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/causeway-mesh/causeway/federation/resolve/resolvetest"
	"github.com/causeway-mesh/causeway/test/conformance/fleet"
)

// certificate makes the Secret of a host anew.
func (w *world) certificate(name string) {
	w.Helper()
	cert, key := resolvetest.PEM(w, name+".example.com")
	w.apply(fmt.Sprintf("apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {name: %s, namespace: shop}\nstringData: {tls.crt: %q, tls.key: %q}\n", name, cert, key))
}

// Connections outlive whatever happens to listeners of other ports, and to those of other
// hostnames of their own port; and requests outlive their listener.
func (w *world) connections() {
	t := w.T
	gateway := func(listeners ...string) {
		w.apply(`
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: lasting, namespace: shop}
spec:
  gatewayClassName: causeway
  listeners:
  - ` + strings.Join(listeners, "\n  - ") + "\n")
	}
	secure := func(name string) string {
		return "{name: " + name + ", port: 443, protocol: HTTPS, hostname: " + name + ".example.com, tls: {certificateRefs: [{name: " + name + "}]}}"
	}
	const plain, moved, other = "{name: http, port: 80, protocol: HTTP}", "{name: http, port: 8080, protocol: HTTP}", "{name: other, port: 9000, protocol: HTTP}"
	w.certificate("one")
	w.certificate("two")
	w.apply(`
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: lasting, namespace: shop}
spec:
  parentRefs: [{name: lasting}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
`)
	gateway(plain, secure("one"))
	address := w.programmed("lasting")

	dials := 0
	held := anyHost(address)
	held.Timeout = slow
	transport := held.Transport.(*http.Transport)
	transport.DisableKeepAlives = false
	dial := transport.DialContext
	transport.DialContext = func(ctx context.Context, network, to string) (net.Conn, error) {
		dials++
		return dial(ctx, network, to)
	}
	defer held.CloseIdleConnections()
	lasts := func(what string) {
		t.Helper()
		if err := answers(held, "https://one.example.com/", "one.example.com"); err != nil || dials != 1 {
			t.Errorf("after %s: %v, %d connections", what, err, dials)
		}
	}
	lasts("nothing")
	answering := func(url string) {
		t.Helper()
		fleet.Eventually(t, url, func() error { return asked(address, url, "200") })
	}
	silent := func(url string) {
		t.Helper()
		fleet.Eventually(t, url+" is not answered", func() error {
			if asked(address, url, "200") == nil {
				return fmt.Errorf("it is")
			}
			return nil
		})
	}

	gateway(plain, secure("one"), secure("two"))
	answering("https://two.example.com/")
	lasts("another hostname of the port came")
	gateway(plain, secure("one"), secure("two"), other)
	answering("http://any.example.com:9000/")
	lasts("another port came")
	first := w.shown(address, "two.example.com")
	w.certificate("two")
	fleet.Eventually(t, "another certificate", func() error {
		if w.shown(address, "two.example.com") == first {
			return fmt.Errorf("it is the same")
		}
		return nil
	})
	lasts("another hostname's certificate changed")
	gateway(plain, secure("one"))
	silent("https://two.example.com/")
	silent("http://any.example.com:9000/")
	lasts("both went")

	// The listener's port changes while it is at work.
	slow := make(chan error, 1)
	begun := make(chan struct{})
	go func() {
		c := anyHost(address)
		c.Timeout = time.Minute
		dial := c.Transport.(*http.Transport).DialContext
		c.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, to string) (net.Conn, error) {
			conn, err := dial(ctx, network, to)
			close(begun)
			return conn, err
		}
		slow <- answers(c, "http://any.example.com/?delay=5s", "any.example.com")
	}()
	<-begun
	gateway(moved, secure("one"))
	answering("http://any.example.com:8080/")
	silent("http://any.example.com/")
	if err := <-slow; err != nil {
		t.Errorf("a request that was under way when its listener moved: %v", err)
	}
	lasts("another listener moved")
	w.removed("lasting")
}

// shown gives the certificate that a Gateway shows for a server name.
func (w *world) shown(address, name string) string {
	w.Helper()
	conn, err := tls.Dial("tcp", net.JoinHostPort(address, "443"), &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err != nil {
		w.Fatal(err)
	}
	defer conn.Close()
	return string(conn.ConnectionState().PeerCertificates[0].Raw)
}

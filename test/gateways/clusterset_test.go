package gateways

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/federation/resolve"
	"github.com/causeway-mesh/causeway/federation/resolve/resolvetest"
	"github.com/causeway-mesh/causeway/test/conformance/fleet"
)

const clustersetGateway = "all-causeway-clusterset"

// everywhere is the Gateway for all clusters, or for some of them, with more listeners.
func everywhere(clusters, listeners string) string {
	return `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: all, namespace: shop, annotations: {causeway.dev/clusters: "` + clusters + `"}}
spec:
  gatewayClassName: causeway-clusterset
  listeners:
  - {name: http, port: 80, protocol: HTTP}
` + listeners
}

// says gives a condition of a Gateway that is about its current generation.
func says(g *gatewayv1.Gateway, kind string) metav1.Condition {
	for _, c := range g.Status.Conditions {
		if c.Type == kind && c.ObservedGeneration == g.Generation {
			return c
		}
	}
	return metav1.Condition{}
}

// runAt awaits that a Gateway's status has these clusters' addresses and no others, and
// that all are programmed.
func (w *world) runAt(name string, clusters ...*world) (g *gatewayv1.Gateway) {
	w.Helper()
	fleet.Eventually(w, fmt.Sprintf("Gateway %s runs in %d clusters", name, len(clusters)), func() (err error) {
		if g, err = w.gateway(name); err != nil {
			return err
		}
		var want, got []string
		for _, c := range clusters {
			s, err := c.core.CoreV1().Services(ns).Get(w.Context(), name+"-causeway-clusterset", metav1.GetOptions{})
			if err != nil {
				return err
			}
			for _, i := range s.Status.LoadBalancer.Ingress {
				want = append(want, i.IP)
				if f := says(g, resolve.ConditionFederated); !strings.Contains(f.Message, c.c.Name+" at "+i.IP) {
					return fmt.Errorf("it is %+v", f)
				}
			}
		}
		for _, a := range g.Status.Addresses {
			got = append(got, a.Value)
		}
		slices.Sort(want)
		slices.Sort(got)
		if p := says(g, string(gatewayv1.GatewayConditionProgrammed)); !slices.Equal(want, got) || len(got) != len(clusters) || p.Status != metav1.ConditionTrue {
			return fmt.Errorf("the addresses are %v, not %v; %+v", got, want, g.Status.Conditions)
		}
		return nil
	})
	return g
}

// left awaits that nothing of the Gateway is in a cluster.
func (w *world) left() {
	w.Helper()
	fleet.Eventually(w, "Gateway all is gone from "+w.c.Name, func() error {
		if _, err := w.core.CoreV1().Services(ns).Get(w.Context(), clustersetGateway, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("the Service is there (%w)", err)
		}
		if p, err := w.pods("all"); err != nil || len(p) > 0 {
			return fmt.Errorf("pods %v (%w)", p, err)
		}
		return nil
	})
}

// A Gateway for all clusters, written once: each runs it at an address of its own, and its
// status, where it was written, shows them all.
func TestClustersetGateway(t *testing.T) {
	all := start(t, "one", "two", "three")
	home, second, third := all[0], all[1], all[2]
	for _, w := range all {
		w.apply("apiVersion: multicluster.x-k8s.io/v1beta1\nkind: ServiceExport\nmetadata: {name: web, namespace: shop}\n")
	}
	home.apply(everywhere("name in (c1,c2,c3)", "") + `---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{name: all}]
  rules: [{backendRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: web, port: 80}]}]
`)
	g := home.runAt("all", all...)
	if f := says(g, resolve.ConditionFederated); f.Status != metav1.ConditionTrue {
		t.Errorf("Federated is %+v", f)
	}
	if n := g.Status.Listeners[0].AttachedRoutes; n != 1 {
		t.Errorf("%d routes are attached", n)
	}
	for _, a := range g.Status.Addresses { // Programmed is no promise: it serves.
		if err := answers(fresh(), "http://"+a.Value+"/", "any.example.com"); err != nil {
			t.Errorf("at %s: %v", a.Value, err)
		}
	}
	service := func(w *world) *corev1.Service {
		s, err := w.core.CoreV1().Services(ns).Get(t.Context(), clustersetGateway, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := service(second); len(s.OwnerReferences) > 0 {
		t.Errorf("its owner, in a cluster where there is none, is %+v", s.OwnerReferences)
	}

	// TLS: the certificate stays at home, then goes to one, then to all.
	cert, key := resolvetest.PEM(t, "shop.example.com")
	secret := func(annotation string) string {
		return fmt.Sprintf("apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {name: shop, namespace: shop%s}\nstringData: {tls.crt: %q, tls.key: %q}\n---", annotation, cert, key)
	}
	const https = "  - {name: https, port: 443, protocol: HTTPS, hostname: shop.example.com, tls: {certificateRefs: [{name: shop}]}}\n"
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cert)
	encrypted := func(w *world) error {
		c := fresh()
		c.Timeout = time.Second
		c.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: roots, ServerName: "shop.example.com"}
		return answers(c, "https://"+service(w).Status.LoadBalancer.Ingress[0].IP+"/", "shop.example.com")
	}
	home.apply(secret("") + everywhere("", https))
	fleet.Eventually(t, "its certificate is nowhere but at home", func() error {
		g, err := home.gateway("all")
		if err != nil {
			return err
		}
		for _, l := range g.Status.Listeners {
			for _, c := range l.Conditions {
				if l.Name == "https" && c.Type == string(gatewayv1.ListenerConditionResolvedRefs) && c.Reason == string(gatewayv1.ListenerReasonInvalidCertificateRef) &&
					strings.Contains(c.Message, "none has come from cluster c1") && strings.Contains(c.Message, "c2:") && strings.Contains(c.Message, "c3:") && strings.Contains(c.Message, "annotate that of cluster c1 with causeway.dev/clusters") {
					return encrypted(home)
				}
			}
		}
		return fmt.Errorf("listeners %+v", g.Status.Listeners)
	})
	home.apply(secret(`, annotations: {causeway.dev/clusters: "name=c2"}`))
	fleet.Eventually(t, "the certificate has come to c2", func() error { return encrypted(second) })
	if encrypted(third) == nil {
		t.Error("c3 has a certificate that may go to c2 alone")
	}
	home.apply(secret(`, annotations: {causeway.dev/clusters: ""}`))
	fleet.Eventually(t, "the certificate has come to all", func() error { return encrypted(third) })
	home.runAt("all", all...)
	for _, w := range all[1:] {
		if _, err := w.core.CoreV1().Secrets(ns).Get(t.Context(), "shop", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("%s has a copy of the Secret (%v)", w.c.Name, err)
		}
	}
	home.apply(secret(""))
	fleet.Eventually(t, "it is taken back", func() error {
		if encrypted(second) == nil || encrypted(third) == nil {
			return errors.New("it is in use still")
		}
		return encrypted(home)
	})

	// One is left out, and taken in again.
	home.apply(everywhere("name in (c1,c2)", ""))
	home.runAt("all", home, second)
	third.left()
	home.apply(everywhere("", ""))
	home.runAt("all", all...)
	if err := answers(fresh(), "http://"+service(third).Status.LoadBalancer.Ingress[0].IP+"/", "any.example.com"); err != nil {
		t.Errorf("where it runs again: %v", err)
	}

	home.removed("all")
	second.left()
	third.left()
}

package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// speaker is a Service with its Deployment and export that speaks everything.
const speaker = `apiVersion: v1
kind: Service
metadata: {name: NAME, namespace: shop}
spec:
  selector: {app: NAME}
  ports:
    - {name: http, port: 80, targetPort: 8080}
    - {name: grpc, port: 81, targetPort: 8080, appProtocol: kubernetes.io/h2c}
    - {name: tls, port: 443, targetPort: 8443, appProtocol: tls}
    - {name: tcp, port: 9000, targetPort: 9000}
    - {name: udp, port: 5353, targetPort: 5353, protocol: UDP}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME, namespace: shop}
spec:
  selector: {matchLabels: {app: NAME}}
  template:
    metadata: {labels: {app: NAME}}
    spec: {containers: [{name: server, image: example/NAME}]}
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: NAME, namespace: shop}
`

// forwardRoutes send a quarter of line's connections, its TLS and its datagrams to
// line-next; cart's Add, and copies of all that is paid there, to cart-next.
const forwardRoutes = `apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: line, namespace: shop}
spec:
  parentRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: line, port: 9000}]
  rules:
    - backendRefs:
        - {group: multicluster.x-k8s.io, kind: ServiceImport, name: line, port: 9000, weight: 3}
        - {group: multicluster.x-k8s.io, kind: ServiceImport, name: line-next, port: 9000, weight: 1}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: line, namespace: shop}
spec:
  hostnames: [line.shop.svc.clusterset.local]
  parentRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: line, port: 443}]
  rules:
    - backendRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: line-next, port: 443}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: UDPRoute
metadata: {name: line, namespace: shop}
spec:
  parentRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: line, port: 5353}]
  rules:
    - backendRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: line-next, port: 5353}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: cart, namespace: shop}
spec:
  parentRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: line, port: 81}]
  rules:
    - matches: [{method: {service: Cart, method: Add}}]
      backendRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: line-next, port: 81}]
    - backendRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: line, port: 81}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: copies, namespace: shop}
spec:
  parentRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: line, port: 80}]
  rules:
    - filters: [{type: RequestMirror, requestMirror: {backendRef: {group: multicluster.x-k8s.io, kind: ServiceImport, name: line-next, port: 80}}}]
      backendRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: line, port: 80}]
`

const line = "line.shop.svc.clusterset.local"

func forwards(d *demo) error {
	try := func(from, url string, n int, share map[string]float64, flags ...string) func() error {
		return func() error { return d.expect(from, url, n, "-", byService, share, flags...) }
	}
	return first(
		func() error { return d.write("west/line.yaml", strings.ReplaceAll(speaker, "NAME", "line")) },
		func() error { return d.write("east/line-next.yaml", strings.ReplaceAll(speaker, "NAME", "line-next")) },
		func() error { return d.write("south/line-routes.yaml", forwardRoutes) },
		func() error { return d.settle("20s") },
		try("west/shop", "tcp://"+line+":9000", 200, map[string]float64{"west shop/line": .75, "east shop/line-next": .25}),
		try("south/shop", "tcp://"+line+":9000", 200, map[string]float64{"west shop/line": .75, "east shop/line-next": .25}),
		try("south/shop", "tls://"+line, 10, all("east shop/line-next"), "-k"),
		try("west/shop", "udp://"+line+":5353", 20, all("east shop/line-next")),
	)
}

func methods(d *demo) error {
	const copies = 50
	return first(
		func() error {
			return d.expect("south/shop", "grpc://"+line+":81/Cart/Add", 20, "shop/cart@south", byService, all("east shop/line-next"))
		},
		func() error {
			return d.expect("south/shop", "grpc://"+line+":81/Cart/Remove", 20, "shop/cart@south", byService, all("west shop/line"))
		},
		func() error {
			return d.expect("south/shop", "http://"+line+"/pay", copies, "shop/copies@south", byService, all("west shop/line"))
		},
		func() error {
			var body struct{ Received int }
			// Nobody waits for copies: the last ones may still be on their way.
			for deadline := time.Now().Add(5 * time.Second); body.Received < copies && time.Now().Before(deadline); {
				a, err := d.request("east/shop", "http://line-next.shop.svc.clusterset.local/?received=/pay", 1)
				if err != nil {
					return err
				}
				if err := json.Unmarshal(a.Answers[0].Body, &body); err != nil {
					return fmt.Errorf("the count of copies: %w", err)
				}
			}
			d.row("east/shop", "line-next.shop (import)", "", fmt.Sprintf("%d copies have come", body.Received), fmt.Sprint(copies), body.Received == copies)
			return nil
		},
	)
}

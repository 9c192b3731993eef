package main

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/causeway-mesh/causeway/cmd/causeway/client"
)

// stories are told in order; each leaves the manifests as the next expects them.
var stories = []struct {
	title string
	tell  func(*demo) error
}{
	{"ServiceImports: called from a cluster that exports nothing; local endpoints first; overflow and back", overflow},
	{"Producer route, written once in west: 70/30 for the clients of all clusters, over 1,000 requests each", producer},
	{"Consumer routes: dev-ns alone, in all clusters, beside the producer route", consumer},
	{"Chain: Gateway, route-a, svc-a, then the producer route-b to svc-b of another namespace; route-a untouched", chain},
	{"The same chain by ServiceImports, over clusters", isles},
	{"ReferenceGrant: missing, then added, with 70/30 over two namespaces", grant},
	{"allowedRoutes: refused, then allowed by All, by Selector, and by Same", allowed},
	{"TCP, TLS and UDP by routes written in south, for clients of all clusters, over networks", forwards},
	{"gRPC by method; and a copy of each request to another cluster, which its pods count", methods},
	{"The store stops and starts again: no request fails", storeDown},
	{"grpcurl by reflection", grpcurl},
}

const (
	catalog  = "http://catalog.shop.svc.clusterset.local/"
	checkout = "http://checkout.shop.svc.clusterset.local/"
)

func overflow(d *demo) error {
	try := func(from string, share map[string]float64) func() error {
		return func() error { return d.expect(from, catalog, 40, "no route", byCluster, share) }
	}
	scale := func(from, to int) func() error {
		return func() error {
			if err := d.edit("west/shop.yaml", fmt.Sprintf("replicas: %d", from), fmt.Sprintf("replicas: %d", to)); err != nil {
				return err
			}
			return d.settle("20s")
		}
	}
	return first(
		try("south/shop", map[string]float64{"west": .5, "east": .5}),
		try("west/shop", all("west")),
		try("east/shop", all("east")),
		scale(2, 0),
		try("west/shop", all("east")),
		try("south/shop", all("east")),
		scale(0, 2),
		try("west/shop", all("west")),
	)
}

func producer(d *demo) error {
	for _, c := range []string{"west", "east", "south"} {
		if err := d.expect(c+"/shop", checkout, 1000, "shop/checkout-canary@west", byService,
			map[string]float64{"west shop/checkout-v1": .7, "east shop/checkout-v2": .3}); err != nil {
			return err
		}
	}
	return nil
}

func consumer(d *demo) error {
	for _, c := range []string{"west", "east", "south"} {
		err := first(
			func() error {
				return d.expect(c+"/dev-ns", catalog, 20, "dev-ns/try-next-catalog@west", byService, all("east shop/catalog-next"))
			},
			func() error {
				return d.expect(c+"/dev-ns", checkout, 20, "dev-ns/checkout-v2-only@west", byService, all("east shop/checkout-v2"))
			},
		)
		if err != nil {
			return err
		}
	}
	return first(
		func() error {
			return d.expect("west/shop", catalog, 20, "no route", byService, all("west shop/catalog"))
		},
		func() error {
			return d.expect("south/shop", checkout, 1000, "shop/checkout-canary@west", byService,
				map[string]float64{"west shop/checkout-v1": .7, "east shop/checkout-v2": .3})
		},
	)
}

const routeB = `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: %s, namespace: %s}
spec:
  parentRefs:
    - {group: %q, kind: %s, name: svc-a, namespace: app-ns, port: 80}
  rules:
    - backendRefs: [{group: %q, kind: %s, name: svc-b, namespace: ext-ns, port: 80, weight: 100}]
`

func chain(d *demo) error {
	const gw, svcA = "west/gateway/app-ns/gw", "http://svc-a.app-ns.svc.cluster.local/"
	put := func(file, name, ns string) func() error {
		return func() error {
			if err := d.write(file, fmt.Sprintf(routeB, name, ns, "", "Service", "", "Service")); err != nil {
				return err
			}
			return d.settle("20s")
		}
	}
	return first(
		func() error {
			return d.expect(gw, "http://example.local/", 20, "app-ns/route-a@west", byService, all("west app-ns/svc-a"))
		},
		func() error {
			return d.expect("west/dev-ns", svcA, 20, "no route", byService, all("west app-ns/svc-a"))
		},
		put("west/route-dev.yaml", "dev-svc-a", "dev-ns"),
		func() error {
			return d.expect("west/dev-ns", svcA, 20, "dev-ns/dev-svc-a@west", byService, all("west ext-ns/svc-b"))
		},
		func() error {
			return d.expect("west/app-ns", svcA, 20, "no route", byService, all("west app-ns/svc-a"))
		},
		func() error {
			return d.expect(gw, "http://example.local/", 20, "app-ns/route-a@west", byService, all("west app-ns/svc-a"))
		},
		put("west/route-b.yaml", "route-b", "app-ns"),
		func() error {
			return d.expect(gw, "http://example.local/", 20, "app-ns/route-a@west > app-ns/route-b@west", byService, all("west ext-ns/svc-b"))
		},
		func() error {
			return d.expect("west/ext-ns", svcA, 20, "app-ns/route-b@west", byService, all("west ext-ns/svc-b"))
		},
	)
}

func isles(d *demo) error {
	const gw, svcA, group = "east/gateway/app-ns/gw", "http://svc-a.app-ns.svc.clusterset.local/", "multicluster.x-k8s.io"
	put := func(file, name, ns string) func() error {
		return func() error {
			if err := d.write(file, fmt.Sprintf(routeB, name, ns, group, "ServiceImport", group, "ServiceImport")); err != nil {
				return err
			}
			return d.settle("20s")
		}
	}
	return first(
		func() error {
			return d.expect(gw, "http://isles.local/", 20, "app-ns/isles-a@east", byService, all("east app-ns/svc-a"))
		},
		put("south/route-dev.yaml", "dev-isles", "dev-ns"),
		func() error {
			return d.expect("west/dev-ns", svcA, 20, "dev-ns/dev-isles@south", byService, all("south ext-ns/svc-b"))
		},
		func() error { return d.expect("west/shop", svcA, 20, "no route", byService, all("east app-ns/svc-a")) },
		put("west/isles-b.yaml", "isles-b", "app-ns"),
		func() error {
			return d.expect(gw, "http://isles.local/", 20, "app-ns/isles-a@east > app-ns/isles-b@west", byService, all("south ext-ns/svc-b"))
		},
		func() error {
			return d.expect("south/shop", svcA, 20, "app-ns/isles-b@west", byService, all("south ext-ns/svc-b"))
		},
	)
}

func grant(d *demo) error {
	const gw, url = "west/gateway/app-ns/gw", "http://example.local/two"
	return first(
		func() error {
			return d.write("west/two.yaml", `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: two-namespaces, namespace: app-ns}
spec:
  hostnames: [example.local]
  parentRefs: [{name: gw}]
  rules:
    - matches: [{path: {type: PathPrefix, value: /two}}]
      backendRefs:
        - {name: catalog, namespace: shop, port: 80, weight: 70}
        - {name: svc-b, namespace: ext-ns, port: 80, weight: 30}
`)
		},
		func() error { return d.settle("20s") },
		func() error { return d.expect(gw, url, 20, "app-ns/two-namespaces@west", byStatus, all("500")) },
		func() error {
			return d.expectCondition("west", "app-ns", "two-namespaces", "ResolvedRefs", "False RefNotPermitted")
		},
		func() error {
			text := ""
			for _, ns := range []string{"shop", "ext-ns"} {
				text += fmt.Sprintf(`apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: from-app-ns, namespace: %s}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: app-ns}]
  to: [{group: "", kind: Service}]
---
`, ns)
			}
			return d.write("west/grants.yaml", strings.TrimSuffix(text, "---\n"))
		},
		func() error { return d.settle("20s") },
		func() error {
			return d.expect(gw, url, 1000, "app-ns/two-namespaces@west", byService,
				map[string]float64{"west shop/catalog": .7, "west ext-ns/svc-b": .3})
		},
		func() error {
			return d.expectCondition("west", "app-ns", "two-namespaces", "ResolvedRefs", "True ResolvedRefs")
		},
	)
}

func allowed(d *demo) error {
	const gw, url = "west/gateway/app-ns/gw", "http://example.local/guest"
	listener := "{name: http, protocol: HTTP, port: 80, hostname: example.local%s}"
	now := ""
	allow := func(text string) func() error {
		return func() error {
			next := ", allowedRoutes: {namespaces: {" + text + "}}"
			err := d.edit("west/chain.yaml", fmt.Sprintf(listener, now), fmt.Sprintf(listener, next))
			now = next
			if err != nil {
				return err
			}
			return d.settle("20s")
		}
	}
	yes := func() error {
		return first(
			func() error { return d.expect(gw, url, 20, "ext-ns/guest@west", byService, all("west ext-ns/svc-b")) },
			func() error { return d.expectCondition("west", "ext-ns", "guest", "Accepted", "True Accepted") },
		)
	}
	no := func() error {
		return first(
			// Without the guest, route-a takes all paths.
			func() error {
				return d.expect(gw, url, 20, "app-ns/route-a@west > app-ns/route-b@west", byService, all("west ext-ns/svc-b"))
			},
			func() error {
				return d.expectCondition("west", "ext-ns", "guest", "Accepted", "False NotAllowedByListeners")
			},
		)
	}
	return first(
		func() error {
			return d.write("west/guest.yaml", `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: guest, namespace: ext-ns}
spec:
  hostnames: [example.local]
  parentRefs: [{name: gw, namespace: app-ns}]
  rules:
    - matches: [{path: {type: PathPrefix, value: /guest}}]
      backendRefs: [{name: svc-b, port: 80}]
`)
		},
		func() error { return d.settle("20s") },
		no,
		allow("from: All"), yes,
		allow("from: Same"), no,
		allow("from: Selector, selector: {matchLabels: {team: ext}}"), yes,
		allow("from: Selector, selector: {matchLabels: {team: app}}"), no,
	)
}

func storeDown(d *demo) error {
	var (
		mu     sync.Mutex
		counts = map[string]int{}
		sent   int
		errs   []error
		wg     sync.WaitGroup
		stop   = make(chan struct{})
	)
	for _, c := range []string{"west", "east", "south"} {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				a, err := d.request(c+"/shop", catalog, 100)
				mu.Lock()
				if err != nil {
					errs = append(errs, err)
				}
				for k, n := range a.by(byStatus) {
					counts[k] += n
				}
				sent += 100
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	fault := func(on bool) error {
		args := []string{"fault", "store"}
		if !on {
			args = append(args, "--clear")
		}
		_, err := d.cli(args...)
		return err
	}
	err := first(
		func() error { return fault(true) },
		func() error { time.Sleep(3 * time.Second); return nil }, // traffic without a store
		func() error { return fault(false) },
		func() error { return d.settle("30s") },
	)
	close(stop)
	wg.Wait()
	if err != nil {
		return err
	}
	if len(errs) > 0 {
		return errs[0]
	}
	d.row("all three", "catalog.shop (import)", "no route", fmt.Sprintf("%s of %d", show(counts), sent), "200, all of them", counts["200"] == sent && sent > 0)
	// The store works again: an edit takes effect in another cluster.
	if err := first(
		func() error { return d.edit("east/shop.yaml", "replicas: 2", "replicas: 0") },
		func() error { return d.settle("20s") },
		func() error { return d.expect("south/shop", catalog, 20, "no route", byCluster, all("west")) },
		func() error { return d.edit("east/shop.yaml", "replicas: 0", "replicas: 2") },
		func() error { return d.settle("20s") },
	); err != nil {
		return err
	}
	return d.expect("south/shop", catalog, 40, "no route", byCluster, map[string]float64{"west": .5, "east": .5})
}

func grpcurl(d *demo) error {
	context, err := client.ReadContext(d.state)
	if err != nil {
		return err
	}
	call := func(method string) (map[string]json.RawMessage, error) {
		cmd := exec.CommandContext(d.ctx, d.grpcurl, "-cacert", context.CACert, "-cert", context.Cert, "-key", context.Key, context.Server, method)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("grpcurl %s: %w\n%s", method, err, tail(string(out), 5))
		}
		var m map[string]json.RawMessage
		return m, json.Unmarshal(out, &m)
	}
	for _, m := range []struct {
		method, field string
		want          []string
	}{
		{"ListClusters", "clusters", []string{`"west"`, `"east"`, `"south"`}},
		{"ListServiceImports", "imports", []string{`"catalog"`, `"checkout"`, `"svc-b"`}},
		{"ListRoutes", "routes", []string{`"checkout-canary"`, `"route-a"`, `"isles-b"`}},
	} {
		got, err := call("causeway.v1.Federation/" + m.method)
		if err != nil {
			return err
		}
		var list []json.RawMessage
		ok := json.Unmarshal(got[m.field], &list) == nil
		for _, w := range m.want {
			ok = ok && strings.Contains(string(got[m.field]), w)
		}
		d.row("grpcurl", m.method, "", fmt.Sprintf("%d %s", len(list), m.field), strings.Join(m.want, " ")+" among them", ok)
	}
	return nil
}

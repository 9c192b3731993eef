// Package envoytest asks the real Envoy, in tests, whether it accepts what we
// make. `envoy --mode validate` knows no xDS, so that the resources of any number
// of proxies are put into one static configuration.
package envoytest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/causeway-mesh/causeway/xds/envoy"
)

// Resources are those of one proxy.
type Resources struct {
	Clusters, Endpoints, Listeners, Routes, Secrets []*anypb.Any
}

// Static gathers the resources of proxies. Proxies know nothing of each other: each
// name is made one of its proxy, and each listener gets an address of its own. The
// zero value is an empty configuration.
type Static struct {
	proxies                      int
	clusters, listeners, secrets []any
}

// Add takes the resources of one more proxy. Routes, endpoints and secrets go where
// they are referred to; what is missing there is an error.
func (s *Static) Add(r Resources) error {
	s.proxies++
	prefix := fmt.Sprintf("%d~", s.proxies)
	names := map[string]bool{}
	read := func(list []*anypb.Any, key string, own bool) (all []map[string]any, byName map[string]map[string]any, err error) {
		byName = map[string]map[string]any{}
		for _, a := range list {
			data, err := protojson.Marshal(a)
			if err != nil {
				return nil, nil, fmt.Errorf("write a resource as JSON: %w", err)
			}
			var x map[string]any
			if err := json.Unmarshal(data, &x); err != nil {
				return nil, nil, fmt.Errorf("read a resource's JSON: %w", err)
			}
			delete(x, "@type")
			name, _ := x[key].(string)
			all, byName[name] = append(all, x), x
			if own {
				names[name] = true
			}
		}
		return all, byName, nil
	}
	routes, routesOf, err := read(r.Routes, "name", false)
	if err != nil {
		return err
	}
	endpoints, endpointsOf, err := read(r.Endpoints, "clusterName", false)
	if err != nil {
		return err
	}
	clusters, _, err := read(r.Clusters, "name", true)
	if err != nil {
		return err
	}
	listeners, _, err := read(r.Listeners, "name", true)
	if err != nil {
		return err
	}
	secrets, _, err := read(r.Secrets, "name", true)
	if err != nil {
		return err
	}
	for _, list := range [][]map[string]any{routes, endpoints, clusters, listeners, secrets} {
		for _, x := range list {
			Walk(x, func(m map[string]any) {
				for k, v := range m {
					m[k] = rename(v, prefix, names)
				}
			})
		}
	}
	for _, list := range [][]map[string]any{clusters, listeners} {
		for _, x := range list {
			Walk(x, func(m map[string]any) {
				delete(m, "sdsConfig") // the static secret of that name
				if rds, ok := m["rds"].(map[string]any); ok {
					name, _ := rds["routeConfigName"].(string)
					routes, ok := routesOf[strings.TrimPrefix(name, prefix)]
					if !ok {
						err = fmt.Errorf("there are no routes %q", name)
					}
					delete(m, "rds")
					m["routeConfig"] = routes
				}
			})
		}
	}
	for _, c := range clusters {
		if eds, ok := c["edsClusterConfig"].(map[string]any); ok {
			name, _ := eds["serviceName"].(string)
			if name == "" {
				name, _ = c["name"].(string)
			}
			load, ok := endpointsOf[strings.TrimPrefix(name, prefix)]
			if !ok {
				err = fmt.Errorf("cluster %v has no endpoints %q", c["name"], name)
			}
			delete(c, "edsClusterConfig")
			c["type"], c["loadAssignment"] = "STATIC", load
		}
		s.clusters = append(s.clusters, c)
	}
	for _, l := range listeners {
		if a, ok := l["address"].(map[string]any); ok {
			if socket, ok := a["socketAddress"].(map[string]any); ok {
				n := len(s.listeners)
				socket["address"] = fmt.Sprintf("127.%d.%d.%d", 64+n>>16, n>>8&255, n&255)
			}
		}
		s.listeners = append(s.listeners, l)
	}
	for _, x := range secrets {
		s.secrets = append(s.secrets, x)
	}
	return err
}

// rename gives a name of the proxy's its prefix, also in a list.
func rename(v any, prefix string, names map[string]bool) any {
	switch v := v.(type) {
	case string:
		if names[v] && v != "" {
			return prefix + v
		}
	case []any:
		for i := range v {
			v[i] = rename(v[i], prefix, names)
		}
	}
	return v
}

// Walk calls visit for every object, the inner ones first.
func Walk(v any, visit func(map[string]any)) {
	switch v := v.(type) {
	case map[string]any:
		for _, x := range v {
			Walk(x, visit)
		}
		visit(v)
	case []any:
		for _, x := range v {
			Walk(x, visit)
		}
	}
}

// Len is the number of resources that Envoy would look at.
func (s *Static) Len() int { return len(s.clusters) + len(s.listeners) + len(s.secrets) }

// Validate asks the Envoy at path whether it accepts everything, as it does when it
// starts with the bootstrap (JSON). It writes the configuration into dir.
func (s *Static) Validate(ctx context.Context, path, dir string, bootstrap []byte) error {
	var config map[string]any
	if err := json.Unmarshal(bootstrap, &config); err != nil {
		return fmt.Errorf("read the bootstrap: %w", err)
	}
	delete(config, "dynamicResources")
	config["staticResources"] = map[string]any{"clusters": s.clusters, "listeners": s.listeners, "secrets": s.secrets}
	data, err := json.Marshal(config)
	if err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	file := filepath.Join(dir, "envoy.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	return envoy.Validate(ctx, path, file)
}

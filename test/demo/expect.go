package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

func byCluster(c count) string {
	if c.Cluster == "" {
		return fmt.Sprintf("status %d", c.Status)
	}
	return c.Cluster
}

func byService(c count) string {
	if c.Pod == "" {
		return fmt.Sprintf("status %d", c.Status)
	}
	// Pods are called <deployment>-<hash>-<n>.
	p := strings.Split(c.Pod, "-")
	name := c.Pod
	if len(p) > 2 {
		name = strings.Join(p[:len(p)-2], "-")
	}
	return c.Cluster + " " + c.Namespace + "/" + name
}

func byPod(c count) string {
	if c.Pod == "" {
		return fmt.Sprintf("status %d", c.Status)
	}
	return c.Cluster + " " + c.Pod
}

func byStatus(c count) string { return fmt.Sprint(c.Status) }

func show(m map[string]int) string {
	var s []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if len(m) == 1 {
			return k
		}
		s = append(s, fmt.Sprintf("%s: %d", k, m[k]))
	}
	return strings.Join(s, ", ")
}

// expect sends n requests and wants all of them in the given share, which maps
// what the answers are grouped by to a fraction; with several, the bound is
// four standard deviations of the binomial distribution.
func (d *demo) expect(from, url string, n int, route string, by func(count) string, share map[string]float64, extra ...string) error {
	a, err := d.request(from, url, n, extra...)
	if err != nil {
		return err
	}
	got := a.by(by)
	ok := a.route() == route
	total := 0
	for k, c := range got {
		total += c
		if _, known := share[k]; !known {
			ok = false
		}
	}
	var want []string
	for _, k := range slices.Sorted(maps.Keys(share)) {
		p := share[k]
		slack := 4 * math.Sqrt(float64(n)*p*(1-p))
		if math.Abs(float64(got[k])-p*float64(n)) > slack {
			ok = false
		}
		if len(share) == 1 {
			want = append(want, k)
		} else {
			want = append(want, fmt.Sprintf("%s: %.0f±%.0f", k, p*float64(n), slack))
		}
	}
	expected := strings.Join(want, ", ")
	if a.route() != route {
		expected += ", by " + route
	}
	to := strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/")
	to = strings.NewReplacer(".svc.clusterset.local", " (import)", ".svc.cluster.local", " (service)").Replace(to)
	d.row(from, to, a.route(), show(a.by(byPod)), expected, ok && total == n)
	return nil
}

// all is the share of a single outcome.
func all(k string) map[string]float64 { return map[string]float64{k: 1} }

// first runs the functions until one fails.
func first(fs ...func() error) error {
	for _, f := range fs {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

// condition gives "status, reason" of a route's condition for its first parent.
func (d *demo) condition(cluster, ns, name, typ string) (string, error) {
	out, err := d.cli("get", "routes", "-o", "json", "-n", ns, "--cluster", cluster, name)
	if err != nil {
		return "", err
	}
	var list struct {
		Routes []struct {
			Name, Cluster string
			Parents       []struct {
				Conditions []struct{ Type, Status, Reason string }
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return "", fmt.Errorf("causeway get routes: %w", err)
	}
	for _, r := range list.Routes {
		if r.Name != name || r.Cluster != cluster {
			continue
		}
		for _, p := range r.Parents {
			for _, c := range p.Conditions {
				if c.Type == typ {
					return typ + "=" + c.Status + " " + c.Reason, nil
				}
			}
		}
	}
	return "none", nil
}

func (d *demo) expectCondition(cluster, ns, name, typ, want string) error {
	got, err := d.condition(cluster, ns, name, typ)
	if err != nil {
		return err
	}
	want = typ + "=" + want
	d.row(cluster, "HTTPRoute "+ns+"/"+name, "", got, want, got == want)
	return nil
}

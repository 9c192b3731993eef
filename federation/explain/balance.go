package explain

import (
	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/resolve"
)

// overprovisioning is Envoy's default factor, in percent: a priority that has at
// least 1/1.4 of its weight healthy takes all the traffic that is offered.
const overprovisioning = 140

// Destination is a backend's endpoints with the share of requests that each
// gets, as Envoy works it out.
type Destination struct {
	Backend resolve.BackendKey
	Groups  []Group // in the order of resolve.Backend.Groups
	// Unhealthy is true where no endpoint is healthy, so that there is no share
	// to work out.
	Unhealthy bool
	// Local is true where internalTrafficPolicy leaves out all other clusters.
	Local bool
}

// Group is one cluster's endpoints at one priority.
type Group struct {
	Cluster   cluster.ID
	Region    string
	Zone      string
	Priority  uint32
	Crossing  bool    // the endpoints are the cluster's crossing gateways
	Share     float64 // of the destination's requests
	Healthy   int     // endpoints; behind crossing gateways, those that are behind them
	Endpoints []Endpoint
}

// Endpoint is one address with its share.
type Endpoint struct {
	resolve.Endpoint
	Share float64
}

func (e *explainer) destination(k resolve.BackendKey) *Destination {
	d := &Destination{Backend: k}
	if k.Kind == resolve.BackendImport {
		e.withhold(k.Namespace, k.Name)
		if imp, ok := e.res.Imports.Get([]byte(k.Namespace + "/" + k.Name)); ok {
			d.Local = imp.StaysLocal()
		}
	}
	b, ok := e.res.Backends.Get([]byte(k.String()))
	if !ok {
		d.Unhealthy = true
		return d
	}
	e.drained(k)
	var loads []int
	loads, d.Unhealthy = priorityLoads(b.Groups)
	// What a priority takes is spread over its healthy endpoints by weight.
	sums := make([]float64, len(loads))
	for _, g := range b.Groups {
		for _, x := range g.Endpoints {
			if x.Healthy {
				sums[g.Priority] += float64(x.Weight)
			}
		}
	}
	for _, g := range b.Groups {
		e.involve(g.Cluster).Serves = true
		out := Group{Cluster: g.Cluster, Region: g.Region, Zone: g.Zone, Priority: g.Priority, Crossing: g.Crossing}
		for _, x := range g.Endpoints {
			y := Endpoint{Endpoint: x}
			if x.Healthy {
				y.Share = float64(loads[g.Priority]) / 100 * float64(x.Weight) / sums[g.Priority]
				switch {
				case g.Crossing:
					out.Healthy = x.Behind
				case x.Counted():
					out.Healthy += x.Behind
				default:
					out.Healthy++
				}
			}
			out.Share += y.Share
			out.Endpoints = append(out.Endpoints, y)
		}
		d.Groups = append(d.Groups, out)
	}
	return d
}

// drained involves the exporters that are drained: they explain what is as well
// where they have no part in it.
func (e *explainer) drained(k resolve.BackendKey) {
	if k.Kind != resolve.BackendImport {
		return
	}
	imp, ok := e.res.Imports.Get([]byte(k.Namespace + "/" + k.Name))
	if !ok {
		return
	}
	for _, x := range imp.Exporters {
		if c, ok := e.res.Snapshot.Cluster(x.Cluster); ok && c.Drained > 0 && c.ID != e.res.Local {
			e.involve(c.ID)
		}
	}
}

// priorityLoads gives the percentage of requests that each priority takes, by
// Envoy's arithmetic, which is in whole percent: a priority can take 1.4 times
// the healthy share of its weight (weighted_priority_health), what it can't take overflows to the next, and
// if all together can't take everything they are scaled up.
func priorityLoads(groups []resolve.EndpointGroup) (loads []int, unhealthy bool) {
	var healthy, all []uint64
	for _, g := range groups {
		for int(g.Priority) >= len(all) {
			healthy, all = append(healthy, 0), append(all, 0)
		}
		for _, x := range g.Endpoints {
			all[g.Priority] += uint64(x.Weight)
			if x.Healthy {
				healthy[g.Priority] += uint64(x.Weight)
			}
		}
	}
	loads = make([]int, len(all))
	capacity := make([]int, len(all))
	total := 0
	for i := range all {
		if all[i] > 0 {
			capacity[i] = int(min(100, overprovisioning*healthy[i]/all[i]))
		}
		total += capacity[i]
	}
	if total = min(total, 100); total == 0 {
		return loads, true
	}
	left := 100
	for i, c := range capacity {
		loads[i] = min(left, c*100/total)
		left -= loads[i]
	}
	// Rounding leaves a remainder to the first priority that takes anything.
	for i := range loads {
		if loads[i] > 0 {
			loads[i] += left
			break
		}
	}
	return loads, false
}

// status is what requests get where there is no endpoint to send them to.
func (d *Destination) status() (int, string) {
	switch {
	case len(d.Groups) == 0 && d.Local:
		return 503, "internalTrafficPolicy is Local, and this cluster has no endpoints of the backend"
	case len(d.Groups) == 0:
		return 503, "the backend has no endpoints"
	case d.Unhealthy:
		return 503, "no endpoint of the backend is ready"
	}
	return 0, ""
}

package publish

import (
	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/record"
)

// runs are how the cluster runs Gateways that are for several. What the store has of one
// that is not there stays until all are known.
type runs struct {
	of    map[name]*cluster.GatewayRun
	known bool
	// seen are keys in the store of which nothing was known.
	seen map[string]struct{}
}

func (x *exports) setRun(n name, run *cluster.GatewayRun) {
	if run == nil {
		delete(x.runs.of, n)
	} else {
		if x.runs.of == nil {
			x.runs.of = map[name]*cluster.GatewayRun{}
		}
		x.runs.of[n] = run
	}
	x.touch(record.RunKey(x.id, n.namespace, n.name))
}

func (x *exports) runsKnown() {
	x.runs.known = true
	for key := range x.runs.seen {
		x.dirty[key] = struct{}{}
	}
	x.runs.seen = nil
}

func (x *exports) forgetRuns() {
	seen := x.runs.seen
	if seen == nil {
		seen = map[string]struct{}{}
	}
	for n := range x.runs.of {
		if key, err := record.RunKey(x.id, n.namespace, n.name); err == nil {
			seen[key] = struct{}{}
		}
	}
	x.runs = runs{seen: seen}
}

// encodeRun gives the record of a run. One that is not there keeps its key until all
// are known.
func (x *exports) encodeRun(key string, n name) (record.Record, error) {
	run := x.runs.of[n]
	switch {
	case run != nil:
		return record.EncodeObject(&cluster.Object{Ref: cluster.Ref{Kind: cluster.KindGatewayRun, Namespace: n.namespace, Name: n.name}, Cluster: x.id, Value: run})
	case x.runs.known:
		return record.Record{}, nil
	}
	if x.runs.seen == nil {
		x.runs.seen = map[string]struct{}{}
	}
	x.runs.seen[key] = struct{}{}
	return record.Record{}, errKeep
}

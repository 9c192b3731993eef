package resolve

import (
	"slices"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
)

// Result is everything that one cluster does with the state of all. It is
// immutable; read it from any goroutine. All trees are sorted by key.
type Result struct {
	Local    cluster.ID
	Snapshot *federation.Snapshot

	// Frontends by FrontendKey.String(): what this cluster's clients call.
	Frontends *iradix.Tree[*Frontend]
	// Remotes are other clusters' Service frontends, by FrontendKey.String().
	// Nobody calls them: they are there for Gateways of this cluster that chain
	// through their producer routes (WeightedBackend.Chain with a Cluster).
	Remotes *iradix.Tree[*Frontend]
	// Gateways that this cluster runs, by "namespace/name".
	Gateways *iradix.Tree[*Gateway]
	// Imports by "namespace/name".
	Imports *iradix.Tree[*Import]
	// Backends by BackendKey.String(): every backend that a frontend or
	// gateway refers to. This cluster's own exports, which its crossing
	// gateways serve, are among them, since every Service is a frontend.
	Backends *iradix.Tree[*Backend]
	// Reports by ObjectReport.Key(): this cluster's own routes, Gateways,
	// GatewayClasses and exports, and those of others that concern it, as this
	// cluster judges them.
	Reports *iradix.Tree[*ObjectReport]
	// Runs by RunsKey: for each Gateway of class causeway-clusterset, whichever cluster
	// wrote it, who is to run it and what they say of it.
	Runs *iradix.Tree[*GatewayRuns]
	// Travels by "namespace/name" of a Gateway: this cluster's certificates that other
	// clusters need to run it, and may have.
	Travels *iradix.Tree[*Travel]

	memo *memo
}

// Frontend finds a frontend or, for a key with a Cluster, a remote one.
func (r *Result) Frontend(k FrontendKey) (*Frontend, bool) {
	if k.Cluster != "" {
		return r.Remotes.Get([]byte(k.String()))
	}
	return r.Frontends.Get([]byte(k.String()))
}

// Port finds a port of a frontend by protocol and number.
func (f *Frontend) Port(protocol string, port int32) (*FrontendPort, bool) {
	for i := range f.Ports {
		if f.Ports[i].Port == port && f.Ports[i].Protocol == protocol {
			return &f.Ports[i], true
		}
	}
	return nil, false
}

// Delta names what differs between a Result and the one that it was updated
// from. Values that did not change are the same pointers in both. Keys are those
// of the trees; a key whose value is gone is named too. All lists are sorted.
type Delta struct {
	Frontends []string
	Remotes   []string
	Gateways  []string
	Imports   []string
	// BackendConfigs changed in Config (or came or went), and perhaps in Groups
	// too; BackendEndpoints in Groups alone.
	BackendConfigs   []string
	BackendEndpoints []string
	Reports          []string
	Runs             []string
	Travels          []string
}

// Empty reports whether nothing differs.
func (d Delta) Empty() bool {
	return len(d.Frontends)+len(d.Remotes)+len(d.Gateways)+len(d.Imports)+len(d.BackendConfigs)+len(d.BackendEndpoints)+len(d.Reports)+len(d.Runs)+len(d.Travels) == 0
}

func (d *Delta) sort() {
	for _, l := range []*[]string{&d.Frontends, &d.Remotes, &d.Gateways, &d.Imports, &d.BackendConfigs, &d.BackendEndpoints, &d.Reports, &d.Runs, &d.Travels} {
		slices.Sort(*l)
		*l = slices.Compact(*l)
	}
}

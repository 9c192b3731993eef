package resolve

import (
	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
)

// Result is everything that one cluster does with the state of all. It is
// immutable; read it from any goroutine. All trees are sorted by key.
type Result struct {
	Local    cluster.ID
	Snapshot *federation.Snapshot

	// Frontends by FrontendKey.String().
	Frontends *iradix.Tree[*Frontend]
	// Gateways that this cluster runs, by "namespace/name".
	Gateways *iradix.Tree[*Gateway]
	// Imports by "namespace/name".
	Imports *iradix.Tree[*Import]
	// Backends by BackendKey.String(): every backend that a frontend or
	// gateway refers to, and this cluster's own exports (which its crossing
	// gateways serve).
	Backends *iradix.Tree[*Backend]
	// Reports by Ref.String() + "@" + Cluster.
	Reports *iradix.Tree[*ObjectReport]

	memo *memo
}

// Delta names what differs between a Result and the one that it was updated
// from. Values that did not change are the same pointers in both.
type Delta struct {
	Frontends []string
	Gateways  []string
	Imports   []string
	// BackendConfigs changed in Config (or came or went); BackendEndpoints in Groups alone.
	BackendConfigs   []string
	BackendEndpoints []string
	Reports          []string
}

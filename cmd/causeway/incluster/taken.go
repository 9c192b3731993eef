package incluster

import (
	"context"
	"fmt"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/provision"
)

// patience is how long the Envoys of a Gateway that has changed may take to answer for
// what that changed, before its status says that they do not.
const patience = 5 * time.Second

// taken follows, for each Gateway, whether its Envoys have taken its present generation:
// the status of a new one waits for that. Once they have, later changes of routes and
// endpoints don't matter to it. Envoys that are connected to another agent answer there;
// both are told at the same time. Its methods may be called from any goroutine.
type taken struct {
	// behind counts a Gateway's Envoys that have still to answer.
	behind func(provision.Name) int
	judged func([]cluster.Ref)

	mu sync.Mutex
	of map[provision.Name]taking
}

// taking is how far a generation is.
type taking struct {
	generation int64
	since      time.Time
	done       bool
}

// look tells how many Envoys have still to take a Gateway's generation; known is false
// while they may take their time.
func (t *taken) look(n provision.Name, generation int64) (behind int, known bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of == nil {
		t.of = map[provision.Name]taking{}
	}
	x := t.of[n]
	if x.done && x.generation == generation {
		return 0, true
	}
	behind = t.behind(n)
	if x.generation != generation || x.since.IsZero() {
		x = taking{generation: generation, since: time.Now()}
		if behind > 0 {
			time.AfterFunc(patience, func() { t.judged([]cluster.Ref{n.Ref(cluster.KindGateway)}) })
		}
	}
	x.done = behind == 0
	t.of[n] = x
	return behind, x.done || time.Since(x.since) >= patience
}

// forget drops what is known of a Gateway that is not run any more.
func (t *taken) forget(n provision.Name) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.of, n)
}

// follow has Gateways judged again that wait, whenever an Envoy has answered, until ctx ends.
func (t *taken) follow(ctx context.Context, changed func() <-chan struct{}) {
	for {
		next := changed()
		var refs []cluster.Ref
		t.mu.Lock()
		for n, x := range t.of {
			if !x.done && t.behind(n) == 0 {
				refs = append(refs, n.Ref(cluster.KindGateway))
			}
		}
		t.mu.Unlock()
		if len(refs) > 0 {
			t.judged(refs)
		}
		select {
		case <-ctx.Done():
			return
		case <-next:
		}
	}
}

// unanswered is the standing of a Gateway some of whose Envoys don't take what it says.
func unanswered(st provision.GatewayStanding, behind int) provision.GatewayStanding {
	st.Programmed = metav1.Condition{
		Type: string(gatewayv1.GatewayConditionProgrammed), Status: metav1.ConditionFalse, Reason: string(gatewayv1.GatewayReasonPending),
		Message: fmt.Sprintf("%d of its Envoys have not taken the configuration yet", behind),
	}
	return st
}

package up

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
)

// part is something that a person can break on purpose.
type part struct {
	description string
	// set breaks the part (true) or mends it; called one at a time.
	set    func(ctx context.Context, broken bool) error
	broken bool
}

// trial serves causeway.v1.Trial: it breaks parts of a running `causeway up`.
type trial struct {
	causewayv1.UnimplementedTrialServer

	mu    sync.Mutex
	parts map[string]*part
}

func newTrial() *trial { return &trial{parts: map[string]*part{}} }

func (t *trial) add(target string, p *part) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.parts[target] = p
}

func (t *trial) remove(targets ...string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, x := range targets {
		delete(t.parts, x)
	}
}

// SetFault implements the API. Breaking what is broken is no error.
func (t *trial) SetFault(ctx context.Context, req *causewayv1.SetFaultRequest) (*causewayv1.SetFaultResponse, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.parts[req.Target]
	if !ok {
		return nil, status.Errorf(codes.NotFound, "nothing called %q can be broken; there is: %s", req.Target, strings.Join(t.names(), ", "))
	}
	if p.broken == req.Active {
		return &causewayv1.SetFaultResponse{}, nil
	}
	if err := p.set(ctx, req.Active); err != nil {
		return nil, status.Error(codes.Internal, fmt.Sprintf("%s: %v", req.Target, err))
	}
	p.broken = req.Active
	return &causewayv1.SetFaultResponse{}, nil
}

// ListFaults implements the API.
func (t *trial) ListFaults(context.Context, *causewayv1.ListFaultsRequest) (*causewayv1.ListFaultsResponse, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := &causewayv1.ListFaultsResponse{}
	for _, n := range t.names() {
		out.Faults = append(out.Faults, &causewayv1.Fault{Target: n, Active: t.parts[n].broken, Description: t.parts[n].description})
	}
	return out, nil
}

func (t *trial) names() []string {
	var out []string
	for n := range t.parts {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

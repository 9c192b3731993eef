package translate

import (
	"fmt"
	"slices"
	"sync"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// feed is the smallest thing that speaks incremental ADS: it gives one proxy what
// its State holds, and remembers what it refused.
type feed struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	mu      sync.Mutex
	state   *State
	changed chan struct{}
	refused []string
}

func (f *feed) set(s *State) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state = s
	if f.changed != nil {
		close(f.changed)
	}
	f.changed = make(chan struct{})
}

func (f *feed) get() (*State, chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state, f.changed
}

func (f *feed) DeltaAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	reqs := make(chan *discoveryv3.DeltaDiscoveryRequest)
	go func() {
		defer close(reqs)
		for {
			r, err := stream.Recv()
			if err != nil {
				return
			}
			select {
			case reqs <- r:
			case <-stream.Context().Done():
				return
			}
		}
	}()
	wanted := map[string]map[string]bool{} // type -> name; empty map: all
	sent := map[string]map[string]string{}
	nonce := 0
	push := func(t string, again []string) error {
		state, _ := f.get()
		names, ok := wanted[t]
		if !ok {
			return nil
		}
		if sent[t] == nil {
			sent[t] = map[string]string{}
		}
		out := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: t}
		for _, r := range state.Resources.All(t) {
			if (len(names) == 0 || names[r.Name]) && (sent[t][r.Name] != r.Version || slices.Contains(again, r.Name)) {
				sent[t][r.Name] = r.Version
				out.Resources = append(out.Resources, &discoveryv3.Resource{Name: r.Name, Version: r.Version, Resource: r.Body})
			}
		}
		for name := range sent[t] {
			if _, ok := state.Resources.Get(t, name); !ok {
				delete(sent[t], name)
				out.RemovedResources = append(out.RemovedResources, name)
			}
		}
		for _, name := range again {
			if _, ok := state.Resources.Get(t, name); !ok {
				out.RemovedResources = append(out.RemovedResources, name)
			}
		}
		if len(out.Resources)+len(out.RemovedResources) == 0 {
			return nil
		}
		nonce++
		out.Nonce = fmt.Sprint(nonce)
		return stream.Send(out)
	}
	for {
		_, changed := f.get()
		select {
		case r, ok := <-reqs:
			if !ok {
				return nil
			}
			if r.ErrorDetail != nil {
				f.mu.Lock()
				f.refused = append(f.refused, r.ErrorDetail.Message)
				f.mu.Unlock()
			}
			t := r.TypeUrl
			first := wanted[t] == nil
			if first {
				wanted[t] = map[string]bool{}
			}
			for _, n := range r.ResourceNamesSubscribe {
				if n != "*" {
					wanted[t][n] = true
				}
			}
			for _, n := range r.ResourceNamesUnsubscribe {
				delete(wanted[t], n)
			}
			if first || len(r.ResourceNamesSubscribe) > 0 {
				if err := push(t, r.ResourceNamesSubscribe); err != nil {
					return err
				}
			}
		case <-changed:
			for _, t := range Types {
				if err := push(t, nil); err != nil {
					return err
				}
			}
		}
	}
}

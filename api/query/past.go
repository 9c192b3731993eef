package query

import (
	"context"
	"fmt"

	"github.com/causeway-mesh/causeway/cluster"
)

// past keeps the Views of the one revision that was asked for last, since the
// pages of a list and the questions of a person come one after the other. Views
// of the past cost much, so they are worked out one at a time.
type past struct {
	lock     chan struct{} // holds a token while somebody is inside
	revision int64
	kept     map[cluster.ID]View
}

func newPast() *past { return &past{lock: make(chan struct{}, 1)} }

func (p *past) views(ctx context.Context, h History, revision int64, n need) ([]View, error) {
	select {
	case p.lock <- struct{}{}:
		defer func() { <-p.lock }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if p.revision != revision {
		p.revision, p.kept = revision, map[cluster.ID]View{}
	}
	hub, err := p.at(ctx, h, "")
	if err != nil {
		return nil, err
	}
	list := []View{hub}
	for _, c := range hub.Result.Snapshot.Clusters() {
		if !n.all && n.one != c.ID {
			continue
		}
		v, err := p.at(ctx, h, c.ID)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, nil
}

func (p *past) at(ctx context.Context, h History, id cluster.ID) (View, error) {
	if v, ok := p.kept[id]; ok {
		return v, nil
	}
	v, err := h.At(ctx, p.revision, id)
	if err == nil && v.Result == nil {
		err = errNotYet
	}
	if err != nil {
		return View{}, fmt.Errorf("state at revision %d: %w", p.revision, err)
	}
	p.kept[id] = v
	return v, nil
}

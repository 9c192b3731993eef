package publish

import (
	"maps"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/record"
)

// derived are records of one section that the agent makes itself: how the cluster runs
// Gateways that are for several, or certificates that it has sealed for others. What the
// store has of them and nobody has told of stays until all are known.
type derived struct {
	of    map[string]outcome // by key
	known bool
	// seen are keys in the store of which nothing was known.
	seen map[string]struct{}
}

// outcome is a record, or why there is none.
type outcome struct {
	record.Record
	err error
}

// set puts a record, or takes it away: nil. The key may be dirty then.
func (d *derived) set(key string, o *outcome) {
	if o == nil {
		delete(d.of, key)
		return
	}
	if d.of == nil {
		d.of = map[string]outcome{}
	}
	d.of[key] = *o
}

// complete says that all are known, and gives the keys that may be dirty.
func (d *derived) complete() map[string]struct{} {
	dirty := d.seen
	d.known, d.seen = true, nil
	return dirty
}

// forget leaves what the store has until somebody knows better.
func (d *derived) forget() {
	seen := map[string]struct{}{}
	maps.Copy(seen, d.seen)
	for key := range d.of {
		seen[key] = struct{}{}
	}
	*d = derived{seen: seen}
}

// encode gives the record of a key.
func (d *derived) encode(key string) (record.Record, error) {
	o, ok := d.of[key]
	switch {
	case ok:
		return o.Record, o.err
	case d.known:
		return record.Record{}, nil
	}
	if d.seen == nil {
		d.seen = map[string]struct{}{}
	}
	d.seen[key] = struct{}{}
	return record.Record{}, errKeep
}

func (x *exports) mark(keys map[string]struct{}) { maps.Copy(x.dirty, keys) }

// SetRun replaces what the cluster says of how it runs a Gateway that is for several
// clusters; nil: nothing any more. The Publisher shares it from now on.
func (p *Publisher) SetRun(namespace, gateway string, run *cluster.GatewayRun) {
	key, err := record.RunKey(p.cfg.Cluster, namespace, gateway)
	if err != nil {
		return // nor can the Gateway be published
	}
	var o *outcome
	if run != nil {
		r, err := record.EncodeObject(&cluster.Object{Ref: cluster.Ref{Kind: cluster.KindGatewayRun, Namespace: namespace, Name: gateway}, Cluster: p.cfg.Cluster, Value: run})
		o = &outcome{r, err}
	}
	p.mu.Lock()
	p.exports.runs.set(key, o)
	p.exports.dirty[key] = struct{}{}
	p.delivered()
	p.mu.Unlock()
}

// RunsKnown says that SetRun was called for each Gateway that the cluster runs: what the
// store has of others goes. Before that it stays, so that one who begins to lead takes
// nothing back for a moment.
func (p *Publisher) RunsKnown() {
	p.mu.Lock()
	p.exports.mark(p.exports.runs.complete())
	p.delivered()
	p.mu.Unlock()
}

// ForgetRuns says that somebody else may lead and know better from now on: what the store
// has stays until SetRun or RunsKnown.
func (p *Publisher) ForgetRuns() {
	p.mu.Lock()
	p.exports.runs.forget()
	p.mu.Unlock()
}

// SetSecrets replaces the certificates that the cluster has sealed for others: all records
// of that section, of record.EncodeSealed.
func (p *Publisher) SetSecrets(all []record.Record) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := &p.exports.secrets
	for key := range d.of {
		p.exports.dirty[key] = struct{}{}
	}
	d.of = nil
	for _, r := range all {
		d.set(r.Key, &outcome{Record: r})
		p.exports.dirty[r.Key] = struct{}{}
	}
	p.exports.mark(d.complete())
	p.delivered()
}

// ForgetSecrets is ForgetRuns of what SetSecrets takes.
func (p *Publisher) ForgetSecrets() {
	p.mu.Lock()
	p.exports.secrets.forget()
	p.mu.Unlock()
}

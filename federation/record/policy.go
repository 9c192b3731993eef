package record

import (
	"fmt"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/policy"
	"github.com/causeway-mesh/causeway/federation/store"
)

// Policy is what one record of the administrators' policy says: how a cluster is
// drained, or what clusters may. Exactly one of Drain and Rules is set.
type Policy struct {
	Drain *Drain
	// Cluster is the one that a Drain is about.
	Cluster cluster.ID
	Rules   *policy.Policy
}

// EncodePolicy makes the record of a policy about clusters.
func EncodePolicy(p *policy.Policy) (Record, error) {
	if err := p.Check(); err != nil {
		return Record{}, fmt.Errorf("policy %.80q: %w", p.Name, err)
	}
	key, err := store.RulesKey(p.Name)
	return finish(key, err, p.Message())
}

// DecodePolicy reads a record of the policy. The error is an *Error.
func DecodePolicy(kv store.KV) (Policy, error) {
	k, err := store.ParseKey(kv.Key)
	if err != nil {
		return Policy{}, keyError(kv, store.Key{}, err)
	}
	d := decoder{kv: kv, key: k}
	if n := len(kv.Value); n > MaxValueBytes {
		return Policy{}, keyError(kv, k, fmt.Errorf("value has %d bytes, at most %d are read", n, MaxValueBytes))
	}
	if name, ok := RulesOf(k); ok {
		p, err := d.rules(name)
		if err != nil {
			return Policy{}, keyError(kv, k, err)
		}
		return Policy{Rules: p}, nil
	}
	id, err := DrainOf(k)
	if err != nil {
		return Policy{}, keyError(kv, k, err)
	}
	drain, err := d.drain(id)
	if err != nil {
		return Policy{}, &Error{Cluster: id, Key: kv.Key, Err: err}
	}
	return Policy{Drain: drain, Cluster: id}, nil
}

// DrainOf names the cluster whose drain a key of the policy holds. Other keys are
// an error.
func DrainOf(k store.Key) (cluster.ID, error) {
	if k.Cluster != "" || len(k.Names) != 2 || k.Names[0] != store.PolicyDrain {
		return "", fmt.Errorf("policy of this kind is unknown to this version of Causeway")
	}
	id := cluster.ID(k.Names[1])
	return id, id.Validate()
}

// RulesOf names the policy about clusters that a key holds, if it holds one.
func RulesOf(k store.Key) (name string, ok bool) {
	if k.Cluster != "" || len(k.Names) != 2 || k.Names[0] != store.PolicyRules {
		return "", false
	}
	return k.Names[1], true
}

func (d decoder) rules(name string) (*policy.Policy, error) {
	var msg causewayv1.ClusterPolicy
	if err := d.read(&msg); err != nil {
		return nil, err
	}
	if msg.Name != name {
		return nil, fmt.Errorf("value is of policy %q, its key of %q", shorten(msg.Name), name)
	}
	p, err := policy.FromMessage(&msg)
	if err != nil {
		return nil, err
	}
	return &p, nil
}

package admin

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/federation/policy"
	"github.com/causeway-mesh/causeway/federation/record"
	"github.com/causeway-mesh/causeway/federation/store"
)

// maxAtOnce bounds the policies of one call: they are one transaction.
const maxAtOnce = 100

// ListPolicies implements causeway.v1.Administration. Records that can't be read are
// left out here; every agent lists them among its problems.
func (s *Server) ListPolicies(ctx context.Context, _ *causewayv1.ListPoliciesRequest) (*causewayv1.ListPoliciesResponse, error) {
	if _, err := s.admit(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	kvs, revision, err := s.cfg.Store.List(ctx, store.RulesPrefix, 0)
	if err != nil {
		return nil, policyError(err)
	}
	out := &causewayv1.ListPoliciesResponse{Revision: revision}
	for _, kv := range kvs {
		if p, err := record.DecodePolicy(kv); err == nil {
			out.Policies = append(out.Policies, p.Rules.Message())
		}
	}
	slices.SortFunc(out.Policies, func(a, b *causewayv1.ClusterPolicy) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// ApplyPolicies implements causeway.v1.Administration.
func (s *Server) ApplyPolicies(ctx context.Context, req *causewayv1.ApplyPoliciesRequest) (*causewayv1.ApplyPoliciesResponse, error) {
	caller, err := s.admit(ctx)
	if err != nil {
		return nil, err
	}
	var records []record.Record
	seen := map[string]bool{}
	if n := len(req.GetPolicies()); n == 0 || n > maxAtOnce {
		return nil, status.Errorf(codes.InvalidArgument, "%d policies are given, not 1 to %d", n, maxAtOnce)
	}
	for _, m := range req.GetPolicies() {
		p, err := policy.FromMessage(m)
		if err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
		if seen[p.Name] {
			return nil, status.Errorf(codes.InvalidArgument, "policy %q is given twice", p.Name)
		}
		seen[p.Name] = true
		r, err := record.EncodePolicy(&p)
		if err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
		records = append(records, r)
	}
	out := &causewayv1.ApplyPoliciesResponse{}
	out.Revision, err = s.change(ctx, func(have map[string]store.KV) (txn store.Txn, err error) {
		out.Outcomes = nil
		added := 0
		for _, r := range records {
			kv, exists := have[r.Key]
			outcome := causewayv1.PolicyOutcome_POLICY_OUTCOME_UNCHANGED
			switch {
			case !exists:
				outcome, added = causewayv1.PolicyOutcome_POLICY_OUTCOME_CREATED, added+1
			case !bytes.Equal(kv.Value, r.Value):
				outcome = causewayv1.PolicyOutcome_POLICY_OUTCOME_CHANGED
			}
			out.Outcomes = append(out.Outcomes, outcome)
			if outcome != causewayv1.PolicyOutcome_POLICY_OUTCOME_UNCHANGED {
				txn.Guards = append(txn.Guards, store.Guard{Key: r.Key, ModRevision: kv.ModRevision})
				txn.Ops = append(txn.Ops, store.Put(r.Key, r.Value))
			}
		}
		if n := len(have) + added; n > policy.MaxPolicies {
			return txn, status.Errorf(codes.FailedPrecondition, "there would be %d policies, at most %d are possible: say more in each", n, policy.MaxPolicies)
		}
		return txn, nil
	})
	if err != nil {
		s.cfg.Logger.Warn("policies could not be set", "caller", caller, "error", err)
		return nil, policyError(err)
	}
	for i, m := range req.GetPolicies() {
		s.cfg.Logger.Info("policy was set", "policy", m.GetName(), "outcome", out.Outcomes[i].String(), "caller", caller, "revision", out.Revision)
	}
	return out, nil
}

// DeletePolicies implements causeway.v1.Administration.
func (s *Server) DeletePolicies(ctx context.Context, req *causewayv1.DeletePoliciesRequest) (*causewayv1.DeletePoliciesResponse, error) {
	caller, err := s.admit(ctx)
	if err != nil {
		return nil, err
	}
	names := slices.Compact(slices.Sorted(slices.Values(req.GetNames())))
	if n := len(names); n == 0 || n > maxAtOnce {
		return nil, status.Errorf(codes.InvalidArgument, "%d policies are named, not 1 to %d", n, maxAtOnce)
	}
	revision, err := s.change(ctx, func(have map[string]store.KV) (txn store.Txn, err error) {
		var missing []string
		for _, name := range names {
			key, err := store.RulesKey(name)
			if err != nil {
				return txn, status.Error(codes.InvalidArgument, err.Error())
			}
			kv, exists := have[key]
			if !exists {
				missing = append(missing, name)
				continue
			}
			txn.Guards = append(txn.Guards, store.Guard{Key: key, ModRevision: kv.ModRevision})
			txn.Ops = append(txn.Ops, store.Delete(key))
		}
		if len(missing) > 0 {
			return txn, status.Errorf(codes.NotFound, "there is no policy %s", strings.Join(missing, ", "))
		}
		return txn, nil
	})
	if err != nil {
		s.cfg.Logger.Warn("policies could not be deleted", "policies", names, "caller", caller, "error", err)
		return nil, policyError(err)
	}
	s.cfg.Logger.Info("policies were deleted", "policies", names, "caller", caller, "revision", revision)
	return &causewayv1.DeletePoliciesResponse{Revision: revision}, nil
}

// change commits what want makes of the policies that there are, by key, again if
// others were faster. A transaction without operations says that nothing is to do.
func (s *Server) change(ctx context.Context, want func(have map[string]store.KV) (store.Txn, error)) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	for try := 1; ; try++ {
		kvs, revision, err := s.cfg.Store.List(ctx, store.RulesPrefix, 0)
		if err != nil {
			return 0, err
		}
		have := make(map[string]store.KV, len(kvs))
		for _, kv := range kvs {
			have[kv.Key] = kv
		}
		txn, err := want(have)
		if err != nil || len(txn.Ops) == 0 {
			return revision, err
		}
		revision, err = s.cfg.Store.Commit(ctx, txn)
		if errors.Is(err, store.ErrConflict) && try < attempts {
			continue
		}
		return revision, err
	}
}

func policyError(err error) error {
	return storeError(err, "the policies")
}

package admin_test

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/causeway-mesh/causeway/api/admin"
	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/cluster/identity"
	"github.com/causeway-mesh/causeway/federation/policy"
	"github.com/causeway-mesh/causeway/federation/record"
	"github.com/causeway-mesh/causeway/federation/store"
)

// denying is a policy that denies a namespace to a cluster.
func denying(name, cluster, namespace string) *causewayv1.ClusterPolicy {
	return &causewayv1.ClusterPolicy{Name: name, Clusters: &causewayv1.ClusterPolicy_Clusters{Names: []string{cluster}},
		Export: &causewayv1.ClusterPolicy_Namespaces{Deny: []string{namespace}}}
}

func (r *rig) applyPolicies(policies ...*causewayv1.ClusterPolicy) (string, error) {
	a, err := r.ApplyPolicies(r.t.Context(), &causewayv1.ApplyPoliciesRequest{Policies: policies})
	var out []string
	for _, o := range a.GetOutcomes() {
		out = append(out, strings.TrimPrefix(o.String(), "POLICY_OUTCOME_"))
	}
	return strings.Join(out, " "), err
}

func (r *rig) policies() string {
	a, err := r.ListPolicies(r.t.Context(), &causewayv1.ListPoliciesRequest{})
	if err != nil {
		r.t.Fatal(err)
	}
	var out []string
	for _, p := range a.GetPolicies() {
		out = append(out, p.GetName()+" "+p.GetClusters().GetNames()[0]+" "+p.GetExport().GetDeny()[0])
	}
	return strings.Join(out, ", ")
}

// Policies are made, replaced and removed, all that one call names or none; what
// says the same already is not written again.
func TestPolicies(t *testing.T) {
	r := newRig(t, nil)
	for i, step := range []struct {
		do         func() (string, error)
		code       codes.Code
		says, have string
	}{
		{func() (string, error) { return r.applyPolicies(denying("b", "west", "x"), denying("a", "east", "y")) }, codes.OK, "CREATED CREATED", "a east y, b west x"},
		{func() (string, error) {
			return r.applyPolicies(denying("c", "west", "z"), denying("b", "west", "x"), denying("a", "east", "z"))
		}, codes.OK, "CREATED UNCHANGED CHANGED", "a east z, b west x, c west z"},
		{func() (string, error) { return r.applyPolicies(denying("d", "west", "z"), denying("e", "west", "Z")) }, codes.InvalidArgument, `"Z"`, "a east z, b west x, c west z"},
		{func() (string, error) { return r.applyPolicies(denying("d", "west", "z"), denying("d", "west", "y")) }, codes.InvalidArgument, "twice", "a east z, b west x, c west z"},
		{func() (string, error) { return r.applyPolicies() }, codes.InvalidArgument, "1 to 100", "a east z, b west x, c west z"},
		{func() (string, error) { return r.deletePolicies("a", "nowhere") }, codes.NotFound, "nowhere", "a east z, b west x, c west z"},
		{func() (string, error) { return r.deletePolicies("a/b") }, codes.InvalidArgument, "a/b", "a east z, b west x, c west z"},
		{func() (string, error) { return r.deletePolicies("c", "a", "c") }, codes.OK, "", "b west x"},
	} {
		said, err := step.do()
		if err != nil {
			said = err.Error()
		}
		if status.Code(err) != step.code || !strings.Contains(said, step.says) || r.policies() != step.have {
			t.Fatalf("step %d: %q, %v; the policies are %q", i, said, err, r.policies())
		}
	}
	before := r.revision()
	if said, err := r.applyPolicies(denying("b", "west", "x")); err != nil || said != "UNCHANGED" || r.revision() != before {
		t.Errorf("%q, %v, revision %d after %d", said, err, r.revision(), before)
	}
}

func policyOf(t *testing.T, m *causewayv1.ClusterPolicy) *policy.Policy {
	p, err := policy.FromMessage(m)
	if err != nil {
		t.Fatal(err)
	}
	return &p
}

func (r *rig) deletePolicies(names ...string) (string, error) {
	_, err := r.DeletePolicies(r.t.Context(), &causewayv1.DeletePoliciesRequest{Names: names})
	return "", err
}

func (r *rig) revision() int64 {
	_, revision, err := r.store.List(r.t.Context(), store.Root, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	return revision
}

// Somebody else's change in between is seen, not written over unread; and only
// administrators get that far.
func TestPoliciesOfTwo(t *testing.T) {
	meddle := true
	var r *rig
	r = newRig(t, func(s admin.Store) admin.Store {
		return &faulty{s, func() error {
			if meddle {
				meddle = false
				rec, err := record.EncodePolicy(policyOf(t, denying("a", "west", "other")))
				if err != nil {
					t.Fatal(err)
				}
				_, err = r.store.Commit(t.Context(), store.Txn{Ops: []store.Op{store.Put(rec.Key, rec.Value)}})
				return err
			}
			return nil
		}}
	})
	if said, err := r.applyPolicies(denying("a", "west", "mine")); err != nil || said != "CHANGED" || r.policies() != "a west mine" {
		t.Errorf("%q, %v: %s", said, err, r.policies())
	}
	r.caller = caller(identity.KindUser, "west."+clusterset, "admin")
	_, list := r.ListPolicies(t.Context(), &causewayv1.ListPoliciesRequest{})
	_, apply := r.applyPolicies(denying("b", "west", "x"))
	_, remove := r.deletePolicies("a")
	for _, err := range []error{list, apply, remove} {
		if status.Code(err) != codes.PermissionDenied {
			t.Errorf("a cluster's own admin: %v", err)
		}
	}
}

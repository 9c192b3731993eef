package provision

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/causeway-mesh/causeway/cluster"
)

// SliceObject is an EndpointSlice that is derived from an import.
type SliceObject = *discoveryv1.EndpointSlice

// input is all that a plan depends on.
type input struct {
	name  Name
	want  *Import // nil: nobody exports the service
	have  Have
	local cluster.ID
	// version is that of the ServiceImport API which is served.
	version  string
	gateways []Crossing
	entries  *allocation
	// serves reports whether a gateway takes connections at an entry port.
	serves func(Crossing, socket) bool
}

// plan is what to write next, in this order. The zero value: nothing.
type plan struct {
	apply  []metav1.Object // whole, as far as it is ours
	remove []metav1.Object // as they were seen
	// standing is nil where there is no ServiceImport of ours, and is to be none.
	standing *Standing
	// problem, if not empty, is what a person has to mend.
	problem string
	// waits says that gateways don't take connections yet at ports that are theirs.
	waits bool
}

// planFor compares what an import should be with what there is. It is pure. Objects that
// depend on what the API server makes of others (a UID, an address) wait for the next
// plan, which is made as soon as it is there.
func planFor(in input) plan {
	p := planner{input: in}
	switch {
	case in.have.Import != nil && !ours(in.have.Import):
		if in.want != nil && in.have.Namespace {
			p.problem = fmt.Sprintf("ServiceImport %s was made by somebody else (it has no label %s: %s): it is left alone, and this cluster does not import the service; remove it, or the controller that made it", in.name, LabelManagedBy, Manager)
		}
		p.clean(false)
	case in.want == nil || !in.have.Namespace:
		p.clean(true)
	default:
		p.keep()
	}
	return p.plan
}

type planner struct {
	input
	plan
	ports []Port // the import's, named
}

// clean takes away what is ours: first the name that clients see, then what it led to.
func (p *planner) clean(imports bool) {
	if imports && p.have.Import != nil && p.have.Import.DeletionTimestamp == nil {
		p.remove = append(p.remove, p.have.Import)
	}
	p.dropService()
	for _, s := range p.have.Slices {
		if oursDerived(s) && s.DeletionTimestamp == nil {
			p.remove = append(p.remove, s)
		}
	}
}

func (p *planner) dropService() {
	if s := p.have.Service; s != nil && oursDerived(s) && s.DeletionTimestamp == nil {
		p.remove = append(p.remove, s)
	}
}

// keep makes the import what it should be.
func (p *planner) keep() {
	p.ports = named(p.want.Ports)
	if p.have.Import != nil && p.have.Import.DeletionTimestamp != nil {
		return // somebody deletes it; it is made anew when it is gone
	}
	if s := p.have.Service; !p.want.Headless && s != nil && !oursDerived(s) {
		p.problem = fmt.Sprintf("Service %s/%s was made by somebody else, and has the name of the Service derived from ServiceImport %s: remove it", s.Namespace, s.Name, p.name)
		p.standing = p.stands(mcsv1beta1.ServiceImportReasonPending, p.problem, 0)
		return
	}
	var want []SliceObject
	ready, why := mcsv1beta1.ServiceImportReasonReady, ""
	switch {
	case p.want.Headless:
		p.dropService()
		want = p.sourceSlices()
		if lost := p.unreachable(); len(lost) > 0 {
			why = "pods of other networks have no address here: " + strings.Join(lost, ", ")
		}
		p.settle(want, true)
	case p.want.Gateways:
		var complete bool
		want, complete, p.waits = p.gatewaySlices()
		p.settle(want, complete)
		if len(want) == 0 {
			ready, why = mcsv1beta1.ServiceImportReasonPending, "no crossing gateway of this cluster takes its clients yet"
		}
	default:
		want = p.sourceSlices()
		p.settle(want, true)
	}
	ips := p.addresses()
	if !p.want.Headless && len(ips) == 0 {
		ready, why = mcsv1beta1.ServiceImportReasonPending, "the derived Service has no address yet"
		if s := p.have.Service; s != nil && len(s.Spec.ClusterIPs) > 0 && len(p.families()) > 0 {
			ready, why = mcsv1beta1.ServiceImportReasonIPFamilyNotSupported, fmt.Sprintf("its endpoints here are of %v, and this cluster's Services are not", p.families())
		}
	}
	p.standing = p.stands(ready, why, max(len(want), p.mine()))
	if p.want.Headless {
		p.before(p.importObject(nil))
		return
	}
	if p.have.Import != nil {
		s, err := p.serviceObject()
		if err != nil {
			p.problem = err.Error()
			p.standing = p.stands(mcsv1beta1.ServiceImportReasonPending, p.problem, 0)
			return
		}
		if !sameService(p.have.Service, s) {
			p.apply = slices.Insert(p.apply, 0, metav1.Object(s))
		}
	}
	p.before(p.importObject(ips))
}

// before puts the ServiceImport first, if it isn't as it should be.
func (p *planner) before(o *mcsv1beta1.ServiceImport) {
	if !sameImport(p.have.Import, o) {
		p.apply = slices.Insert(p.apply, 0, metav1.Object(o))
	}
}

func (p *planner) stands(reason mcsv1beta1.ServiceImportConditionReason, why string, slices int) *Standing {
	status := metav1.ConditionTrue
	if reason != mcsv1beta1.ServiceImportReasonReady {
		status = metav1.ConditionFalse
	}
	s := &Standing{
		Ready:          metav1.Condition{Type: string(mcsv1beta1.ServiceImportConditionReady), Status: status, Reason: string(reason), Message: why},
		EndpointSlices: mcsv1beta1.EndpointSliceObjectsAbsent,
	}
	if slices > 0 {
		s.EndpointSlices = mcsv1beta1.EndpointSliceObjectsPresent
	}
	for _, x := range p.want.Sources {
		s.Clusters = append(s.Clusters, x.Cluster)
	}
	return s
}

// mine counts the slices of ours that are there.
func (p *planner) mine() (n int) {
	for _, s := range p.have.Slices {
		if oursDerived(s) {
			n++
		}
	}
	return n
}

// settle plans the slices: those that differ are written, and once all are there,
// those that have no place any more go, if complete.
func (p *planner) settle(want []SliceObject, complete bool) {
	have := map[string]SliceObject{}
	for _, s := range p.have.Slices {
		have[s.Name] = s
	}
	if p.have.Import == nil || (!p.want.Headless && p.have.Service == nil) {
		return // nobody to own them yet, or to name them after
	}
	names := map[string]bool{}
	for _, w := range want {
		names[w.Name] = true
		s := have[w.Name]
		switch {
		case s != nil && !oursDerived(s):
			p.problem = fmt.Sprintf("EndpointSlice %s/%s was made by somebody else, and has the name of one derived from ServiceImport %s: remove it", s.Namespace, s.Name, p.name)
			complete = false
		case s == nil:
			complete = false
			p.apply = append(p.apply, w)
		case !sameSlice(s, w):
			p.apply = append(p.apply, w)
		}
	}
	if !complete {
		return
	}
	for _, s := range p.have.Slices {
		if !names[s.Name] && oursDerived(s) && s.DeletionTimestamp == nil {
			p.remove = append(p.remove, s)
		}
	}
}

// owner is the reference to the ServiceImport that everything derived from it bears.
func (p *planner) owner() []metav1.OwnerReference {
	var uid types.UID
	if p.have.Import != nil {
		uid = p.have.Import.UID
	}
	return []metav1.OwnerReference{{APIVersion: mcsv1beta1.GroupName + "/" + p.version, Kind: mcsv1beta1.ServiceImportKindName, Name: p.name.Name, UID: uid}}
}

// unreachable lists the clusters whose pods have no address here.
func (p *planner) unreachable() (out []string) {
	for _, s := range p.want.Sources {
		if !s.Direct {
			out = append(out, string(s.Cluster))
		}
	}
	return out
}

// families are those by which clients can reach an endpoint: the crossing gateways', or
// the endpoints' own. None if there is none.
func (p *planner) families() (out []corev1.IPFamily) {
	add := func(a netip.Addr) {
		if f := familyOf(a); !slices.Contains(out, f) {
			out = append(out, f)
		}
	}
	if p.want.Gateways {
		for _, g := range p.gateways {
			add(g.Addr)
		}
	} else {
		for _, s := range p.want.Sources {
			for _, x := range s.Slices {
				for _, e := range x.Endpoints {
					add(e.Addr)
				}
			}
		}
	}
	slices.Sort(out)
	return out
}

// addresses are the derived Service's, those alone behind which there can be an
// endpoint. While there is none it is those that were given before.
func (p *planner) addresses() []string {
	s := p.have.Service
	if s == nil || p.want.Headless {
		return nil
	}
	all := slices.DeleteFunc(slices.Clone(s.Spec.ClusterIPs), func(ip string) bool { return ip == "" || ip == corev1.ClusterIPNone })
	known := p.families()
	if len(known) == 0 {
		if p.have.Import == nil || len(p.have.Import.Spec.IPs) == 0 {
			return all
		}
		return slices.DeleteFunc(all, func(ip string) bool { return !slices.Contains(p.have.Import.Spec.IPs, ip) })
	}
	return slices.DeleteFunc(all, func(ip string) bool { return !slices.Contains(known, familyOfText(ip)) })
}

package provision

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// gatewayInput is all that a Gateway's plan depends on.
type gatewayInput struct {
	name     Name
	want     *Gateway // nil: it is none of ours, or is not run here
	have     GatewayHave
	settings GatewaySettings
	roots    string // of the cluster's trust domain, PEM
}

// gatewayPlan is what to write next for a Gateway, in this order.
type gatewayPlan struct {
	apply  []metav1.Object
	remove []metav1.Object
	// standing is nil where the Gateway is not run.
	standing *GatewayStanding
	problem  string // what a person has to mend
}

// planGateway compares what a Gateway should have with what there is. It is pure.
func planGateway(in gatewayInput) gatewayPlan {
	var p gatewayPlan
	h := in.have
	mine := func(o metav1.Object) bool { return ours(o) && gatewayFor(o) == in.name }
	there := present(h.Account, h.Roots, h.Service, h.Deployment, h.Budget)
	switch {
	case in.want == nil:
		for _, o := range append(there, h.Others...) {
			if mine(o) && o.GetDeletionTimestamp() == nil {
				p.remove = append(p.remove, o)
			}
		}
		return p
	case in.want.Idle:
		return p
	}
	for _, o := range there {
		if !mine(o) {
			p.problem = fmt.Sprintf("%s %s/%s is there already, was not made for Gateway %s, and has the name that is needed: remove it, or rename the Gateway", kindOf(o), o.GetNamespace(), o.GetName(), in.name)
			p.standing = &GatewayStanding{Programmed: programmed(gatewayv1.GatewayReasonNoResources, p.problem)}
			return p
		}
	}
	for _, w := range in.objects() {
		var have metav1.Object
		if i := slices.IndexFunc(there, func(o metav1.Object) bool { return kindOf(o) == kindOf(w) }); i >= 0 {
			have = there[i]
		}
		if have == nil || have.GetDeletionTimestamp() == nil && !applied(have, w) {
			p.apply = append(p.apply, w)
		}
	}
	p.standing = in.stands()
	if len(p.apply) == 0 && p.standing.Programmed.Status == metav1.ConditionTrue {
		for _, o := range h.Others {
			if mine(o) && o.GetDeletionTimestamp() == nil {
				p.remove = append(p.remove, o)
			}
		}
	}
	return p
}

// present gives the objects that are there.
func present(list ...metav1.Object) (out []metav1.Object) {
	for _, o := range list {
		if !reflect.ValueOf(o).IsNil() {
			out = append(out, o)
		}
	}
	return out
}

func programmed(reason gatewayv1.GatewayConditionReason, message string) metav1.Condition {
	c := metav1.Condition{Type: string(gatewayv1.GatewayConditionProgrammed), Status: metav1.ConditionFalse, Reason: string(reason), Message: message}
	if reason == gatewayv1.GatewayReasonProgrammed {
		c.Status = metav1.ConditionTrue
	}
	return c
}

// stands says what there is to say of what is there already.
func (in *gatewayInput) stands() *GatewayStanding {
	s := &GatewayStanding{Addresses: statusAddresses(in.have.Service)}
	var missing []string
	for _, a := range in.want.Addresses {
		if !slices.ContainsFunc(s.Addresses, func(b gatewayv1.GatewayStatusAddress) bool { return sameAddress(a.Value, b.Value) }) {
			missing = append(missing, a.Value)
		}
	}
	d := in.have.Deployment
	switch {
	case len(missing) > 0:
		s.Programmed = programmed(gatewayv1.GatewayReasonAddressNotUsable, fmt.Sprintf("the Service has not been given %s: whoever gives load balancers their addresses may not have it, or give it to somebody else", strings.Join(missing, ", ")))
	case len(s.Addresses) == 0:
		s.Programmed = programmed(gatewayv1.GatewayReasonAddressNotAssigned, fmt.Sprintf("Service %s has no address yet", GatewayObjectName(in.name.Name, in.want.Class)))
	case d == nil || d.Status.AvailableReplicas == 0:
		s.Programmed = programmed(gatewayv1.GatewayReasonPending, "no pod of the Gateway is ready yet"+failing(d))
	default:
		s.Programmed = programmed(gatewayv1.GatewayReasonProgrammed, "")
	}
	return s
}

// failing repeats why a Deployment makes no pods.
func failing(d *appsv1.Deployment) string {
	if d == nil {
		return ""
	}
	for _, c := range d.Status.Conditions {
		if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
			return ": " + c.Message
		}
	}
	return ""
}

func sameAddress(a, b string) bool {
	x, err1 := netip.ParseAddr(a)
	y, err2 := netip.ParseAddr(b)
	if err1 != nil || err2 != nil {
		return strings.EqualFold(a, b)
	}
	return x.Unmap() == y.Unmap()
}

// maxAddresses bounds what a Gateway's status holds.
const maxAddresses = 16

// statusAddresses are where a Service is reached.
func statusAddresses(s *corev1.Service) (out []gatewayv1.GatewayStatusAddress) {
	if s == nil {
		return nil
	}
	add := func(t gatewayv1.AddressType, value string) {
		if len(out) < maxAddresses {
			out = append(out, gatewayv1.GatewayStatusAddress{Type: &t, Value: value})
		}
	}
	if s.Spec.Type == corev1.ServiceTypeLoadBalancer {
		for _, i := range s.Status.LoadBalancer.Ingress {
			switch {
			case i.IP != "":
				add(gatewayv1.IPAddressType, i.IP)
			case i.Hostname != "":
				add(gatewayv1.HostnameAddressType, i.Hostname)
			}
		}
		return out
	}
	for _, ip := range s.Spec.ClusterIPs {
		if ip != "" && ip != corev1.ClusterIPNone {
			add(gatewayv1.IPAddressType, ip)
		}
	}
	return out
}

// objects are what a Gateway should have, in the order in which they are needed.
func (in *gatewayInput) objects() []metav1.Object {
	list := []metav1.Object{in.account(), in.trust(), in.service(), in.deployment(), in.budget()}
	for _, o := range list {
		// Replicas are not part of what is compared: see deployment.
		data, err := json.Marshal(o)
		if err != nil {
			panic(err) // they are plain data
		}
		a := o.GetAnnotations()
		a[AnnotationApplied] = hash(16, string(data))
		o.SetAnnotations(a)
		if d, ok := o.(*appsv1.Deployment); ok {
			d.Spec.Replicas = in.replicas()
			if have := in.have.Deployment; have != nil {
				// The replicas that it repeats may be others by the time it is written.
				d.ResourceVersion = have.ResourceVersion
			}
		}
	}
	return list
}

// head is the metadata of everything that is made for the Gateway. What the Gateway asks
// for gives way to what things are found by.
func (in *gatewayInput) head() metav1.ObjectMeta {
	w := in.want
	m := metav1.ObjectMeta{Namespace: in.name.Namespace, Name: GatewayObjectName(in.name.Name, w.Class), Labels: map[string]string{}, Annotations: map[string]string{}}
	for k, v := range w.Labels {
		m.Labels[k] = v
	}
	for k, v := range w.Annotations {
		m.Annotations[k] = v
	}
	for k, v := range in.selector() {
		m.Labels[k] = v
	}
	m.Labels[labelClass] = labelled(w.Class)
	m.Annotations[AnnotationGateway] = in.name.Name
	if w.UID != "" {
		yes := true
		m.OwnerReferences = []metav1.OwnerReference{{APIVersion: gatewayv1.GroupVersion.String(), Kind: "Gateway", Name: in.name.Name, UID: w.UID, Controller: &yes}}
	}
	return m
}

// selector finds the Gateway's pods.
func (in *gatewayInput) selector() map[string]string {
	return map[string]string{LabelManagedBy: Manager, LabelGateway: labelled(in.name.Name)}
}

func (in *gatewayInput) account() *corev1.ServiceAccount {
	no := false
	return &corev1.ServiceAccount{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"}, ObjectMeta: in.head(), AutomountServiceAccountToken: &no}
}

// trust has the roots by which the pods know the agents, for their first contact.
func (in *gatewayInput) trust() *corev1.ConfigMap {
	return &corev1.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, ObjectMeta: in.head(), Data: map[string]string{"ca.crt": in.roots}}
}

func (in *gatewayInput) budget() *policyv1.PodDisruptionBudget {
	one := intOrString(1)
	return &policyv1.PodDisruptionBudget{
		TypeMeta: metav1.TypeMeta{APIVersion: "policy/v1", Kind: "PodDisruptionBudget"}, ObjectMeta: in.head(),
		Spec: policyv1.PodDisruptionBudgetSpec{MaxUnavailable: &one, Selector: &metav1.LabelSelector{MatchLabels: in.selector()}},
	}
}

func (in *gatewayInput) service() *corev1.Service {
	w := in.want
	s := &corev1.Service{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: in.head(),
		Spec: corev1.ServiceSpec{Type: w.Parameters.ServiceType, Selector: in.selector()},
	}
	if s.Spec.Type == "" {
		s.Spec.Type = corev1.ServiceTypeLoadBalancer
	}
	if s.Spec.Type == corev1.ServiceTypeLoadBalancer {
		// The field is deprecated for being vague, and what load balancers know.
		for _, a := range w.Addresses {
			if ip, err := netip.ParseAddr(a.Value); err == nil {
				s.Spec.LoadBalancerIP = a.Value
				if have := in.have.Service; have == nil || len(have.Spec.IPFamilies) > 0 && have.Spec.IPFamilies[0] == familyOf(ip) {
					s.Spec.IPFamilies = []corev1.IPFamily{familyOf(ip)} // can be chosen once
				}
				break
			}
		}
	}
	if w.Parameters.IPFamilyPolicy != "" {
		s.Spec.IPFamilyPolicy, s.Spec.IPFamilies = &w.Parameters.IPFamilyPolicy, nil
	}
	for _, p := range w.Ports {
		if target, ok := TargetPort(p.Number); ok {
			s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{
				Name: fmt.Sprintf("%s-%d", strings.ToLower(string(p.Protocol)), p.Number), Protocol: p.Protocol, Port: p.Number, TargetPort: intOrString(target),
			})
		}
	}
	return s
}

// replicas is how many pods to ask for: what there are, unless the number that is asked
// for is another than it was then. Between, a HorizontalPodAutoscaler or a person scales.
func (in *gatewayInput) replicas() *int32 {
	d := in.have.Deployment
	asked := in.asked()
	if d != nil && d.Spec.Replicas != nil && d.Annotations[AnnotationReplicas] == fmt.Sprint(asked) {
		return d.Spec.Replicas
	}
	return &asked
}

func (in *gatewayInput) asked() int32 {
	if r := in.want.Parameters.Replicas; r != nil {
		return *r
	}
	return max(in.settings.Replicas, 1)
}

// applied reports whether an object is as it was applied, and that is as it should be.
func applied(have, want metav1.Object) bool {
	return have.GetAnnotations()[AnnotationApplied] == want.GetAnnotations()[AnnotationApplied] && owned(have, want) && covers(tree(want), tree(have))
}

// tree is an object as JSON has it.
func tree(o any) any {
	data, err := json.Marshal(o)
	if err != nil {
		panic(err) // objects of the API are plain data
	}
	var out map[string]any
	if err := json.Unmarshal(data, &out); err != nil {
		panic(err)
	}
	delete(out, "status")
	for _, k := range []string{"apiVersion", "kind"} { // lists don't repeat them
		delete(out, k)
	}
	if m, ok := out["metadata"].(map[string]any); ok {
		delete(m, "ownerReferences")
		delete(m, "creationTimestamp")
	}
	return out
}

// covers reports whether all that want says stands in have, which may say more: defaults
// of the API server, and what others add. Items of lists are found by their name where
// they have one.
func covers(want, have any) bool {
	switch w := want.(type) {
	case map[string]any:
		h, ok := have.(map[string]any)
		if !ok {
			return len(w) == 0
		}
		for k, v := range w {
			if v != nil && !covers(v, h[k]) {
				return false
			}
		}
		return true
	case []any:
		h, ok := have.([]any)
		if !ok {
			return len(w) == 0
		}
		for i, v := range w {
			name := itemName(v)
			if name == nil {
				if len(h) != len(w) || !covers(v, h[i]) {
					return false
				}
			} else if !slices.ContainsFunc(h, func(x any) bool { return itemName(x) == name && covers(v, x) }) {
				return false
			}
		}
		return true
	}
	return want == have
}

func itemName(v any) any {
	if m, ok := v.(map[string]any); ok {
		return m["name"]
	}
	return nil
}

// gatewayHave arranges what there is for a Gateway. name is what its objects are called.
func gatewayHave(list []metav1.Object, name string) GatewayHave {
	var h GatewayHave
	for _, o := range list {
		if o.GetName() != name {
			h.Others = append(h.Others, o)
			continue
		}
		switch o := o.(type) {
		case *corev1.ServiceAccount:
			h.Account = o
		case *corev1.ConfigMap:
			h.Roots = o
		case *corev1.Service:
			h.Service = o
		case *appsv1.Deployment:
			h.Deployment = o
		case *policyv1.PodDisruptionBudget:
			h.Budget = o
		}
	}
	slices.SortFunc(h.Others, func(a, b metav1.Object) int {
		return strings.Compare(kindOf(a)+"/"+a.GetName(), kindOf(b)+"/"+b.GetName())
	})
	return h
}

package provision

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"pgregory.net/rapid"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster/parameters"
)

// No two ports share a target, all targets can be bound by anybody, and the probe's port
// is nobody's.
func TestTargetPort(t *testing.T) {
	by := map[int32]int32{}
	for port := int32(-1); port <= 65536; port++ {
		target, ok := TargetPort(port)
		if want := port > 0 && port < 65536 && (port < 61000 || port > 62023); ok != want {
			t.Fatalf("port %d is possible: %v", port, ok)
		}
		if !ok {
			continue
		}
		if target < 1024 || target > 65535 || target == ProbePort {
			t.Fatalf("port %d has the target %d", port, target)
		}
		if other, taken := by[target]; taken {
			t.Fatalf("ports %d and %d have the target %d", other, port, target)
		}
		by[target] = port
	}
	if got, _ := TargetPort(8080); got != 8080 {
		t.Errorf("8080 has moved to %d", got)
	}
}

// Names of Gateways and classes are DNS subdomains; a Service's is shorter and takes less.
func TestGatewayObjectName(t *testing.T) {
	if got := GatewayObjectName("edge", "causeway"); got != "edge-causeway" {
		t.Errorf("the name is %q (GEP-1762)", got)
	}
	seen := map[string]string{}
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?`)
		gateway, class := name.Draw(t, "gateway"), name.Draw(t, "class")
		got := GatewayObjectName(gateway, class)
		if errs := validation.IsDNS1035Label(got); len(errs) > 0 {
			t.Fatalf("%q: %v", got, errs)
		}
		for _, v := range []string{gateway, class} {
			if errs := validation.IsValidLabelValue(labelled(v)); len(errs) > 0 {
				t.Fatalf("%q: %v", labelled(v), errs)
			}
		}
		if of, ok := seen[got]; ok && of != gateway+"-"+class {
			t.Fatalf("%s and %s-%s are both called %s", of, gateway, class, got)
		}
		seen[got] = gateway + "-" + class
	})
}

var edge = Name{"shop", "edge"}

// shopGateway wants one of everything.
func shopGateway() gatewayInput {
	return gatewayInput{
		name: edge, roots: "PEM",
		settings: GatewaySettings{Cluster: "east", Clusterset: "prod", Audience: "causeway.dev/east.prod", Image: "causeway-envoy:v1", PullPolicy: corev1.PullIfNotPresent, Replicas: 1},
		want:     &Gateway{Name: edge, Class: "causeway", UID: "uid-1", Ports: []GatewayPort{{corev1.ProtocolTCP, 80}}, Labels: map[string]string{"team": "shop", LabelGateway: "mine"}, Annotations: map[string]string{"note": "x"}},
	}
}

// made makes the API server have what a plan applies, and forget what it removes.
func made(in *gatewayInput, p gatewayPlan) {
	list := append(present(in.have.Account, in.have.Roots, in.have.Service, in.have.Deployment, in.have.Budget), in.have.Others...)
	gone := func(o metav1.Object) bool {
		return slices.ContainsFunc(append(slices.Clone(p.apply), p.remove...), func(x metav1.Object) bool { return kindOf(x) == kindOf(o) && x.GetName() == o.GetName() })
	}
	status := appsv1.DeploymentStatus{}
	var ingress corev1.ServiceStatus
	if in.have.Deployment != nil {
		status = in.have.Deployment.Status
	}
	if in.have.Service != nil {
		ingress = in.have.Service.Status
	}
	list = append(slices.DeleteFunc(list, gone), p.apply...)
	name := ""
	if in.want != nil {
		name = GatewayObjectName(in.name.Name, in.want.Class)
	}
	in.have = gatewayHave(list, name)
	if in.have.Deployment != nil {
		in.have.Deployment.Status = status
	}
	if in.have.Service != nil {
		in.have.Service.Status = ingress
	}
}

func kinds(list []metav1.Object) string {
	var out []string
	for _, o := range list {
		out = append(out, kindOf(o))
	}
	return strings.Join(out, " ")
}

func TestPlanGateway(t *testing.T) {
	in := shopGateway()
	p := planGateway(in)
	if got := kinds(p.apply); got != "ServiceAccount ConfigMap Service Deployment PodDisruptionBudget" {
		t.Fatalf("first come %s", got)
	}
	for _, o := range append(p.apply, metav1.Object(&p.apply[3].(*appsv1.Deployment).Spec.Template.ObjectMeta)) {
		if o.GetLabels()["team"] != "shop" || o.GetAnnotations()["note"] != "x" || o.GetLabels()[LabelGateway] != "edge" || !ours(o) {
			t.Errorf("%s has %v %v", kindOf(o), o.GetLabels(), o.GetAnnotations())
		}
	}
	if o := p.apply[2].GetOwnerReferences(); len(o) != 1 || o[0].UID != "uid-1" || o[0].BlockOwnerDeletion != nil {
		t.Errorf("the owner is %+v", o)
	}
	made(&in, p)
	if p := planGateway(in); len(p.apply)+len(p.remove) > 0 {
		t.Fatalf("it does not come to rest: %s", kinds(p.apply))
	}

	// Listeners are the Service's affair alone.
	in.want.Ports = []GatewayPort{{corev1.ProtocolUDP, 53}, {corev1.ProtocolTCP, 80}, {corev1.ProtocolTCP, 8443}}
	p = planGateway(in)
	if got := kinds(p.apply); got != "Service" {
		t.Errorf("for a listener %s is written", got)
	}
	var ports []string
	for _, x := range p.apply[0].(*corev1.Service).Spec.Ports {
		ports = append(ports, fmt.Sprintf("%s %d/%s to %s", x.Name, x.Port, x.Protocol, x.TargetPort.String()))
	}
	if got := fmt.Sprint(ports); got != "[udp-53 53/UDP to 10053 tcp-80 80/TCP to 10080 tcp-8443 8443/TCP to 8443]" {
		t.Errorf("ports are %s", got)
	}
	made(&in, p)

	// What others add stays; what they change is put back, and so is what isn't wanted any more.
	in.have.Service.Labels["somebody"] = "else"
	in.have.Deployment.Spec.Template.Spec.Containers = append([]corev1.Container{{Name: "injected"}}, in.have.Deployment.Spec.Template.Spec.Containers...)
	if p := planGateway(in); len(p.apply) > 0 {
		t.Errorf("for what others add, %s is written", kinds(p.apply))
	}
	in.have.Service.Spec.Ports[0].TargetPort = intOrString(1)
	in.have.Budget.Spec.Selector = nil
	p = planGateway(in)
	if got := kinds(p.apply); got != "Service PodDisruptionBudget" {
		t.Errorf("for what others change, %s is written", got)
	}
	made(&in, p)
	in.want.Labels = nil
	p = planGateway(in)
	if got := kinds(p.apply); got != "ServiceAccount ConfigMap Service Deployment PodDisruptionBudget" {
		t.Errorf("for a label that is gone, %s is written", got)
	}
	made(&in, p)

	// One that can't run as it is keeps what it has.
	idle := in
	idle.want = &Gateway{Name: edge, Idle: true}
	if p := planGateway(idle); len(p.apply)+len(p.remove) > 0 || p.standing != nil {
		t.Errorf("of an idle Gateway %s is written, %s removed", kinds(p.apply), kinds(p.remove))
	}

	// Of another class: the former objects go once the new ones serve.
	in.have.Deployment.Status.AvailableReplicas = 1
	in.have.Service.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "192.0.2.1"}}
	in.want.Class = "other"
	in.have = gatewayHave(present(in.have.Account, in.have.Roots, in.have.Service, in.have.Deployment, in.have.Budget), "edge-other")
	p = planGateway(in)
	if len(p.apply) != 5 || len(p.remove) != 0 {
		t.Errorf("of another class %s is written, %s removed", kinds(p.apply), kinds(p.remove))
	}
	made(&in, p)
	if p := planGateway(in); len(p.apply)+len(p.remove) > 0 {
		t.Errorf("too early %s is removed", kinds(p.remove))
	}
	in.have.Deployment.Status.AvailableReplicas = 1
	in.have.Service.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "192.0.2.2"}}
	if p := planGateway(in); len(p.remove) != 5 || p.remove[0].GetName() != "edge-causeway" {
		t.Errorf("%s is removed", kinds(p.remove))
	}

	// It goes, and all of it; not what isn't of it.
	stranger := in.have.Service.DeepCopy()
	stranger.Annotations = nil
	in.have.Service, in.want = stranger, nil
	if got := kinds(planGateway(in).remove); strings.Contains(got, "Service ") && !strings.HasPrefix(got, "ServiceAccount ConfigMap Deployment") || len(planGateway(in).remove) != 9 {
		t.Errorf("%s is removed", got)
	}
}

// Objects of others that have a name of ours are left alone, and it is said.
func TestPlanGatewayForeign(t *testing.T) {
	for kind := range 5 {
		in := shopGateway()
		made(&in, planGateway(in))
		o := present(in.have.Account, in.have.Roots, in.have.Service, in.have.Deployment, in.have.Budget)[kind]
		o.SetLabels(nil)
		p := planGateway(in)
		if len(p.apply)+len(p.remove) > 0 || !strings.Contains(p.problem, kindOf(o)+" shop/edge-causeway is there already") || p.standing.Programmed.Reason != "NoResources" {
			t.Errorf("%s of somebody's: %s is written, %s removed, %q said", kindOf(o), kinds(p.apply), kinds(p.remove), p.problem)
		}
	}
}

// The number of pods is the parameters' when they change, and otherwise who scales'.
func TestReplicas(t *testing.T) {
	in := shopGateway()
	replicas := func() int32 {
		t.Helper()
		p := planGateway(in)
		made(&in, p)
		return *in.have.Deployment.Spec.Replicas
	}
	ask := func(n int32) { in.want.Parameters = parameters.Parameters{Replicas: &n} }
	if got := replicas(); got != 1 {
		t.Errorf("it begins with %d", got)
	}
	scaled := int32(5)
	in.have.Deployment.Spec.Replicas = &scaled
	in.settings.Image = "causeway-envoy:v2" // another reason to write it
	if got := replicas(); got != 5 || in.have.Deployment.Spec.Template.Spec.Containers[0].Image != "causeway-envoy:v2" {
		t.Errorf("somebody scaled to 5, and a new image makes it %d", got)
	}
	if ask(3); replicas() != 3 {
		t.Errorf("3 are asked for, and there are %d", *in.have.Deployment.Spec.Replicas)
	}
	in.have.Deployment.Spec.Replicas = &scaled
	if got := replicas(); got != 5 {
		t.Errorf("somebody scaled to 5, and it is %d", got)
	}
}

func TestGatewayStanding(t *testing.T) {
	ip, host := gatewayv1.IPAddressType, gatewayv1.HostnameAddressType
	ready := func(in *gatewayInput) { in.have.Deployment.Status.AvailableReplicas = 1 }
	given := func(list ...corev1.LoadBalancerIngress) func(*gatewayInput) {
		return func(in *gatewayInput) { in.have.Service.Status.LoadBalancer.Ingress = list }
	}
	asked := func(list ...string) func(*gatewayInput) {
		return func(in *gatewayInput) {
			for _, a := range list {
				in.want.Addresses = append(in.want.Addresses, gatewayv1.GatewaySpecAddress{Type: &ip, Value: a})
			}
		}
	}
	v4, v6 := corev1.LoadBalancerIngress{IP: "192.0.2.1"}, corev1.LoadBalancerIngress{IP: "2001:db8::1"}
	for what, c := range map[string]struct {
		do   []func(*gatewayInput)
		want string
	}{
		"nothing yet":             {nil, "False AddressNotAssigned []"},
		"no pods":                 {[]func(*gatewayInput){given(v4)}, "False Pending [192.0.2.1]"},
		"no address":              {[]func(*gatewayInput){ready}, "False AddressNotAssigned []"},
		"both":                    {[]func(*gatewayInput){ready, given(v4, v6)}, "True Programmed [192.0.2.1 2001:db8::1]"},
		"a name":                  {[]func(*gatewayInput){ready, given(corev1.LoadBalancerIngress{Hostname: "lb.example.com"})}, "True Programmed [lb.example.com]"},
		"the address asked for":   {[]func(*gatewayInput){ready, asked("2001:DB8:0::1"), given(v6)}, "True Programmed [2001:db8::1]"},
		"another than asked for":  {[]func(*gatewayInput){ready, asked("192.0.2.9"), given(v4)}, "False AddressNotUsable [192.0.2.1]"},
		"one of two asked for":    {[]func(*gatewayInput){ready, asked("192.0.2.1", "192.0.2.2"), given(v4)}, "False AddressNotUsable [192.0.2.1]"},
		"none of those asked for": {[]func(*gatewayInput){ready, asked("192.0.2.1")}, "False AddressNotUsable []"},
		"no load balancer": {[]func(*gatewayInput){ready, func(in *gatewayInput) {
			in.have.Service.Spec.Type, in.have.Service.Spec.ClusterIPs = corev1.ServiceTypeClusterIP, []string{"10.96.0.1"}
		}}, "True Programmed [10.96.0.1]"},
	} {
		in := shopGateway()
		made(&in, planGateway(in))
		for _, do := range c.do {
			do(&in)
		}
		s := planGateway(in).standing
		var list []string
		for _, a := range s.Addresses {
			list = append(list, a.Value)
			if want := ip; a.Type == nil || *a.Type != want && (*a.Type != host || !strings.Contains(a.Value, "example")) {
				t.Errorf("%s: %s has the type %v", what, a.Value, a.Type)
			}
		}
		if got := fmt.Sprintf("%s %s %v", s.Programmed.Status, s.Programmed.Reason, list); got != c.want {
			t.Errorf("%s: %s, want %s", what, got, c.want)
		}
	}
	// A static address is asked for in its own family, where there is a choice still.
	in := shopGateway()
	asked("2001:db8::1")(&in)
	if s := in.service().Spec; s.LoadBalancerIP != "2001:db8::1" || !slices.Equal(s.IPFamilies, []corev1.IPFamily{corev1.IPv6Protocol}) {
		t.Errorf("asked for as %+v", s)
	}
	in.have.Service = &corev1.Service{Spec: corev1.ServiceSpec{IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}}}
	if s := in.service().Spec; s.IPFamilies != nil {
		t.Errorf("the family would change to %v", s.IPFamilies)
	}
}

// Parameters reach what they are for.
func TestGatewayParameters(t *testing.T) {
	p, err := parameters.Parse(map[string]string{"image": "mine:v2", "logLevel": "debug", "serviceType": "ClusterIP", "ipFamilyPolicy": "RequireDualStack", "resources": "limits: {memory: 1Gi}"})
	if err != nil {
		t.Fatal(err)
	}
	in := shopGateway()
	in.want.Parameters = p
	d, s := in.deployment(), in.service()
	c := d.Spec.Template.Spec.Containers[0]
	if c.Image != "mine:v2" || !slices.Contains(c.Args, "--log-level=debug") || c.Resources.Limits.Memory().String() != "1Gi" || len(c.Resources.Requests) != 0 {
		t.Errorf("the container is %+v", c)
	}
	if s.Spec.Type != corev1.ServiceTypeClusterIP || *s.Spec.IPFamilyPolicy != corev1.IPFamilyPolicyRequireDualStack || s.Spec.LoadBalancerIP != "" {
		t.Errorf("the Service is %+v", s.Spec)
	}
	if !maps.Equal(d.Spec.Selector.MatchLabels, s.Spec.Selector) {
		t.Error("the Service selects others than the Deployment's pods")
	}
}

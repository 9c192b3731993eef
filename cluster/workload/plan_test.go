package workload

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/workload/echo"
)

// deployment has the label app: NAME.
func deployment(name string, replicas int32, ports ...corev1.ContainerPort) Deployment {
	return Deployment{Origin: name + ".yaml:1", Deployment: &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name},
		Spec: appsv1.DeploymentSpec{Replicas: &replicas, Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": name, "tier": "all"}},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Ports: ports}}},
		}},
	}}
}

func service(name, label, value string, ports ...corev1.ServicePort) Service {
	return Service{Origin: name + ".yaml:9", Service: &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{label: value}, Ports: ports},
	}}
}

func port(name string, port int32, target any) corev1.ServicePort {
	p := corev1.ServicePort{Name: name, Port: port, Protocol: corev1.ProtocolTCP}
	switch t := target.(type) {
	case int:
		p.TargetPort = intstr.FromInt(t)
	case string:
		p.TargetPort = intstr.FromString(t)
	}
	return p
}

func over(p corev1.ServicePort, protocol corev1.Protocol) corev1.ServicePort {
	p.Protocol = protocol
	return p
}

// show gives a plan as lines: slices with ports and endpoints (a ! marks those
// that aren't ready), then problems and moves.
func show(p plan) string {
	var b strings.Builder
	for _, s := range p.slices {
		fmt.Fprintf(&b, "%s of %s:", s.ref.Name, s.service)
		for _, port := range s.ports {
			fmt.Fprintf(&b, " %s=%d/%s", port.Name, port.Port, port.Protocol)
		}
		for _, e := range s.endpoints {
			mark := ""
			if !e.ready {
				mark = "!"
			}
			i := strings.LastIndexByte(e.pod, '-')
			fmt.Fprintf(&b, " %s%s%s", mark, e.pod[:strings.IndexByte(e.pod, '-')], e.pod[i:])
		}
		b.WriteString("\n")
	}
	for _, p := range p.problems {
		fmt.Fprintf(&b, "%s %s: %s\n", p.Where, p.Object, p.Message)
	}
	for _, m := range p.moved {
		fmt.Fprintf(&b, "%s: %d is %d\n", m.deployment, m.from, m.to)
	}
	return b.String()
}

func TestPlan(t *testing.T) {
	named := func(n int32) corev1.ContainerPort {
		return corev1.ContainerPort{Name: "http", ContainerPort: n, Protocol: corev1.ProtocolTCP}
	}
	partly := deployment("a", 3)
	partly.Annotations = map[string]string{AnnotationReady: "3"}
	partly.Spec.Template.Annotations = map[string]string{AnnotationReady: "1"}
	wrong := deployment("a", 1)
	wrong.Annotations = map[string]string{AnnotationReady: "some"}
	faulty := deployment("a", 1)
	faulty.Annotations = map[string]string{AnnotationFail: "200", AnnotationFaulty: "-1", AnnotationSlow: "2h", AnnotationTLSSecret: "none"}
	impatient := service("s", "app", "a", port("", 80, 5678))
	impatient.Spec.PublishNotReadyAddresses = true
	elsewhere := deployment("a", 1)
	elsewhere.Namespace = "other"
	external := service("s", "app", "a")
	external.Spec.Type = corev1.ServiceTypeExternalName
	unset := deployment("a", 1)
	unset.Spec.Replicas = nil
	taken := map[cluster.Ref]bool{{Kind: cluster.KindEndpointSlice, Namespace: "ns", Name: "s-workload"}: true}

	for _, c := range []struct {
		name string
		in   Input
		want string
	}{
		{"one service", Input{[]Service{service("s", "app", "a", port("", 80, 5678))}, []Deployment{deployment("a", 2), deployment("b", 1)}, nil, nil},
			"s-workload of s: =5678/TCP a-0 a-1\n"},
		{"replicas are one by default", Input{[]Service{service("s", "app", "a", port("", 80, 5678))}, []Deployment{unset}, nil, nil},
			"s-workload of s: =5678/TCP a-0\n"},
		{"two services on one deployment, one on two", Input{[]Service{service("x", "app", "a", port("", 80, 5678)), service("y", "tier", "all", port("web", 80, 9000))}, []Deployment{deployment("b", 1), deployment("a", 1)}, nil, nil},
			"x-workload of x: =5678/TCP a-0\ny-workload of y: web=9000/TCP a-0 b-0\n"},
		{"a named port differs", Input{[]Service{service("s", "tier", "all", port("web", 80, "http"))}, []Deployment{deployment("a", 1, named(8001)), deployment("b", 1, named(8002)), deployment("c", 1)}, nil, nil},
			"s-workload of s: c-0\ns-workload-2 of s: web=8001/TCP a-0\ns-workload-3 of s: web=8002/TCP b-0\n"},
		{"a named port is nowhere", Input{[]Service{service("s", "app", "a", port("web", 80, "http"), port("ok", 81, 8081))}, []Deployment{deployment("a", 1)}, nil, nil},
			"s-workload of s: ok=8081/TCP a-0\ns.yaml:9 Service/ns/s: targetPort \"http\" of port 80 is left out: no container of Deployment/ns/a has a port of that name and protocol\n"},
		{"low ports", Input{[]Service{service("s", "app", "a", port("a", 80, 80), port("b", 81, 10080), port("c", 82, 443), over(port("d", 80, 80), corev1.ProtocolUDP))}, []Deployment{deployment("a", 1)}, nil, nil},
			"s-workload of s: a=11080/TCP b=10080/TCP c=10443/TCP d=10080/UDP a-0\nDeployment/ns/a: 80 is 11080\nDeployment/ns/a: 80 is 10080\nDeployment/ns/a: 443 is 10443\n"},
		{"SCTP", Input{[]Service{service("s", "app", "a", over(port("a", 80, 80), corev1.ProtocolSCTP))}, []Deployment{deployment("a", 1)}, nil, nil},
			"s-workload of s: a-0\ns.yaml:9 Service/ns/s: port 80 is left out: the built-in servers don't speak SCTP\n"},
		{"partly ready", Input{[]Service{service("s", "app", "a", port("", 80, 5678))}, []Deployment{partly}, nil, nil},
			"s-workload of s: =5678/TCP a-0 !a-1 !a-2\n"},
		{"ready before its time", Input{[]Service{impatient}, []Deployment{partly}, nil, nil},
			"s-workload of s: =5678/TCP a-0 a-1 a-2\n"},
		{"a wrong annotation", Input{[]Service{service("s", "app", "a", port("", 80, 5678))}, []Deployment{wrong}, nil, nil},
			"s-workload of s: =5678/TCP a-0\na.yaml:1 Deployment/ns/a: its annotation causeway.dev/ready is not a number of replicas: all of them are ready\n"},
		{"wrong faults", Input{[]Service{service("s", "app", "a", port("", 80, 5678))}, []Deployment{faulty}, nil, nil},
			"s-workload of s: =5678/TCP a-0\n" +
				"a.yaml:1 Deployment/ns/a: its annotation causeway.dev/faulty is not a number of replicas: all of them are meant\n" +
				"a.yaml:1 Deployment/ns/a: its annotation causeway.dev/fail is neither a status from 400 to 599 nor \"reset\" or \"refuse\": nothing fails\n" +
				"a.yaml:1 Deployment/ns/a: its annotation causeway.dev/slow is not a duration from 0s to 1m0s: nothing is slow\n" +
				"a.yaml:1 Deployment/ns/a: its annotation causeway.dev/tls-secret names \"none\": there is no Secret of that name and the type kubernetes.io/tls in the namespace: clients by TLS see a self-signed certificate\n"},
		{"too many", Input{[]Service{service("s", "tier", "all", port("", 80, 5678))}, []Deployment{deployment("b", 3), deployment("a", 8)}, nil, nil},
			"s-workload of s: =5678/TCP a-0 a-1 a-2 a-3 a-4 a-5 a-6 a-7 b-0 b-1\nb.yaml:1 Deployment/ns/b: 2 of its 3 replicas run: a cluster has at most 10 replicas with 20 listeners in all, ask for fewer\n"},
		{"none", Input{[]Service{service("s", "app", "a", port("", 80, 5678))}, []Deployment{deployment("a", 0)}, nil, nil},
			"s-workload of s: =5678/TCP\n"},
		{"not matched", Input{[]Service{service("s", "app", "x", port("", 80, 5678)), external, {Service: &corev1.Service{}}}, []Deployment{deployment("a", 99), elsewhere}, nil, nil}, ""},
		{"a name that is taken", Input{[]Service{service("s", "app", "a", port("", 80, 5678))}, []Deployment{deployment("a", 1)}, taken, nil},
			"s-workload-2 of s: =5678/TCP a-0\n"},
	} {
		got := makePlan(c.in, limits{"east", 10, 20, 1024})
		if d := cmp.Diff(c.want, show(got)); d != "" {
			t.Errorf("%s: -want +got\n%s", c.name, d)
		}
	}
}

// A port takes what its appProtocol says, and anything if two Services differ.
func TestPortAccepts(t *testing.T) {
	speaks := func(s Service, app string) Service {
		s.Spec.Ports[0].AppProtocol = &app
		return s
	}
	one := func() Service { return service("s", "app", "a", port("", 80, 5678)) }
	for app, want := range map[string]echo.Accepts{
		"": echo.AcceptAny, "http": echo.AcceptAny, "kubernetes.io/ws": echo.AcceptAny, "grpc": echo.AcceptAny, "tcp": echo.AcceptAny, "kubernetes.io/h2c": echo.AcceptH2C,
		"https": echo.AcceptTLS, "TLS": echo.AcceptTLS, "kubernetes.io/wss": echo.AcceptTLS,
	} {
		for _, other := range []string{app, "unheard-of.example/x"} {
			if other != app {
				want = echo.AcceptAny
			}
			second := speaks(service("x", "app", "a", port("", 443, 5678)), other)
			p := makePlan(Input{Services: []Service{speaks(one(), app), second}, Deployments: []Deployment{deployment("a", 1)}}, limits{"east", 10, 20, 1024})
			for _, s := range p.servers {
				if s.settings.Accepts != want {
					t.Errorf("appProtocols %q and %q: %v, want %v", app, other, s.settings.Accepts, want)
				}
			}
		}
	}
}

// Whatever the input: its order means nothing, no endpoint waits for a listener
// that isn't planned, no bound is broken and no port that may not be bound is
// asked for.
func TestPlanProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var in Input
		for i := range rapid.IntRange(0, 4).Draw(t, "deployments") {
			d := deployment(string(rune('a'+i)), rapid.Int32Range(0, 6).Draw(t, "replicas"))
			d.Spec.Template.Spec.Containers[0].Ports = []corev1.ContainerPort{{Name: "http", ContainerPort: rapid.SampledFrom([]int32{80, 8080}).Draw(t, "named"), Protocol: corev1.ProtocolTCP}}
			in.Deployments = append(in.Deployments, d)
		}
		for i := range rapid.IntRange(0, 4).Draw(t, "services") {
			s := service(fmt.Sprint("s", i), rapid.SampledFrom([]string{"app", "tier"}).Draw(t, "label"), rapid.SampledFrom([]string{"a", "b", "all"}).Draw(t, "value"))
			for j := range rapid.IntRange(0, 3).Draw(t, "ports") {
				target := rapid.SampledFrom([]any{80, 81, 10080, 11080, 65535, "http", "none"}).Draw(t, "target")
				s.Spec.Ports = append(s.Spec.Ports, over(port(fmt.Sprint("p", j), int32(80+j), target), rapid.SampledFrom([]corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}).Draw(t, "protocol")))
			}
			in.Services = append(in.Services, s)
		}
		lim := limits{"east", 8, 12, 1024}
		p := makePlan(in, lim)
		shuffled := Input{rapid.Permutation(in.Services).Draw(t, "s"), rapid.Permutation(in.Deployments).Draw(t, "d"), nil, nil}
		other := makePlan(shuffled, lim)
		if d := cmp.Diff(show(p), show(other)); d != "" {
			t.Fatal("order matters:", d)
		}
		if !reflect.DeepEqual(p.servers, other.servers) {
			t.Fatalf("order matters to the servers: %+v, %+v", p.servers, other.servers)
		}
		pods := map[string]bool{}
		for _, s := range p.slices {
			for _, e := range s.endpoints {
				pods[e.pod] = true
				for _, l := range e.needs {
					if _, ok := p.servers[l]; !ok {
						t.Fatal("nobody listens on", l)
					}
				}
				for _, port := range s.ports {
					if !slices.ContainsFunc(e.needs, func(l listener) bool { return l.port == port.Port && l.udp == (port.Protocol == "UDP") }) {
						t.Fatal("an endpoint is ready without", port)
					}
				}
			}
		}
		if len(pods) > lim.replicas || len(p.servers) > lim.listeners {
			t.Fatalf("%d pods, %d listeners", len(pods), len(p.servers))
		}
		for l := range p.servers {
			if l.port < lim.lowest {
				t.Fatal("may not be bound:", l)
			}
		}
	})
}

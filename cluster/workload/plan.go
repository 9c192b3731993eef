package workload

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/rand"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/provision/loopback"
	"github.com/causeway-mesh/causeway/cluster/workload/echo"
)

// Input is what a cluster runs. Nothing in it is changed.
type Input struct {
	Services    []Service
	Deployments []Deployment
	// Taken names the EndpointSlices that exist already; no made-up one gets
	// the name of one of them.
	Taken map[cluster.Ref]bool
	// Secrets of the type kubernetes.io/tls, by namespace/name.
	Secrets map[string]*corev1.Secret
}

// Service is a Service and where a person finds it.
type Service struct {
	*corev1.Service
	Origin string
}

// Deployment is a Deployment and where a person finds it.
type Deployment struct {
	*appsv1.Deployment
	Origin string
}

// listener names one socket of one pod.
type listener struct {
	namespace, pod string
	port           uint16
	udp            bool
}

func (l listener) network() string {
	if l.udp {
		return "udp"
	}
	return "tcp"
}

// plan is what should run and be published.
type plan struct {
	// servers gives each listener the Service that it answers for.
	servers  map[listener]server
	slices   []slice
	problems []cluster.Problem
	moved    []move
}

type server struct {
	origin   string // of the Deployment
	object   string
	settings echo.Settings
	refuse   bool // nobody listens, on purpose
}

// slice is an EndpointSlice before it is known what listens.
type slice struct {
	ref       cluster.Ref
	service   string
	origin    string
	ports     []cluster.EndpointPort
	endpoints []endpoint
}

// endpoint is ready if it should be and all of its listeners are open.
type endpoint struct {
	namespace, pod string
	ready          bool
	needs          []listener
}

// move says that a port below those that may be bound is served elsewhere.
type move struct {
	deployment string
	from, to   uint16
}

// limits of a plan.
type limits struct {
	cluster   cluster.ID
	replicas  int
	listeners int
	lowest    uint16 // the first port that this process may bind
}

// makePlan is pure: the same input gives the same plan, in the same order.
func makePlan(in Input, lim limits) plan {
	p := plan{servers: map[listener]server{}}
	services := slices.Clone(in.Services)
	slices.SortFunc(services, func(a, b Service) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	deployments := slices.Clone(in.Deployments)
	slices.SortFunc(deployments, func(a, b Deployment) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})

	// What each Deployment is asked for decides where its low ports go.
	backing := map[string][]*workload{} // by Service
	byNamespace := map[string][]*workload{}
	for _, d := range deployments {
		byNamespace[d.Namespace] = append(byNamespace[d.Namespace], &workload{Deployment: d, ports: map[target]uint16{}})
	}
	for _, s := range services {
		if len(s.Spec.Selector) == 0 || s.Spec.Type == corev1.ServiceTypeExternalName {
			continue
		}
		selector := labels.SelectorFromSet(s.Spec.Selector)
		for _, w := range byNamespace[s.Namespace] {
			if !selector.Matches(labels.Set(w.Spec.Template.Labels)) {
				continue
			}
			backing[s.Namespace+"/"+s.Name] = append(backing[s.Namespace+"/"+s.Name], w)
			w.selected = true
			for _, sp := range s.Spec.Ports {
				if t, ok := w.target(sp); ok {
					w.ports[t] = t.port
				}
			}
		}
	}
	replicas, listeners := lim.replicas, lim.listeners
	for _, d := range deployments {
		for _, w := range byNamespace[d.Namespace] {
			if w.Name == d.Name && w.selected {
				p.size(w, lim, &replicas, &listeners)
			}
		}
	}
	for _, d := range deployments {
		for _, w := range byNamespace[d.Namespace] {
			if w.Name == d.Name && len(w.pods) > 0 {
				p.behave(w, lim, in.Secrets)
			}
		}
	}
	for _, s := range services {
		p.service(s, backing[s.Namespace+"/"+s.Name], lim, in.Taken)
	}
	return p
}

// target is a port on which a pod is asked to listen.
type target struct {
	port uint16
	udp  bool
}

// need is a port that a Service needs of a pod, and what it may be called by.
type need struct {
	target
	accepts echo.Accepts
}

// workload is a Deployment with what the Services want of it.
type workload struct {
	Deployment
	selected bool
	pods     []string
	ready    int
	ports    map[target]uint16 // asked for, to served on
	behaviour
}

func (w *workload) ref() string { return "Deployment/" + w.Namespace + "/" + w.Name }

// target finds the port of the pods that a Service's port points to. It is
// false if they have none of that name, or for SCTP, which isn't served.
func (w *workload) target(sp corev1.ServicePort) (target, bool) {
	if sp.Protocol == corev1.ProtocolSCTP {
		return target{}, false
	}
	t := target{udp: sp.Protocol == corev1.ProtocolUDP}
	if sp.TargetPort.Type == intstr.Int {
		port := sp.TargetPort.IntVal
		if port == 0 {
			port = sp.Port
		}
		t.port = uint16(port)
		return t, port > 0 && port <= 65535
	}
	for _, c := range w.Spec.Template.Spec.Containers {
		for _, cp := range c.Ports {
			if cp.Name == sp.TargetPort.StrVal && (cp.Protocol == corev1.ProtocolUDP) == t.udp && cp.ContainerPort > 0 && cp.ContainerPort <= 65535 {
				t.port = uint16(cp.ContainerPort)
				return t, true
			}
		}
	}
	return t, false
}

// size decides how many pods of a Deployment run and where they listen.
func (p *plan) size(w *workload, lim limits, replicas, listeners *int) {
	wanted := 1
	if w.Spec.Replicas != nil {
		wanted = int(*w.Spec.Replicas)
	}
	n := min(wanted, *replicas)
	if len(w.ports) > 0 {
		n = min(n, *listeners/len(w.ports))
	}
	if n < wanted {
		p.fail(w, lim, "%d of its %d replicas run: a cluster has at most %d replicas with %d listeners in all, ask for fewer", n, wanted, lim.replicas, lim.listeners)
	}
	*replicas -= n
	*listeners -= n * len(w.ports)
	for i := range n {
		w.pods = append(w.pods, podName(lim.cluster, w.Namespace, w.Name, i))
	}
	w.ready = n
	if ready, ok := p.count(w, lim, AnnotationReady, "all of them are ready"); ok {
		w.ready = ready
	}
	if n > 0 {
		p.moved = append(p.moved, w.move(lim.lowest)...)
	}
}

// move gives each port that can't be bound one that can, free of the others.
func (w *workload) move(lowest uint16) (moves []move) {
	targets := make([]target, 0, len(w.ports))
	used := map[target]bool{}
	for t := range w.ports {
		targets = append(targets, t)
		used[t] = true
	}
	slices.SortFunc(targets, func(a, b target) int { return cmp.Or(cmp.Compare(a.port, b.port), compareBool(a.udp, b.udp)) })
	for _, t := range targets {
		if t.port >= lowest {
			continue
		}
		to := target{loopback.MovedPort(t.port), t.udp}
		// A plan has fewer listeners than there are steps, so this ends.
		for used[to] || to.port < lowest {
			to.port += 1000
		}
		used[to] = true
		w.ports[t] = to.port
		moves = append(moves, move{w.ref(), t.port, to.port})
	}
	return moves
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// service makes up the slices of one Service: one for each set of ports that
// its pods have, since a named targetPort may differ between Deployments.
func (p *plan) service(s Service, backing []*workload, lim limits, taken map[cluster.Ref]bool) {
	if len(backing) == 0 {
		return
	}
	fail := func(format string, args ...any) {
		p.problems = append(p.problems, cluster.Problem{Cluster: lim.cluster, Where: s.Origin, Object: "Service/" + s.Namespace + "/" + s.Name, Message: fmt.Sprintf(format, args...)})
	}
	for _, sp := range s.Spec.Ports {
		switch {
		case sp.Protocol == corev1.ProtocolSCTP:
			fail("port %d is left out: the built-in servers don't speak SCTP", sp.Port)
		case !slices.ContainsFunc(backing, func(w *workload) bool { _, ok := w.target(sp); return ok }):
			fail("targetPort %q of port %d is left out: no container of %s has a port of that name and protocol", sp.TargetPort.String(), sp.Port, backing[0].ref())
		}
	}
	groups := map[string]*slice{}
	for _, w := range backing {
		ports, needs, key := w.resolve(s)
		g := groups[key]
		if g == nil {
			g = &slice{service: s.Name, origin: s.Origin, ports: ports}
			groups[key] = g
		}
		for i, pod := range w.pods {
			e := endpoint{namespace: w.Namespace, pod: pod, ready: i < w.ready || s.Spec.PublishNotReadyAddresses}
			for _, t := range needs {
				l := listener{w.Namespace, pod, t.port, t.udp}
				e.needs = append(e.needs, l)
				p.servers[l] = w.server(s, p.servers[l], t.accepts, i)
			}
			g.endpoints = append(g.endpoints, e)
		}
	}
	keys := make([]string, 0, len(groups))
	for k := range groups {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	n := 1
	for _, k := range keys {
		g := groups[k]
		for {
			name := s.Name + "-workload"
			if n > 1 {
				name += "-" + strconv.Itoa(n)
			}
			n++
			g.ref = cluster.Ref{Kind: cluster.KindEndpointSlice, Namespace: s.Namespace, Name: name}
			if !taken[g.ref] {
				break
			}
		}
		p.slices = append(p.slices, *g)
	}
}

// resolve gives a Service's ports as this workload's pods serve them, and a key
// that equal ports share.
func (w *workload) resolve(s Service) (ports []cluster.EndpointPort, needs []need, key string) {
	var b strings.Builder
	for _, sp := range s.Spec.Ports {
		t, ok := w.target(sp)
		if !ok {
			continue
		}
		port := cluster.EndpointPort{Name: sp.Name, Port: w.ports[t], Protocol: string(corev1.ProtocolTCP)}
		if t.udp {
			port.Protocol = string(corev1.ProtocolUDP)
		}
		if sp.AppProtocol != nil {
			port.AppProtocol = *sp.AppProtocol
		}
		ports = append(ports, port)
		n := need{target{port.Port, t.udp}, acceptsOf(port.AppProtocol)}
		if i := slices.IndexFunc(needs, func(o need) bool { return o.target == n.target }); i < 0 {
			needs = append(needs, n)
		} else if needs[i].accepts != n.accepts {
			needs[i].accepts = echo.AcceptAny
		}
		fmt.Fprintf(&b, "%q %05d %s;", port.Name, port.Port, port.Protocol)
	}
	return ports, needs, b.String()
}

// podName looks like Kubernetes', but is the same at each start.
func podName(id cluster.ID, namespace, deployment string, i int) string {
	h := fnv.New32a()
	fmt.Fprintf(h, "%s/%s/%s", id, namespace, deployment)
	return fmt.Sprintf("%s-%s-%d", deployment[:min(len(deployment), 230)], rand.SafeEncodeString(strconv.FormatUint(uint64(h.Sum32()), 10)), i)
}

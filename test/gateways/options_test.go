package gateways

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/test/conformance/fleet"
)

func optionsOf(name, data string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + ", namespace: shop}\ndata:\n" + data
}

// Every option does what it says; a class's are its Gateways', until they have their own.
func (w *world) options() {
	t := w.T
	gateway := func(infrastructure string) {
		w.apply(`
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: optioned, namespace: shop}
spec:
  gatewayClassName: optioned
  infrastructure: {` + infrastructure + `}
  listeners: [{name: http, port: 80, protocol: HTTP}]
`)
	}
	w.apply(optionsOf("of-the-class", "  replicas: '2'\n  accessLog: 'the class logs %REQ(:PATH)% %RESPONSE_CODE%'\n  logLevel: info\n") + `---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: optioned}
spec: {controllerName: causeway.dev/gateway-controller, parametersRef: {group: "", kind: ConfigMap, namespace: shop, name: of-the-class}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: optioned, namespace: shop}
spec:
  parentRefs: [{name: optioned}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
`)
	gateway("")
	address := w.programmed("optioned")
	w.deployed("optioned", func(d *appsv1.Deployment) error {
		if d.Status.AvailableReplicas != 2 || !slices.Contains(d.Spec.Template.Spec.Containers[0].Args, "--log-level=info") {
			return fmt.Errorf("%d of %d pods, %v", d.Status.AvailableReplicas, *d.Spec.Replicas, d.Spec.Template.Spec.Containers[0].Args)
		}
		return nil
	})
	w.logged("optioned", "http://"+address+"/one", "the class logs /one 200\n")

	// Its own come first, one by one.
	w.apply(optionsOf("its-own", "  accessLog: 'the Gateway logs %REQ(X-NONE?:METHOD)% %REQ(:PATH):5%'\n  resources: 'requests: {cpu: 20m, memory: 70Mi}'\n  serviceType: NodePort\n"))
	own := `labels: {team: shop}, annotations: {example.com/a: b}, parametersRef: {group: "", kind: ConfigMap, name: its-own}`
	gateway(own)
	w.served("optioned", corev1.ServiceTypeNodePort)
	w.deployed("optioned", func(d *appsv1.Deployment) error {
		c := d.Spec.Template.Spec.Containers[0]
		if *d.Spec.Replicas != 2 || c.Resources.Requests.Memory().String() != "70Mi" || !slices.Contains(c.Args, "--log-level=info") || d.Labels["team"] != "shop" || d.Spec.Template.Annotations["example.com/a"] != "b" {
			return fmt.Errorf("%d pods, %v, %v, %v", *d.Spec.Replicas, c.Resources, c.Args, d.ObjectMeta)
		}
		return nil
	})
	budget, err := w.core.PolicyV1().PodDisruptionBudgets(ns).Get(t.Context(), "optioned-optioned", metav1.GetOptions{})
	if err != nil || budget.Spec.MaxUnavailable.IntValue() != 1 || budget.Labels["team"] != "shop" {
		t.Errorf("PodDisruptionBudget %+v: %v", budget, err)
	}
	if _, err := w.core.CoreV1().ServiceAccounts(ns).Get(t.Context(), "optioned-optioned", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
	w.apply(optionsOf("its-own", "  accessLog: 'the Gateway logs %REQ(X-NONE?:METHOD)% %REQ(:PATH):5%'\n  serviceType: ClusterIP\n"))
	w.served("optioned", corev1.ServiceTypeClusterIP)
	w.apply(optionsOf("its-own", "  accessLog: 'the Gateway logs %REQ(X-NONE?:METHOD)% %REQ(:PATH):5%'\n"))
	w.served("optioned", corev1.ServiceTypeLoadBalancer)
	address = w.programmed("optioned") // of the load balancer, which gives any that is free
	w.logged("optioned", "http://"+address+"/two/and/more", "the Gateway logs GET /two/\n")

	// What is wrong with the class is said of it and of its Gateways, and takes nothing away.
	w.apply(optionsOf("of-the-class", "  replicas: several\n"))
	w.classIs("optioned", metav1.ConditionFalse, gatewayv1.GatewayClassReasonInvalidParameters)
	w.awaits("optioned", gatewayv1.GatewayConditionAccepted, metav1.ConditionFalse, gatewayv1.GatewayReasonInvalidParameters)
	fleet.Stays(t, "what there is stays", func() error {
		d, err := w.core.AppsV1().Deployments(ns).Get(t.Context(), "optioned-optioned", metav1.GetOptions{})
		if err == nil && *d.Spec.Replicas != 2 {
			err = fmt.Errorf("%d pods", *d.Spec.Replicas)
		}
		return errors.Join(err, answers(fresh(), "http://"+address+"/", "any.example.com"))
	})
	// An edit of the class's options is one of its Gateways'.
	w.apply(optionsOf("of-the-class", "  replicas: '1'\n"))
	w.classIs("optioned", metav1.ConditionTrue, gatewayv1.GatewayClassReasonAccepted)
	w.deployed("optioned", func(d *appsv1.Deployment) error {
		if *d.Spec.Replicas != 1 {
			return fmt.Errorf("%d pods", *d.Spec.Replicas)
		}
		return nil
	})
	w.programmed("optioned")
}

func (w *world) classIs(name string, status metav1.ConditionStatus, reason gatewayv1.GatewayClassConditionReason) {
	w.Helper()
	fleet.Eventually(w, fmt.Sprintf("GatewayClass %s: Accepted=%s %s", name, status, reason), func() error {
		u, err := w.objects.Resource(gateways.GroupVersion().WithResource("gatewayclasses")).Get(w.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		return said(u, fmt.Sprintf("- Accepted=%s %s", status, reason))
	})
}

// deployed awaits that the Deployment of a Gateway is as it is to be, and all of its pods are.
func (w *world) deployed(class string, is func(*appsv1.Deployment) error) {
	w.Helper()
	fleet.Eventually(w, "the Deployment of Gateway "+class, func() error {
		d, err := w.core.AppsV1().Deployments(ns).Get(w.Context(), class+"-"+class, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if s := d.Status; s.ObservedGeneration != d.Generation || s.UpdatedReplicas != *d.Spec.Replicas || s.AvailableReplicas != s.UpdatedReplicas || s.Replicas != s.UpdatedReplicas {
			return fmt.Errorf("rolling out: %+v", s)
		}
		return is(d)
	})
}

// served awaits that a Gateway is programmed with a Service of a type, at the addresses of that.
func (w *world) served(name string, kind corev1.ServiceType) {
	w.Helper()
	fleet.Eventually(w, fmt.Sprintf("Gateway %s has a Service of type %s", name, kind), func() error {
		s, err := w.core.CoreV1().Services(ns).Get(w.Context(), name+"-"+name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		g, err := w.gateway(name)
		if err != nil {
			return err
		}
		at := s.Spec.ClusterIP
		if kind == corev1.ServiceTypeLoadBalancer && len(s.Status.LoadBalancer.Ingress) > 0 {
			at = s.Status.LoadBalancer.Ingress[0].IP
		}
		ok := slices.ContainsFunc(g.Status.Conditions, func(c metav1.Condition) bool {
			return c.Type == string(gatewayv1.GatewayConditionProgrammed) && c.Status == metav1.ConditionTrue && c.ObservedGeneration == g.Generation
		})
		if s.Spec.Type != kind || !ok || len(g.Status.Addresses) != 1 || g.Status.Addresses[0].Value != at {
			return fmt.Errorf("the Service is of type %s at %s; the Gateway says %+v, %+v", s.Spec.Type, at, g.Status.Addresses, g.Status.Conditions)
		}
		if kind == corev1.ServiceTypeNodePort && s.Spec.Ports[0].NodePort == 0 {
			return fmt.Errorf("no port of nodes: %+v", s.Spec.Ports)
		}
		return nil
	})
}

// logged awaits that a request is found in the access log of one of a Gateway's pods.
func (w *world) logged(gateway, url, line string) {
	w.Helper()
	fleet.Eventually(w, "the access log has "+line, func() error {
		if err := answers(fresh(), url, "any.example.com"); err != nil {
			return err
		}
		names, err := w.pods(gateway)
		if err != nil {
			return err
		}
		var all []byte
		for _, name := range names {
			log, err := w.core.CoreV1().Pods(ns).GetLogs(name, &corev1.PodLogOptions{TailLines: new(int64(20))}).DoRaw(w.Context())
			if err != nil {
				return err
			}
			all = append(all, log...)
		}
		if !bytes.Contains(all, []byte(line)) {
			return fmt.Errorf("it is %s", all)
		}
		return nil
	})
}

// Objects of others are never written to, and what others write of a route stays.
func (w *world) strangers() {
	t := w.T
	w.apply(`
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: stranger}
spec: {controllerName: example.com/controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: theirs, namespace: shop}
spec: {gatewayClassName: stranger, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: theirs, namespace: shop}
spec:
  parentRefs: [{name: theirs}]
  rules: [{backendRefs: [{name: none, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: both, namespace: shop}
spec:
  parentRefs: [{name: theirs}, {name: ours}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
`)
	routes := w.objects.Resource(httpRoutes).Namespace(ns)
	const verdict = `{"parentRef":{"group":"gateway.networking.k8s.io","kind":"Gateway","name":"theirs"},"controllerName":"example.com/controller","conditions":[{"type":"Accepted","status":"False","reason":"Whatever","message":"theirs to say","lastTransitionTime":"2026-01-01T00:00:00Z"}]}`
	if _, err := routes.Patch(t.Context(), "both", types.MergePatchType, []byte(`{"status":{"parents":[`+verdict+`]}}`), metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	before := w.untouched()
	w.apply(`
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: ours, namespace: shop}
spec: {gatewayClassName: causeway, listeners: [{name: http, port: 80, protocol: HTTP}]}
`)
	w.programmed("ours")
	fleet.Eventually(t, "our verdict stands beside the other's", func() error {
		u, err := routes.Get(t.Context(), "both", metav1.GetOptions{})
		if err != nil {
			return err
		}
		route := &gatewayv1.HTTPRoute{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, route); err != nil {
			return err
		}
		p := route.Status.Parents
		if len(p) != 2 || p[0].ControllerName != "example.com/controller" || p[0].Conditions[0].Message != "theirs to say" || p[1].ParentRef.Name != "ours" {
			return fmt.Errorf("parents %+v", p)
		}
		return said(u, "parent Accepted=True Accepted")
	})
	w.removed("ours")
	if after := w.untouched(); !slices.Equal(before, after) {
		t.Errorf("objects of another controller were %v and are %v", before, after)
	}
	if p, err := w.pods("theirs"); err != nil || len(p) > 0 {
		t.Errorf("somebody else's Gateway has the pods %v (%v)", p, err)
	}
}

// untouched tells the versions of another controller's objects.
func (w *world) untouched() (versions []string) {
	w.Helper()
	class, err := w.objects.Resource(gateways.GroupVersion().WithResource("gatewayclasses")).Get(w.Context(), "stranger", metav1.GetOptions{})
	if err != nil {
		w.Fatal(err)
	}
	gateway, err := w.objects.Resource(gateways).Namespace(ns).Get(w.Context(), "theirs", metav1.GetOptions{})
	if err != nil {
		w.Fatal(err)
	}
	route, err := w.objects.Resource(httpRoutes).Namespace(ns).Get(w.Context(), "theirs", metav1.GetOptions{})
	if err != nil {
		w.Fatal(err)
	}
	return []string{class.GetResourceVersion(), gateway.GetResourceVersion(), route.GetResourceVersion()}
}

package resolve

import (
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/parameters"
)

// equip reads what a Gateway asks of its pods and its Service, and tells why it can't have
// that. What can be read is there all the same.
func (r *reader) equip(g *gatewayView) *problem {
	var first *problem
	note := func(p *problem) {
		if first == nil {
			first = p
		}
	}
	for i, a := range g.spec.Spec.Addresses {
		switch t := deref(a.Type, gatewayv1.IPAddressType); t {
		case gatewayv1.IPAddressType, gatewayv1.HostnameAddressType:
			if a.Value != "" {
				g.infrastructure.Addresses = append(g.infrastructure.Addresses, a)
			}
		default:
			note(&problem{string(gatewayv1.GatewayReasonUnsupportedAddress), fmt.Sprintf("addresses[%d]: type %s is not supported: use IPAddress or Hostname", i, clip(string(t)))})
		}
	}
	var own *gatewayv1.LocalParametersReference
	if i := g.spec.Spec.Infrastructure; i != nil {
		own = i.ParametersRef
		for k, v := range i.Labels {
			put(&g.infrastructure.Labels, string(k), string(v))
		}
		for k, v := range i.Annotations {
			put(&g.infrastructure.Annotations, string(k), string(v))
		}
	}
	refuse := func(where, why string) {
		note(&problem{string(gatewayv1.GatewayReasonInvalidParameters), where + why})
	}
	// The Gateway's own options override those of its class (GEP-1867).
	options := map[string]string{}
	class := string(g.spec.Spec.GatewayClassName)
	data, why := r.classOptions(class)
	if maps.Copy(options, data); why != "" {
		refuse(fmt.Sprintf("GatewayClass %s: parametersRef: ", clip(class)), why)
	}
	if own != nil {
		data, why := r.options(string(own.Group), string(own.Kind), g.obj.Namespace, own.Name)
		if maps.Copy(options, data); why != "" {
			refuse("infrastructure.parametersRef: ", why)
		}
	}
	g.infrastructure.Parameters, _ = parameters.Parse(options) // what is wrong was said with its place
	return first
}

// classOptions are those of this cluster's GatewayClass, and what is wrong with them.
func (r *reader) classOptions(name string) (data map[string]string, why string) {
	o := r.get(r.local, cluster.KindGatewayClass, "", name)
	if o == nil {
		return nil, "" // ours exist without an object
	}
	c, ok := o.Value.(*gatewayv1.GatewayClass)
	if !ok || c.Spec.ParametersRef == nil {
		return nil, ""
	}
	ref := c.Spec.ParametersRef
	if deref(ref.Namespace, "") == "" && ref.Group == "" && ref.Kind == gatewayv1.Kind(cluster.KindConfigMap) {
		return nil, "namespace is missing: say in which one the ConfigMap is"
	}
	return r.options(string(ref.Group), string(ref.Kind), string(deref(ref.Namespace, "")), ref.Name)
}

// options reads those that a reference leads to, and tells what is wrong with them: then
// there may be some all the same.
func (r *reader) options(group, kind, ns, name string) (data map[string]string, why string) {
	if group != "" || kind != string(cluster.KindConfigMap) {
		return nil, fmt.Sprintf("parameters of kind %s are not supported: use a ConfigMap", kindText(group, kind))
	}
	o := r.get(r.local, cluster.KindConfigMap, ns, name)
	if o == nil {
		return nil, fmt.Sprintf("there is no ConfigMap %s/%s", clip(ns), clip(name))
	}
	m, ok := o.Value.(*corev1.ConfigMap)
	if !ok {
		return nil, fmt.Sprintf("ConfigMap %s/%s can't be read", clip(ns), clip(name))
	}
	if _, err := parameters.Parse(m.Data); err != nil {
		return m.Data, fmt.Sprintf("ConfigMap %s/%s: %s", clip(ns), clip(name), clipMessage(err.Error()))
	}
	return m.Data, ""
}

func put(m *map[string]string, k, v string) {
	if *m == nil {
		*m = map[string]string{}
	}
	(*m)[k] = v
}

package resolve

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/parameters"
)

// equip reads what a Gateway asks of its pods and its Service, and tells why it can't have
// that.
func (r *reader) equip(g *gatewayView) *problem {
	for i, a := range g.spec.Spec.Addresses {
		switch t := deref(a.Type, gatewayv1.IPAddressType); t {
		case gatewayv1.IPAddressType, gatewayv1.HostnameAddressType:
			if a.Value != "" {
				g.infrastructure.Addresses = append(g.infrastructure.Addresses, a)
			}
		default:
			return &problem{string(gatewayv1.GatewayReasonUnsupportedAddress), fmt.Sprintf("addresses[%d]: type %s is not supported: use IPAddress or Hostname", i, clip(string(t)))}
		}
	}
	i := g.spec.Spec.Infrastructure
	if i == nil {
		return nil
	}
	for k, v := range i.Labels {
		put(&g.infrastructure.Labels, string(k), string(v))
	}
	for k, v := range i.Annotations {
		put(&g.infrastructure.Annotations, string(k), string(v))
	}
	ref := i.ParametersRef
	if ref == nil {
		return nil
	}
	refuse := func(format string, a ...any) *problem {
		return &problem{string(gatewayv1.GatewayReasonInvalidParameters), "infrastructure.parametersRef: " + fmt.Sprintf(format, a...)}
	}
	if ref.Group != "" || ref.Kind != gatewayv1.Kind(cluster.KindConfigMap) {
		return refuse("parameters of kind %s are not supported: use a ConfigMap", kindText(string(ref.Group), string(ref.Kind)))
	}
	o := r.get(r.local, cluster.KindConfigMap, g.obj.Namespace, ref.Name)
	if o == nil {
		return refuse("there is no ConfigMap %s/%s", g.obj.Namespace, clip(ref.Name))
	}
	m, ok := o.Value.(*corev1.ConfigMap)
	if !ok {
		return refuse("ConfigMap %s/%s can't be read", g.obj.Namespace, clip(ref.Name))
	}
	var err error
	if g.infrastructure.Parameters, err = parameters.Parse(m.Data); err != nil {
		return refuse("ConfigMap %s/%s: %s", g.obj.Namespace, clip(ref.Name), clipMessage(err.Error()))
	}
	return nil
}

func put(m *map[string]string, k, v string) {
	if *m == nil {
		*m = map[string]string{}
	}
	(*m)[k] = v
}

package file

import (
	discoveryv1 "k8s.io/api/discovery/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/causeway-mesh/causeway/cluster"
)

// Bounds of the EndpointSlice API.
const (
	maxEndpoints        = 1000
	maxEndpointAddress  = 100
	maxEndpointPorts    = 20_000
	maxEndpointHostname = 63
)

func readEndpointSlice(_ *reader, d *document) (any, *metav1.ObjectMeta) {
	var o discoveryv1.EndpointSlice
	d.core(&o, &o.ObjectMeta, apivalidation.NameIsDNSSubdomain)
	if len(d.problems) > 0 {
		return nil, &o.ObjectMeta
	}
	packed, errs := pack(&o)
	d.fails(errs)
	return packed, &o.ObjectMeta
}

// pack validates an EndpointSlice and keeps of it what resolution needs. Each
// address becomes an endpoint of its own.
func pack(o *discoveryv1.EndpointSlice) (*cluster.EndpointSlice, field.ErrorList) {
	var errs field.ErrorList
	out := &cluster.EndpointSlice{Service: o.Labels[cluster.LabelServiceName]}
	if out.Service == "" {
		errs = append(errs, field.Required(field.NewPath("metadata", "labels").Key(cluster.LabelServiceName), "it names the Service that the endpoints belong to"))
	}
	switch o.AddressType {
	case discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6:
	case discoveryv1.AddressTypeFQDN:
		return nil, append(errs, field.Invalid(field.NewPath("addressType"), o.AddressType, "names are not looked up: give IPv4 or IPv6 addresses"))
	case "":
		return nil, append(errs, field.Required(field.NewPath("addressType"), "IPv4 or IPv6"))
	default:
		return nil, append(errs, field.NotSupported(field.NewPath("addressType"), o.AddressType, []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6}))
	}
	ports := field.NewPath("ports")
	if len(o.Ports) > maxEndpointPorts {
		errs = append(errs, field.TooMany(ports, len(o.Ports), maxEndpointPorts))
	}
	names := map[string]bool{}
	for i, p := range o.Ports {
		e, ok := cluster.PackPort(&p)
		if e.Name != "" {
			for _, why := range validation.IsDNS1123Label(e.Name) {
				errs = append(errs, field.Invalid(ports.Index(i).Child("name"), e.Name, why))
			}
		}
		if names[e.Name] {
			errs = append(errs, field.Duplicate(ports.Index(i).Child("name"), e.Name))
		}
		names[e.Name] = true
		if p.Protocol != nil {
			errs = append(errs, protocol(*p.Protocol, ports.Index(i).Child("protocol"))...)
		}
		switch {
		case p.Port == nil:
			errs = append(errs, field.Required(ports.Index(i).Child("port"), ""))
			continue
		case !ok:
			errs = append(errs, portNumber(int(*p.Port), ports.Index(i).Child("port"))...)
		}
		out.Ports = append(out.Ports, e)
	}
	endpoints := field.NewPath("endpoints")
	if len(o.Endpoints) > maxEndpoints {
		return nil, append(errs, field.TooMany(endpoints, len(o.Endpoints), maxEndpoints))
	}
	for i := range o.Endpoints {
		at, e := endpoints.Index(i), &o.Endpoints[i]
		switch {
		case len(e.Addresses) == 0:
			errs = append(errs, field.Required(at.Child("addresses"), "an endpoint needs at least one"))
		case len(e.Addresses) > maxEndpointAddress:
			errs = append(errs, field.TooMany(at.Child("addresses"), len(e.Addresses), maxEndpointAddress))
			continue
		}
		packed := cluster.PackEndpoint(e)
		if h := packed.Hostname; h != "" {
			for _, why := range validation.IsDNS1123Label(h) {
				errs = append(errs, field.Invalid(at.Child("hostname"), clipTo(h, maxEndpointHostname), why))
			}
		}
		for j, text := range e.Addresses {
			addr, err := cluster.ParseEndpointAddress(text, o.AddressType)
			if err != nil {
				errs = append(errs, field.Invalid(at.Child("addresses").Index(j), text, err.Error()))
				continue
			}
			packed.Addr = addr
			out.Endpoints = append(out.Endpoints, packed)
		}
	}
	return out, errs
}

func clipTo(s string, n int) string {
	if len(s) > n {
		return s[:n] + "..."
	}
	return s
}

package file

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func readService(_ *reader, d *document) (any, *metav1.ObjectMeta) {
	var o corev1.Service
	d.core(&o, &o.ObjectMeta, apivalidation.NameIsDNS1035Label)
	o.Status = corev1.ServiceStatus{}
	if len(d.problems) == 0 {
		defaultService(&o.Spec)
		d.fails(validateService(&o.Spec))
	}
	return &o, &o.ObjectMeta
}

// defaultService fills in what an API server does, save what it allocates.
func defaultService(s *corev1.ServiceSpec) {
	if s.Type == "" {
		s.Type = corev1.ServiceTypeClusterIP
	}
	if s.SessionAffinity == "" {
		s.SessionAffinity = corev1.ServiceAffinityNone
	}
	if s.SessionAffinity == corev1.ServiceAffinityClientIP {
		if s.SessionAffinityConfig == nil || s.SessionAffinityConfig.ClientIP == nil || s.SessionAffinityConfig.ClientIP.TimeoutSeconds == nil {
			seconds := corev1.DefaultClientIPServiceAffinitySeconds
			s.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &seconds}}
		}
	}
	if s.Type != corev1.ServiceTypeExternalName && s.InternalTrafficPolicy == nil {
		all := corev1.ServiceInternalTrafficPolicyCluster
		s.InternalTrafficPolicy = &all
	}
	if (s.Type == corev1.ServiceTypeNodePort || s.Type == corev1.ServiceTypeLoadBalancer) && s.ExternalTrafficPolicy == "" {
		s.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
	}
	if s.ClusterIP == "" && len(s.ClusterIPs) > 0 {
		s.ClusterIP = s.ClusterIPs[0]
	}
	if s.ClusterIP != "" && len(s.ClusterIPs) == 0 {
		s.ClusterIPs = []string{s.ClusterIP}
	}
	for i := range s.Ports {
		p := &s.Ports[i]
		if p.Protocol == "" {
			p.Protocol = corev1.ProtocolTCP
		}
		if p.TargetPort == (intstr.IntOrString{}) || p.TargetPort == intstr.FromString("") {
			p.TargetPort = intstr.FromInt32(p.Port)
		}
	}
}

func validateService(s *corev1.ServiceSpec) (errs field.ErrorList) {
	spec := field.NewPath("spec")
	headless := s.ClusterIP == corev1.ClusterIPNone
	switch s.Type {
	case corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer:
		if len(s.Ports) == 0 && !headless {
			errs = append(errs, field.Required(spec.Child("ports"), "a Service needs at least one, unless its clusterIP is None"))
		}
		if headless && s.Type != corev1.ServiceTypeClusterIP {
			errs = append(errs, field.Invalid(spec.Child("clusterIP"), s.ClusterIP, "may not be None for a "+string(s.Type)+" Service"))
		}
	case corev1.ServiceTypeExternalName:
		if s.ExternalName == "" {
			errs = append(errs, field.Required(spec.Child("externalName"), "a Service of the type ExternalName needs it"))
		} else {
			for _, why := range validation.IsDNS1123Subdomain(trimDot(s.ExternalName)) {
				errs = append(errs, field.Invalid(spec.Child("externalName"), s.ExternalName, why))
			}
		}
	default:
		errs = append(errs, field.NotSupported(spec.Child("type"), s.Type, []corev1.ServiceType{corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeExternalName}))
	}
	for i, ip := range s.ClusterIPs {
		if ip == corev1.ClusterIPNone && i == 0 {
			continue
		}
		at := spec.Child("clusterIP")
		if i > 0 {
			at = spec.Child("clusterIPs").Index(i)
		}
		if _, err := netip.ParseAddr(ip); err != nil {
			errs = append(errs, field.Invalid(at, ip, "must be None or an IP address"))
		}
	}
	if len(s.ClusterIPs) > 0 && s.ClusterIPs[0] != s.ClusterIP {
		errs = append(errs, field.Invalid(spec.Child("clusterIPs"), s.ClusterIPs, "the first must be clusterIP"))
	}
	errs = append(errs, metav1validation.ValidateLabels(s.Selector, spec.Child("selector"))...)
	switch s.SessionAffinity {
	case corev1.ServiceAffinityNone:
	case corev1.ServiceAffinityClientIP:
		if t := *s.SessionAffinityConfig.ClientIP.TimeoutSeconds; t <= 0 || t > corev1.DefaultClientIPServiceAffinitySeconds*8 {
			errs = append(errs, field.Invalid(spec.Child("sessionAffinityConfig", "clientIP", "timeoutSeconds"), t, "must be from 1 to 86400"))
		}
	default:
		errs = append(errs, field.NotSupported(spec.Child("sessionAffinity"), s.SessionAffinity, []corev1.ServiceAffinity{corev1.ServiceAffinityNone, corev1.ServiceAffinityClientIP}))
	}
	if p := s.InternalTrafficPolicy; p != nil && *p != corev1.ServiceInternalTrafficPolicyCluster && *p != corev1.ServiceInternalTrafficPolicyLocal {
		errs = append(errs, field.NotSupported(spec.Child("internalTrafficPolicy"), *p, []corev1.ServiceInternalTrafficPolicy{corev1.ServiceInternalTrafficPolicyCluster, corev1.ServiceInternalTrafficPolicyLocal}))
	}
	if p := s.TrafficDistribution; p != nil {
		known := []string{corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameZone, corev1.ServiceTrafficDistributionPreferSameNode}
		if *p != known[0] && *p != known[1] && *p != known[2] {
			errs = append(errs, field.NotSupported(spec.Child("trafficDistribution"), *p, known))
		}
	}
	return append(errs, validateServicePorts(s.Ports, spec.Child("ports"))...)
}

func validateServicePorts(ports []corev1.ServicePort, at *field.Path) (errs field.ErrorList) {
	type number struct {
		protocol corev1.Protocol
		port     int32
	}
	names, numbers := map[string]bool{}, map[number]bool{}
	for i, p := range ports {
		at := at.Index(i)
		switch {
		case p.Name == "" && len(ports) > 1:
			errs = append(errs, field.Required(at.Child("name"), "a Service of several ports must name each"))
		case p.Name != "" && names[p.Name]:
			errs = append(errs, field.Duplicate(at.Child("name"), p.Name))
		case p.Name != "":
			for _, why := range validation.IsDNS1123Label(p.Name) {
				errs = append(errs, field.Invalid(at.Child("name"), p.Name, why))
			}
		}
		names[p.Name] = true
		errs = append(errs, portNumber(int(p.Port), at.Child("port"))...)
		errs = append(errs, protocol(p.Protocol, at.Child("protocol"))...)
		n := number{p.Protocol, p.Port}
		if numbers[n] {
			errs = append(errs, field.Duplicate(at.Child("port"), p.Port))
		}
		numbers[n] = true
		if p.TargetPort.Type == intstr.String {
			for _, why := range validation.IsValidPortName(p.TargetPort.StrVal) {
				errs = append(errs, field.Invalid(at.Child("targetPort"), p.TargetPort.StrVal, why))
			}
		} else if p.TargetPort.IntVal != p.Port {
			errs = append(errs, portNumber(int(p.TargetPort.IntVal), at.Child("targetPort"))...)
		}
		if p.AppProtocol != nil {
			for _, why := range validation.IsQualifiedName(*p.AppProtocol) {
				errs = append(errs, field.Invalid(at.Child("appProtocol"), *p.AppProtocol, why))
			}
		}
	}
	return errs
}

func trimDot(s string) string {
	if n := len(s); n > 1 && s[n-1] == '.' {
		return s[:n-1]
	}
	return s
}

package record

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
)

// checkService takes a spec of publicService's making.
func checkService(s *corev1.ServiceSpec) error {
	switch s.Type {
	case "", corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer:
	default:
		return fmt.Errorf("spec.type %q is unknown", shorten(string(s.Type)))
	}
	switch s.SessionAffinity {
	case "", corev1.ServiceAffinityNone, corev1.ServiceAffinityClientIP:
	default:
		return fmt.Errorf("spec.sessionAffinity %q is unknown", shorten(string(s.SessionAffinity)))
	}
	if c := s.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
		if t := *c.ClientIP.TimeoutSeconds; t < 1 || t > 86400 {
			return fmt.Errorf("spec.sessionAffinityConfig.clientIP.timeoutSeconds is %d, not from 1 to 86400", t)
		}
	}
	if p := s.InternalTrafficPolicy; p != nil && *p != corev1.ServiceInternalTrafficPolicyCluster && *p != corev1.ServiceInternalTrafficPolicyLocal {
		return fmt.Errorf("spec.internalTrafficPolicy %q is unknown", shorten(string(*p)))
	}
	if p := s.TrafficDistribution; p != nil && (len(*p) > 253 || !plain(*p)) {
		return fmt.Errorf("spec.trafficDistribution is longer than 253 bytes or has control characters")
	}
	if p := s.IPFamilyPolicy; p != nil {
		switch *p {
		case corev1.IPFamilyPolicySingleStack, corev1.IPFamilyPolicyPreferDualStack, corev1.IPFamilyPolicyRequireDualStack:
		default:
			return fmt.Errorf("spec.ipFamilyPolicy %q is unknown", shorten(string(*p)))
		}
	}
	if len(s.IPFamilies) > 2 || slices.ContainsFunc(s.IPFamilies, func(f corev1.IPFamily) bool { return f != corev1.IPv4Protocol && f != corev1.IPv6Protocol }) {
		return fmt.Errorf("spec.ipFamilies is not one or both of IPv4 and IPv6")
	}
	if n := len(s.Ports); n > maxServicePorts {
		return fmt.Errorf("spec.ports %w", tooMany("items", n, maxServicePorts))
	}
	type number struct {
		protocol corev1.Protocol
		port     int32
	}
	names, numbers := map[string]bool{}, map[number]bool{}
	for _, p := range s.Ports {
		if p.Port < 1 || p.Port > 65535 {
			return fmt.Errorf("port %d is not from 1 to 65535", p.Port)
		}
		app := ""
		if p.AppProtocol != nil {
			app = *p.AppProtocol
		}
		if err := checkPort(p.Name, string(p.Protocol), app); err != nil {
			return err
		}
		if p.Name == "" && len(s.Ports) > 1 {
			return fmt.Errorf("port %d has no name, which each of several ports needs", p.Port)
		}
		if n := (number{p.Protocol, p.Port}); names[p.Name] || numbers[n] {
			return fmt.Errorf("port %q (%d/%s) is given twice", p.Name, p.Port, p.Protocol)
		} else {
			names[p.Name], numbers[n] = true, true
		}
	}
	return nil
}

func checkExport(s *mcsv1beta1.ServiceExportSpec) error {
	if err := checkMetadata(s.ExportedLabels, s.ExportedAnnotations); err != nil {
		return fmt.Errorf("exported: %w", err)
	}
	return nil
}

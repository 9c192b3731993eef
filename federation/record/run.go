package record

import (
	"fmt"
	"net/netip"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
)

// runDocument is the JSON of a cluster.GatewayRun.
type runDocument struct {
	Metadata metav1.ObjectMeta  `json:"metadata"`
	Spec     cluster.GatewayRun `json:"spec"`
}

func encodeRun(value any) (document, error) {
	v, ok := value.(*cluster.GatewayRun)
	if !ok {
		return document{}, fmt.Errorf("holds a %T", value)
	}
	return document{Spec: v}, checkRun(v)
}

func decodeRun(data []byte, ref cluster.Ref) (any, error) {
	var d runDocument
	if err := unmarshal(data, ref, &d, &d.Metadata, nil); err != nil {
		return nil, err
	}
	// An older or a hostile writer may say more than crosses.
	plainConditions(d.Spec.Conditions)
	for i := range d.Spec.Listeners {
		plainConditions(d.Spec.Listeners[i].Conditions)
	}
	return &d.Spec, checkRun(&d.Spec)
}

func plainConditions(list []metav1.Condition) {
	for i, c := range list {
		list[i] = metav1.Condition{Type: c.Type, Status: c.Status, Reason: c.Reason, Message: c.Message}
	}
}

// checkRun lets pass what may stand in a Gateway's status, and in the messages there.
func checkRun(v *cluster.GatewayRun) error {
	if err := v.Home.Validate(); err != nil {
		return err
	}
	if err := checkRunConditions(v.Conditions); err != nil {
		return err
	}
	if n := len(v.Addresses); n > cluster.MaxRunAddresses {
		return tooMany("addresses", n, cluster.MaxRunAddresses)
	}
	for _, a := range v.Addresses {
		if err := checkRunAddress(a); err != nil {
			return err
		}
	}
	if n := len(v.Listeners); n > cluster.MaxRunListeners {
		return tooMany("listeners", n, cluster.MaxRunListeners)
	}
	seen := make(map[string]bool, len(v.Listeners))
	for _, l := range v.Listeners {
		if len(validation.IsDNS1123Subdomain(l.Name)) > 0 || seen[l.Name] {
			return fmt.Errorf("listener %q is no name, or is there twice", shorten(l.Name))
		}
		seen[l.Name] = true
		if err := checkRunConditions(l.Conditions); err != nil {
			return fmt.Errorf("listener %q: %w", l.Name, err)
		}
	}
	return nil
}

func checkRunConditions(list []metav1.Condition) error {
	seen := make(map[string]bool, len(list))
	for _, c := range list {
		switch {
		case !cluster.RunCondition(c.Type) || seen[c.Type]:
			return fmt.Errorf("condition %q is none that crosses, or is there twice", shorten(c.Type))
		case c.Status != metav1.ConditionTrue && c.Status != metav1.ConditionFalse && c.Status != metav1.ConditionUnknown:
			return fmt.Errorf("condition %s has the status %q", c.Type, shorten(string(c.Status)))
		case len(c.Reason) > 128 || !conditionReason.MatchString(c.Reason):
			return fmt.Errorf("condition %s has the reason %q, which is none by Kubernetes", c.Type, shorten(c.Reason))
		case len(c.Message) > cluster.MaxRunMessage || !plain(c.Message):
			return fmt.Errorf("the message of condition %s has more than %d bytes, or control characters", c.Type, cluster.MaxRunMessage)
		}
		seen[c.Type] = true
	}
	return nil
}

func checkRunAddress(a gatewayv1.GatewayStatusAddress) error {
	kind := gatewayv1.IPAddressType
	if a.Type != nil {
		kind = *a.Type
	}
	switch kind {
	case gatewayv1.IPAddressType:
		addr, err := netip.ParseAddr(a.Value)
		if err != nil || addr.Zone() != "" || addr.IsUnspecified() || addr.IsMulticast() {
			return fmt.Errorf("address %q is no IP address that can be connected to", shorten(a.Value))
		}
	case gatewayv1.HostnameAddressType:
		if len(validation.IsDNS1123Subdomain(a.Value)) > 0 {
			return fmt.Errorf("address %q is not a DNS name", shorten(a.Value))
		}
	default:
		return fmt.Errorf("address %q is of type %q, not IPAddress or Hostname", shorten(a.Value), shorten(string(kind)))
	}
	return nil
}

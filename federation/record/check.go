package record

import (
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/causeway-mesh/causeway/cluster"
)

// Bounds. Where Kubernetes has one, ours is not below it.
const (
	maxCrossing     = 64
	maxAuthorities  = 16
	maxBundleBytes  = 64 << 10
	maxEndpoints    = 1000 // discovery.k8s.io/v1
	maxSlicePorts   = 100  // discovery.k8s.io/v1
	maxServicePorts = 1000
	maxString       = 4096 // the longest string in a Gateway API spec: header values
	maxItems        = 128  // the longest list in a Gateway API spec
	maxDepth        = 32
)

func tooMany(what string, n, most int) error {
	return fmt.Errorf("has %d %s, at most %d are read", n, what, most)
}

var (
	trustDomain = regexp.MustCompile(`^[a-z0-9._-]{1,255}$`) // SPIFFE ID standard, section 2.1
	portName    = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)

	conditionReason = regexp.MustCompile(`^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$`) // metav1.Condition
)

func checkMeta(m cluster.Meta) error {
	for _, f := range []struct{ name, value string }{{"region", m.Region}, {"zone", m.Zone}, {"network", m.Network}} {
		if len(f.value) > 253 || !plain(f.value) {
			return fmt.Errorf("%s %q is longer than 253 bytes or has control characters", f.name, shorten(f.value))
		}
	}
	if m.TrustDomain != "" && !trustDomain.MatchString(m.TrustDomain) {
		return fmt.Errorf("trust domain %q is none by the SPIFFE ID standard: use at most 255 lower-case letters, digits, '.', '-' and '_'", shorten(m.TrustDomain))
	}
	if n := len(m.Crossing); n > maxCrossing {
		return tooMany("crossing gateways", n, maxCrossing)
	}
	for _, c := range m.Crossing {
		host, port, err := net.SplitHostPort(c)
		if err == nil {
			err = checkHost(host)
		}
		if err == nil {
			var n uint64
			if n, err = strconv.ParseUint(port, 10, 16); err == nil && n == 0 {
				err = fmt.Errorf("port 0")
			}
		}
		if err != nil {
			return fmt.Errorf("crossing gateway %q is not host:port: %w", shorten(c), err)
		}
	}
	return nil
}

func checkHost(host string) error {
	if addr, err := netip.ParseAddr(host); err == nil {
		if addr.Zone() != "" || addr.IsUnspecified() || addr.IsMulticast() {
			return fmt.Errorf("address %s can't be connected to", addr)
		}
		return nil
	}
	if why := validation.IsDNS1123Subdomain(host); len(why) > 0 {
		return fmt.Errorf("host %q is neither an address nor a DNS name", shorten(host))
	}
	return nil
}

func checkAuthorities(td string, authorities [][]byte) error {
	if !trustDomain.MatchString(td) {
		return fmt.Errorf("trust domain %q is none by the SPIFFE ID standard", shorten(td))
	}
	if len(authorities) == 0 {
		return fmt.Errorf("holds no authority")
	}
	if n := len(authorities); n > maxAuthorities {
		return tooMany("authorities", n, maxAuthorities)
	}
	size := 0
	for _, der := range authorities {
		if size += len(der); size > maxBundleBytes {
			return fmt.Errorf("has more than %d bytes", maxBundleBytes)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("an authority is no certificate: %w", err)
		}
		if !c.BasicConstraintsValid || !c.IsCA {
			return fmt.Errorf("certificate %q is not a CA's", shorten(c.Subject.String()))
		}
		for _, u := range c.URIs {
			if u.Scheme == "spiffe" && !sameDomain(u, td) {
				return fmt.Errorf("certificate %q is of another trust domain, %q", shorten(c.Subject.String()), shorten(u.Host))
			}
		}
	}
	return nil
}

func sameDomain(u *url.URL, td string) bool { return u.Host == td }

func checkMetadata(labels, annotations map[string]string) error {
	errs := metav1validation.ValidateLabels(labels, field.NewPath("metadata", "labels"))
	errs = append(errs, apivalidation.ValidateAnnotations(annotations, field.NewPath("metadata", "annotations"))...)
	for k, v := range annotations {
		if !utf8.ValidString(v) {
			errs = append(errs, field.Invalid(field.NewPath("metadata", "annotations").Key(k), "", "is not UTF-8"))
		}
	}
	// They come in the order of maps; every reader has to name the same one.
	slices.SortFunc(errs, func(a, b *field.Error) int { return strings.Compare(a.Error(), b.Error()) })
	return first(errs)
}

// first gives one of many errors: who writes a thousand is told of one.
func first(errs field.ErrorList) error {
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("%s: %s", errs[0].Field, shorten(errs[0].ErrorBody()))
}

func checkSlice(s *cluster.EndpointSlice) error {
	if n := len(s.Endpoints); n > maxEndpoints {
		return tooMany("endpoints", n, maxEndpoints)
	}
	if c := s.Counts; c != nil {
		if len(s.Endpoints) > 0 {
			return fmt.Errorf("has both endpoints and counts of them")
		}
		// The sum alone could wrap around.
		if n := max(c.Ready, c.NotReady, c.Leaving, c.Ready+c.NotReady+c.Leaving); n > maxEndpoints {
			return tooMany("endpoints", int(n), maxEndpoints)
		}
	}
	if n := len(s.Ports); n > maxSlicePorts {
		return tooMany("ports", n, maxSlicePorts)
	}
	seen := make(map[string]bool, len(s.Ports))
	for _, p := range s.Ports {
		if p.Port == 0 {
			return fmt.Errorf("port %q has no number", shorten(p.Name))
		}
		if err := checkPort(p.Name, p.Protocol, p.AppProtocol); err != nil {
			return err
		}
		if seen[p.Name] {
			return fmt.Errorf("port %q is given twice", p.Name)
		}
		seen[p.Name] = true
	}
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		switch {
		case !e.Addr.IsValid() || e.Addr.Is4In6() || e.Addr.Zone() != "" || e.Addr.IsUnspecified() || e.Addr.IsMulticast():
			return fmt.Errorf("endpoint address %s can't be connected to", e.Addr)
		case len(e.Pod) > 253 || len(e.Hostname) > 63 || len(e.Zone) > 253:
			return fmt.Errorf("endpoint %s has a pod, hostname or zone that is too long", e.Addr)
		case !plain(e.Pod) || !plain(e.Hostname) || !plain(e.Zone):
			return fmt.Errorf("endpoint %s has control characters in its pod, hostname or zone", e.Addr)
		case e.Hostname != "" && len(validation.IsDNS1123Label(e.Hostname)) > 0:
			return fmt.Errorf("endpoint %s has hostname %q, which is not a DNS label", e.Addr, e.Hostname)
		case e.Ready && e.Terminating:
			return fmt.Errorf("endpoint %s is both ready and terminating", e.Addr)
		}
	}
	return nil
}

func checkPort(name, protocol, appProtocol string) error {
	if name != "" && (len(name) > 63 || !portName.MatchString(name)) {
		return fmt.Errorf("port name %q is not a DNS label", shorten(name))
	}
	switch protocol {
	case "TCP", "UDP", "SCTP":
	default:
		return fmt.Errorf("protocol %q of port %q is not TCP, UDP or SCTP", shorten(protocol), name)
	}
	if appProtocol != "" && len(validation.IsQualifiedName(appProtocol)) > 0 {
		return fmt.Errorf("appProtocol %q of port %q is not a qualified name", shorten(appProtocol), name)
	}
	return nil
}

// plain reports whether s is UTF-8 without control characters: whatever reaches
// Envoy or a terminal.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] == 0x7f {
			return false
		}
	}
	return utf8.ValidString(s)
}

// checkBounds walks a spec: no string too long or with control characters, no
// list or map too long. Which values make sense is checked beside it.
func checkBounds(spec any) error { return bounds(reflect.ValueOf(spec), "spec", maxDepth) }

func bounds(v reflect.Value, path string, depth int) error {
	if depth == 0 {
		return fmt.Errorf("%s is nested too deep", path)
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			return bounds(v.Elem(), path, depth-1)
		}
	case reflect.String:
		if s := v.String(); len(s) > maxString || !plain(s) {
			return fmt.Errorf("%s is longer than %d bytes or has control characters", path, maxString)
		}
	case reflect.Slice, reflect.Array:
		if n := v.Len(); n > maxItems {
			return fmt.Errorf("%s %w", path, tooMany("items", n, maxItems))
		}
		for i := range v.Len() {
			if err := bounds(v.Index(i), path+"["+strconv.Itoa(i)+"]", depth-1); err != nil {
				return err
			}
		}
	case reflect.Map:
		if n := v.Len(); n > maxItems {
			return fmt.Errorf("%s %w", path, tooMany("items", n, maxItems))
		}
		for it := v.MapRange(); it.Next(); {
			for _, part := range []reflect.Value{it.Key(), it.Value()} {
				if err := bounds(part, path+"[...]", depth-1); err != nil {
					return err
				}
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() {
				if err := bounds(v.Field(i), path+"."+f.Name, depth-1); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

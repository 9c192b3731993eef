// Package parameters reads the options that a Gateway's spec.infrastructure.parametersRef
// and a GatewayClass's spec.parametersRef name: the data of a ConfigMap, each key an option.
// It is pure; the resolver judges by it whether a Gateway is Accepted, and what is provided
// for the Gateway follows it.
package parameters

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/yaml"
)

// The keys of the ConfigMap.
const (
	KeyReplicas    = "replicas"
	KeyResources   = "resources"
	KeyServiceType = "serviceType"
	KeyIPFamilies  = "ipFamilyPolicy"
	KeyImage       = "image"
	KeyLogLevel    = "logLevel"
	KeyAccessLog   = "accessLog"
)

// Parameters are the options of one Gateway. The zero value: none is set.
type Parameters struct {
	// Replicas is how many pods there are to begin with, and again whenever the option
	// changes; in between others may scale.
	Replicas *int32
	// Resources of the Envoy container.
	Resources *corev1.ResourceRequirements
	// ServiceType of the Gateway's Service; empty: LoadBalancer.
	ServiceType corev1.ServiceType
	// IPFamilyPolicy of the Service; empty: the API server's default, one family.
	IPFamilyPolicy corev1.IPFamilyPolicy
	// Image that the pods run: it has to have `causeway proxy` and an Envoy.
	Image string
	// LogLevel of Envoy itself; empty: warning.
	LogLevel string
	// AccessLog is how requests and connections are logged to the container's output:
	// AccessLogJSON, or a line in Envoy's format; empty: not at all.
	AccessLog string
}

// AccessLogJSON asks for an object of JSON for each request.
const AccessLogJSON = "json"

// LogFormat is Envoy's format of the access log, empty for an object of JSON; on is false
// where there is no log.
func (p *Parameters) LogFormat() (format string, on bool) {
	if p.AccessLog == AccessLogJSON {
		return "", true
	}
	return p.AccessLog, p.AccessLog != ""
}

// Bounds of what is taken.
const (
	maxReplicas  = 1000
	maxAccessLog = 4 << 10
	maxResources = 16 << 10
	maxImage     = 1 << 10
	maxWrong     = 10 // that an error names
)

var (
	logLevels = []string{"trace", "debug", "info", "warning", "error", "critical", "off"}
	// image is the grammar of references, in short: a registry with a port, a path, a tag, a
	// digest.
	image = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]+)?(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?$`)
)

// Parse reads the options of a ConfigMap. Its error names each option that is wrong, and
// what it may be; the others are there all the same.
func Parse(data map[string]string) (Parameters, error) {
	var out Parameters
	var wrong []string
	for _, key := range slices.Sorted(maps.Keys(data)) {
		if err := out.set(key, data[key]); err != nil && len(wrong) < maxWrong {
			wrong = append(wrong, fmt.Sprintf("%.80s: %v", key, err))
		}
	}
	if len(wrong) > 0 {
		return out, errors.New(strings.Join(wrong, "; "))
	}
	return out, nil
}

func (p *Parameters) set(key, value string) error {
	value = strings.TrimSpace(value)
	switch key {
	case KeyReplicas:
		n, err := strconv.ParseInt(value, 10, 32)
		if err != nil || n < 1 || n > maxReplicas {
			return fmt.Errorf("%.80q is not a number from 1 to %d", value, maxReplicas)
		}
		replicas := int32(n)
		p.Replicas = &replicas
	case KeyResources:
		r, err := parseResources(value)
		if err != nil {
			return err
		}
		p.Resources = r
	case KeyServiceType:
		switch t := corev1.ServiceType(value); t {
		case corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort, corev1.ServiceTypeClusterIP:
			p.ServiceType = t
		default:
			return fmt.Errorf("%.80q is not LoadBalancer, NodePort or ClusterIP", value)
		}
	case KeyIPFamilies:
		switch f := corev1.IPFamilyPolicy(value); f {
		case corev1.IPFamilyPolicySingleStack, corev1.IPFamilyPolicyPreferDualStack, corev1.IPFamilyPolicyRequireDualStack:
			p.IPFamilyPolicy = f
		default:
			return fmt.Errorf("%.80q is not SingleStack, PreferDualStack or RequireDualStack", value)
		}
	case KeyImage:
		if len(value) > maxImage || !image.MatchString(value) {
			return fmt.Errorf("%.80q is no image: use REGISTRY/REPOSITORY:TAG", value)
		}
		p.Image = value
	case KeyLogLevel:
		if !slices.Contains(logLevels, value) {
			return fmt.Errorf("%.80q is none of %s", value, strings.Join(logLevels, ", "))
		}
		p.LogLevel = value
	case KeyAccessLog:
		return p.setAccessLog(value)
	default:
		return fmt.Errorf("there is no such option: there are %s", strings.Join([]string{KeyAccessLog, KeyImage, KeyIPFamilies, KeyLogLevel, KeyReplicas, KeyResources, KeyServiceType}, ", "))
	}
	return nil
}

// accessLogText is what "text" stands for: one line with what people look for first.
const accessLogText = `[%START_TIME%] %DOWNSTREAM_REMOTE_ADDRESS% "%REQ(:METHOD)% %REQ(:AUTHORITY)%%REQ(:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %UPSTREAM_HOST%`

// command is one of Envoy's in a format, at the beginning of a text: its name, and what it
// is given.
var command = regexp.MustCompile(`^%([A-Z0-9_]+)(\([^()]*\))?(:[0-9]{1,5})?%`)

// commands are those of Envoy that are taken, and whether they must be given something.
// Another would have Envoy refuse the listener.
var commands = map[string]bool{
	"START_TIME": false, "DURATION": false, "REQUEST_DURATION": false, "RESPONSE_DURATION": false, "PROTOCOL": false,
	"REQ": true, "RESP": true, "TRAILER": true, "RESPONSE_CODE": false, "RESPONSE_CODE_DETAILS": false, "RESPONSE_FLAGS": false, "RESPONSE_FLAGS_LONG": false,
	"BYTES_RECEIVED": false, "BYTES_SENT": false, "ROUTE_NAME": false, "CONNECTION_ID": false, "CONNECTION_TERMINATION_DETAILS": false,
	"UPSTREAM_HOST": false, "UPSTREAM_CLUSTER": false, "UPSTREAM_LOCAL_ADDRESS": false, "UPSTREAM_TRANSPORT_FAILURE_REASON": false, "UPSTREAM_REQUEST_ATTEMPT_COUNT": false,
	"DOWNSTREAM_REMOTE_ADDRESS": false, "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": false, "DOWNSTREAM_REMOTE_PORT": false,
	"DOWNSTREAM_LOCAL_ADDRESS": false, "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT": false, "DOWNSTREAM_LOCAL_PORT": false,
	"DOWNSTREAM_TLS_VERSION": false, "DOWNSTREAM_TLS_CIPHER": false, "DOWNSTREAM_PEER_SUBJECT": false, "DOWNSTREAM_PEER_URI_SAN": false,
	"REQUESTED_SERVER_NAME": false, "HOSTNAME": false,
}

// checkFormat tells what in a format Envoy would not understand.
func checkFormat(format string) error {
	for {
		at := strings.IndexByte(format, '%')
		if at < 0 {
			return nil
		}
		format = format[at:]
		if strings.HasPrefix(format, "%%") {
			format = format[2:]
			continue
		}
		m := command.FindStringSubmatch(format)
		if m == nil {
			return fmt.Errorf("there is no command of Envoy's access log at %.40q; a %% is written %%%%", format)
		}
		needs, known := commands[m[1]]
		takes := needs || m[1] == "START_TIME"
		if !known || (m[2] != "") != takes && (needs || m[2] != "") || m[3] != "" && !needs || m[2] == "()" {
			return fmt.Errorf("%s is no command of Envoy's access log that can be used here", m[0])
		}
		format = format[len(m[0]):]
	}
}

func (p *Parameters) setAccessLog(value string) error {
	switch value {
	case "off", "":
		return nil
	case AccessLogJSON:
		p.AccessLog = AccessLogJSON
		return nil
	case "text":
		p.AccessLog = accessLogText
		return nil
	}
	if len(value) > maxAccessLog {
		return fmt.Errorf("a format has at most %d bytes", maxAccessLog)
	}
	if !strings.Contains(value, "%") {
		return fmt.Errorf("%.80q is not off, json, text, or a format of Envoy's with %%COMMANDS%%", value)
	}
	if err := checkFormat(value); err != nil {
		return err
	}
	p.AccessLog = value
	return nil
}

func parseResources(value string) (*corev1.ResourceRequirements, error) {
	if len(value) > maxResources {
		return nil, fmt.Errorf("resources have at most %d bytes", maxResources)
	}
	var r struct {
		Requests corev1.ResourceList `json:"requests,omitempty"`
		Limits   corev1.ResourceList `json:"limits,omitempty"`
	}
	if err := yaml.UnmarshalStrict([]byte(value), &r); err != nil {
		return nil, fmt.Errorf("not the resources of a container, such as \"requests: {cpu: 100m}\": %w", err)
	}
	for what, list := range map[string]corev1.ResourceList{"requests": r.Requests, "limits": r.Limits} {
		for name, q := range list {
			switch {
			case name != corev1.ResourceCPU && name != corev1.ResourceMemory && name != corev1.ResourceEphemeralStorage:
				return nil, fmt.Errorf("%s: %.80q is not cpu, memory or ephemeral-storage", what, name)
			case q.Cmp(resource.Quantity{}) < 0:
				return nil, fmt.Errorf("%s: %s is negative", what, name)
			}
		}
	}
	for name, least := range r.Requests {
		if most, ok := r.Limits[name]; ok && least.Cmp(most) > 0 {
			return nil, fmt.Errorf("more %s is requested (%s) than the limit (%s)", name, least.String(), most.String())
		}
	}
	return &corev1.ResourceRequirements{Requests: r.Requests, Limits: r.Limits}, nil
}

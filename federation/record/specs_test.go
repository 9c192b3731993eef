package record_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/record"
	"github.com/causeway-mesh/causeway/federation/record/recordtest"
	"github.com/causeway-mesh/causeway/federation/store"
)

// specs are, for each kind that crosses as an Object, specs which the CRD admits.
// Together they use every field of the kind that is checked.
var specs = map[cluster.Kind][]string{
	cluster.KindHTTPRoute: {`{"parentRefs":[{"kind":"ListenerSet","name":"ls"}],"hostnames":["a.example"],"rules":[{"name":"r","matches":[{"path":{"type":"Exact","value":"/x"},"headers":[{"name":"h","value":"v"}],"queryParams":[{"type":"RegularExpression","name":"q","value":"v.*"}],"method":"GET"}],
		"filters":[{"type":"RequestMirror","requestMirror":{"backendRef":{"name":"m","port":80},"fraction":{"numerator":1,"denominator":3}}},{"type":"RequestMirror","requestMirror":{"backendRef":{"name":"m","port":80},"percent":42}},
		{"type":"CORS","cors":{"allowOrigins":["https://*.example:8443"],"allowMethods":["GET"],"allowHeaders":["x-a"],"exposeHeaders":["x-b"],"maxAge":5}},
		{"type":"ExternalAuth","externalAuth":{"protocol":"HTTP","backendRef":{"name":"auth","port":80},"http":{"path":"/check","allowedHeaders":["x-c"],"allowedResponseHeaders":["x-d"]},"forwardBody":{"maxSize":100}}},
		{"type":"ExternalAuth","externalAuth":{"protocol":"GRPC","backendRef":{"name":"auth","port":80},"grpc":{"allowedHeaders":["x-c"]}}},
		{"type":"URLRewrite","urlRewrite":{"hostname":"b.example","path":{"type":"ReplaceFullPath","replaceFullPath":"/y"}}},{"type":"ExtensionRef","extensionRef":{"group":"x.example","kind":"X","name":"x"}}],
		"backendRefs":[{"name":"b","port":80,"weight":1,"filters":[{"type":"ResponseHeaderModifier","responseHeaderModifier":{"add":[{"name":"h","value":"v"}]}}]}],
		"timeouts":{"request":"1s","backendRequest":"500ms"},"retry":{"codes":[500,503],"attempts":2,"backoff":"10ms"},
		"sessionPersistence":{"sessionName":"s","absoluteTimeout":"1h","type":"Cookie","cookieConfig":{"lifetimeType":"Permanent"}}},
		{"filters":[{"type":"RequestRedirect","requestRedirect":{"scheme":"https","hostname":"c.example","port":8443,"statusCode":303,"path":{"type":"ReplacePrefixMatch","replacePrefixMatch":"/z"}}}]}]}`},
	cluster.KindGRPCRoute: {`{"parentRefs":[{"name":"gw","sectionName":"grpc","port":443}],"hostnames":["*.example"],"rules":[{"name":"r","matches":[{"method":{"type":"Exact","service":"a.B","method":"C"},"headers":[{"type":"RegularExpression","name":"h","value":".*"}]},{"method":{"type":"RegularExpression","method":"Get.*"}},{"method":{"service":"a.B"}}],
		"filters":[{"type":"RequestHeaderModifier","requestHeaderModifier":{"set":[{"name":"h","value":"v"}],"remove":["x"]}},{"type":"RequestMirror","requestMirror":{"backendRef":{"name":"m","port":80}}}],
		"backendRefs":[{"name":"b","port":80,"weight":0}],"sessionPersistence":{"type":"Header"}}]}`},
	cluster.KindTLSRoute: {`{"parentRefs":[{"name":"gw","namespace":"infra"}],"hostnames":["a.example","*.b.example"],"rules":[{"name":"r","backendRefs":[{"group":"multicluster.x-k8s.io","kind":"ServiceImport","name":"b","port":443,"weight":2}]}]}`,
		`{"hostnames":[` + strings.Repeat(`"a.example",`, 1023) + `"b.example"],"rules":[{"backendRefs":[{"name":"b","port":443}]}]}`},
	cluster.KindTCPRoute:         {`{"parentRefs":[{"group":"","kind":"Service","name":"db","port":5432}],"rules":[{"backendRefs":[{"name":"db","port":5432,"namespace":"other"}]},{"backendRefs":[{"name":"b","port":1}]}]}`},
	cluster.KindUDPRoute:         {`{"parentRefs":[{"group":"multicluster.x-k8s.io","kind":"ServiceImport","name":"dns"}],"rules":[{"backendRefs":[{"name":"dns","port":53}]}]}`},
	cluster.KindGateway:          {`{"gatewayClassName":"causeway","listeners":[{"name":"https","port":443,"protocol":"HTTPS","hostname":"*.example","tls":{"mode":"Terminate","certificateRefs":[{"name":"c","namespace":"certs"}],"options":{"a/b":"c"}},"allowedRoutes":{"namespaces":{"from":"Selector","selector":{"matchLabels":{"a":"b"}}},"kinds":[{"kind":"HTTPRoute"}]}},{"name":"odd","port":1,"protocol":"example.com/odd"}],"addresses":[{"type":"IPAddress","value":"10.0.0.1"}],"infrastructure":{"labels":{"a":"b"},"parametersRef":{"group":"","kind":"ConfigMap","name":"p"}},"allowedListeners":{"namespaces":{"from":"Selector","selector":{"matchExpressions":[{"key":"a","operator":"Exists"}]}}},"tls":{"backend":{"clientCertificateRef":{"name":"c"}},"frontend":{"default":{"validation":{"caCertificateRefs":[{"group":"","kind":"ConfigMap","name":"ca"}],"mode":"AllowValidOnly"}},"perPort":[{"port":8443,"tls":{"validation":{"caCertificateRefs":[{"group":"","kind":"ConfigMap","name":"ca","namespace":"x"}],"mode":"AllowInsecureFallback"}}}]}}}`},
	cluster.KindListenerSet:      {`{"parentRef":{"group":"gateway.networking.k8s.io","kind":"Gateway","name":"gw","namespace":"infra"},"listeners":[{"name":"tls","port":443,"protocol":"TLS","hostname":"a.example","tls":{"mode":"Passthrough"}},{"name":"udp","port":53,"protocol":"UDP","allowedRoutes":{"namespaces":{"from":"All"}}}]}`},
	cluster.KindBackendTLSPolicy: {`{"targetRefs":[{"group":"","kind":"Service","name":"a","sectionName":"https"}],"validation":{"caCertificateRefs":[{"group":"","kind":"ConfigMap","name":"ca"}],"hostname":"a.example","subjectAltNames":[{"type":"Hostname","hostname":"*.a.example"},{"type":"URI","uri":"spiffe://x/ns/a?b#c"}]},"options":{"a/b":"c"}}`, `{"targetRefs":[{"group":"","kind":"Service","name":"a"}],"validation":{"wellKnownCACertificates":"System","hostname":"a.example"}}`},
	cluster.KindGatewayRun:       {`{"home":"west","generation":3,"conditions":[{"type":"Accepted","status":"True","lastTransitionTime":null,"reason":"Accepted","message":""},{"type":"Programmed","status":"False","lastTransitionTime":null,"reason":"AddressNotAssigned","message":"no address yet"}],"addresses":[{"type":"IPAddress","value":"192.0.2.1"},{"type":"Hostname","value":"lb.example.com"}],"listeners":[{"name":"https","conditions":[{"type":"ResolvedRefs","status":"False","lastTransitionTime":null,"reason":"InvalidCertificateRef","message":"there is no Secret"}]}]}`},
	cluster.KindReferenceGrant:   {`{"from":[{"group":"gateway.networking.k8s.io","kind":"TCPRoute","namespace":"x"},{"group":"gateway.networking.k8s.io","kind":"ListenerSet","namespace":"x"},{"group":"gateway.networking.k8s.io","kind":"UDPRoute","namespace":"x"},{"group":"gateway.networking.k8s.io","kind":"GRPCRoute","namespace":"x"},{"group":"gateway.networking.k8s.io","kind":"TLSRoute","namespace":"x"}],"to":[{"group":"","kind":"Secret","name":"c"}]}`},
}

func specRecord(t testing.TB, kind cluster.Kind, spec string) store.KV {
	t.Helper()
	value, err := proto.Marshal(&causewayv1.Object{Kind: string(kind), Namespace: "app", Name: "a", Json: []byte(`{"metadata":{"namespace":"app","name":"a"},"spec":` + spec + `}`)})
	if err != nil {
		t.Fatal(err)
	}
	key, err := record.ObjectKey(&cluster.Object{Ref: cluster.Ref{Kind: kind, Namespace: "app", Name: "a"}, Cluster: east})
	if err != nil {
		t.Fatal(err)
	}
	return store.KV{Key: key, Value: value, CreateRevision: 7, ModRevision: 9}
}

// What the CRDs admit crosses, in every field, and comes back the same.
func TestWholeSpecsCross(t *testing.T) {
	for kind, list := range specs {
		for _, spec := range list {
			kv := specRecord(t, kind, spec)
			c, err := record.Decode(kv)
			if err != nil {
				t.Errorf("%s: %v", kind, err)
				continue
			}
			var want any
			if err := json.Unmarshal([]byte(spec), &want); err != nil {
				t.Fatalf("%s: %v", kind, err)
			}
			again, err := encodeAgain(c.Objects)
			if err != nil {
				t.Errorf("%s: %v", kind, err)
				continue
			}
			var msg causewayv1.Object
			var got struct{ Spec any }
			if err := proto.Unmarshal(again.Value, &msg); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(msg.Json, &got); err != nil || !reflect.DeepEqual(got.Spec, want) {
				t.Errorf("%s comes back as %s, not %s (%v)", kind, msg.Json, spec, err)
			}
		}
	}
}

// One wrong value in a sound spec: each is refused, and the message names the field.
func TestWrongSpecsAreRefused(t *testing.T) {
	for _, c := range []struct {
		kind            cluster.Kind
		old, wrong, say string
	}{
		{cluster.KindHTTPRoute, `"codes":[500`, `"codes":[200`, "spec.rules[0]: retry code 200"},
		{cluster.KindHTTPRoute, `"attempts":2`, `"attempts":0`, "retry attempts are 0"},
		{cluster.KindHTTPRoute, `"backoff":"10ms"`, `"backoff":"soon"`, `retry backoff "soon" is not a duration`},
		{cluster.KindHTTPRoute, `"backendRequest":"500ms"`, `"backendRequest":"-1s"`, `timeout "-1s" is not a duration`},
		{cluster.KindHTTPRoute, `"absoluteTimeout":"1h"`, `"absoluteTimeout":""`, "session timeout"},
		{cluster.KindHTTPRoute, `"sessionName":"s"`, `"sessionName":"` + strings.Repeat("s", 129) + `"`, "session name"},
		{cluster.KindHTTPRoute, `"type":"Cookie"`, `"type":"Wish"`, `session persistence type "Wish"`},
		{cluster.KindHTTPRoute, `"lifetimeType":"Permanent"`, `"lifetimeType":"Long"`, `cookie lifetime "Long"`},
		{cluster.KindHTTPRoute, `"denominator":3`, `"denominator":0`, "filters[0]: mirror: fraction 1/0"},
		{cluster.KindHTTPRoute, `"percent":42`, `"percent":101`, "101 percent"},
		{cluster.KindHTTPRoute, `{"name":"m","port":80},"percent"`, `{"name":"m","port":0},"percent"`, "filters[1]: mirror: port 0"},
		{cluster.KindHTTPRoute, `"https://*.example:8443"`, `"https://a b"`, `CORS: origin "https://a b"`},
		{cluster.KindHTTPRoute, `"allowOrigins":[`, `"allowOrigins":["*",`, "leave the others out"},
		{cluster.KindHTTPRoute, `"allowMethods":["GET"]`, `"allowMethods":["get"]`, `CORS: method "get"`},
		{cluster.KindHTTPRoute, `"exposeHeaders":["x-b"]`, `"exposeHeaders":["x b"]`, `CORS: header name "x b"`},
		{cluster.KindHTTPRoute, `"maxAge":5`, `"maxAge":-5`, "maxAge -5"},
		{cluster.KindHTTPRoute, `"protocol":"GRPC"`, `"protocol":"LDAP"`, `external auth: protocol "LDAP"`},
		{cluster.KindHTTPRoute, `"path":"/check"`, `"path":"/che?k"`, `external auth: path "/che?k"`},
		{cluster.KindHTTPRoute, `"allowedResponseHeaders":["x-d"]`, `"allowedResponseHeaders":["x:d"]`, `external auth: header name "x:d"`},
		{cluster.KindGRPCRoute, `"service":"a.B","method":"C"`, `"service":"a B"`, `spec.rules[0]: matches[0]: gRPC service "a B"`},
		{cluster.KindGRPCRoute, `"service":"a.B","method":"C"`, `"method":"C/D"`, `gRPC method "C/D"`},
		{cluster.KindGRPCRoute, `"method":"Get.*"`, `"method":"` + strings.Repeat("G", 1025) + `"`, "gRPC method is longer"},
		{cluster.KindGRPCRoute, `"type":"Exact"`, `"type":"Prefix"`, `method match type "Prefix"`},
		{cluster.KindGRPCRoute, `"type":"RegularExpression","name":"h"`, `"type":"Glob","name":"h"`, `header match type "Glob"`},
		{cluster.KindGRPCRoute, `"name":"h","value":".*"`, `"name":"h h","value":".*"`, `header name "h h"`},
		{cluster.KindGRPCRoute, `"remove":["x"]`, `"remove":["x\n"]`, "control characters"},
		{cluster.KindGRPCRoute, `"weight":0`, `"weight":1000001`, "backendRefs[0]: weight 1000001"},
		{cluster.KindGRPCRoute, `"*.example"`, `"*"`, `spec.hostnames[0]: hostname "*"`},
		{cluster.KindTLSRoute, `"*.b.example"`, `"b.*.example"`, `spec.hostnames[1]: hostname "b.*.example"`},
		{cluster.KindTLSRoute, `"a.example",`, strings.Repeat(`"a.example",`, 1024), "spec.hostnames has 1025 items, at most 1024"},
		{cluster.KindTLSRoute, `"namespace":"infra"`, `"namespace":"Infra"`, `spec.parentRefs[0]: namespace "Infra"`},
		{cluster.KindTLSRoute, `"weight":2`, `"weight":-2`, "weight -2"},
		{cluster.KindTCPRoute, `"port":5432,"namespace"`, `"port":65536,"namespace"`, "spec.rules[0]: backendRefs[0]: port 65536"},
		{cluster.KindTCPRoute, `"rules":[`, `"rules":[` + strings.Repeat(`{},`, 200), "at most 128"},
		{cluster.KindUDPRoute, `{"name":"dns","port":53}`, `{"name":"","port":53}`, "has no or too many letters"},
		{cluster.KindGateway, `"mode":"Terminate"`, `"mode":"Guess"`, `spec.listeners[0]: tls.mode "Guess"`},
		{cluster.KindGateway, `{"name":"c","namespace":"certs"}`, `{"name":"","namespace":"certs"}`, "tls.certificateRefs[0]"},
		{cluster.KindGateway, `"protocol":"example.com/odd"`, `"protocol":"a b"`, `spec.listeners[1]: protocol "a b"`},
		{cluster.KindGateway, `"operator":"Exists"`, `"operator":"Hopes"`, "spec.allowedListeners: selector"},
		{cluster.KindGateway, `"clientCertificateRef":{"name":"c"}`, `"clientCertificateRef":{"name":""}`, "spec.tls.backend.clientCertificateRef"},
		{cluster.KindGateway, `"mode":"AllowValidOnly"`, `"mode":"AllowAll"`, `spec.tls.frontend: default: validation.mode "AllowAll"`},
		{cluster.KindGateway, `"perPort":[`, `"perPort":[{"port":8443,"tls":{}},`, "perPort[1]: port 8443 is given twice"},
		{cluster.KindListenerSet, `"name":"gw"`, `"name":""`, "spec.parentRef: name"},
		{cluster.KindListenerSet, `"name":"udp"`, `"name":"tls"`, `spec.listeners[1]: name "tls" is given twice`},
		{cluster.KindListenerSet, `"port":53`, `"port":0`, "spec.listeners[1]: port 0"},
		{cluster.KindListenerSet, `"hostname":"a.example"`, `"hostname":"a_b"`, `spec.listeners[0]: hostname "a_b"`},
		{cluster.KindBackendTLSPolicy, `"name":"a","sectionName"`, `"name":"","sectionName"`, "spec.targetRefs[0]"},
		{cluster.KindBackendTLSPolicy, `"hostname":"a.example"`, `"hostname":"*.example"`, `spec.validation: hostname "*.example"`},
		{cluster.KindBackendTLSPolicy, `"name":"ca"`, `"name":""`, "spec.validation.caCertificateRefs[0]"},
		{cluster.KindBackendTLSPolicy, `"validation":{`, `"validation":{"wellKnownCACertificates":"System",`, "needs one of caCertificateRefs and wellKnownCACertificates"},
		{cluster.KindBackendTLSPolicy, `"hostname":"*.a.example"`, `"hostname":"*.a.example","uri":"x://y"`, "spec.validation.subjectAltNames[0]"},
		{cluster.KindBackendTLSPolicy, `"spiffe://x/ns/a?b#c"`, `"spiffe"`, `spec.validation.subjectAltNames[1]: URI "spiffe" is not absolute`},
		{cluster.KindGatewayRun, `"home":"west"`, `"home":"West"`, `cluster name "West"`},
		{cluster.KindGatewayRun, `"type":"Accepted"`, `"type":"Programmed"`, `condition "Programmed" is none that crosses, or is there twice`},
		{cluster.KindGatewayRun, `"type":"Accepted"`, `"type":"example.com/Fine"`, `condition "example.com/Fine"`},
		{cluster.KindGatewayRun, `"status":"True"`, `"status":"Perhaps"`, `has the status "Perhaps"`},
		{cluster.KindGatewayRun, `"reason":"Accepted"`, `"reason":"a b"`, `has the reason "a b"`},
		{cluster.KindGatewayRun, `"no address yet"`, `"` + strings.Repeat("x", 513) + `"`, "more than 512 bytes"},
		{cluster.KindGatewayRun, `"no address yet"`, `"two\nlines"`, "control characters"},
		{cluster.KindGatewayRun, `"192.0.2.1"`, `"0.0.0.0"`, `address "0.0.0.0"`},
		{cluster.KindGatewayRun, `"lb.example.com"`, `"lb example"`, `address "lb example" is not a DNS name`},
		{cluster.KindGatewayRun, `"type":"Hostname"`, `"type":"example.com/Name"`, "not IPAddress or Hostname"},
		{cluster.KindGatewayRun, `"addresses":[`, `"addresses":[` + strings.Repeat(`{"value":"192.0.2.1"},`, 15), "17 addresses"},
		{cluster.KindGatewayRun, `"listeners":[`, `"listeners":[{"name":"https","conditions":[]},`, `listener "https" is no name, or is there twice`},
		{cluster.KindGatewayRun, `"type":"ResolvedRefs"`, `"type":"Conflicted"`, `listener "https": condition "Conflicted"`},
		{cluster.KindReferenceGrant, `"namespace":"x"`, `"namespace":"*"`, `spec.from[0]: namespace "*"`},
	} {
		spec := strings.Replace(specs[c.kind][0], c.old, c.wrong, 1)
		if spec == specs[c.kind][0] {
			t.Fatalf("%s has no %s", c.kind, c.old)
		}
		_, err := record.Decode(specRecord(t, c.kind, spec))
		var e *record.Error
		if !errors.As(err, &e) || e.Object != string(c.kind)+"/app/a" || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s with %s: error %v does not say %q", c.kind, c.wrong, err, c.say)
		}
	}
}

// Of a ConfigMap nothing but certificates crosses, and no more of them than any
// backend needs.
func TestCertificatesOnly(t *testing.T) {
	for data, say := range map[string]string{
		"": "no certificate", "hello": "no certificate", "-----BEGIN PRIVATE KEY-----": "no certificate",
		recordtest.CA + "-----BEGIN EC PRIVATE KEY-----": "private key, which must not leave the cluster",
		recordtest.CA + "\x00":                           "control characters",
		recordtest.CA + "\xff":                           "not UTF-8",
		strings.Repeat(recordtest.CA, 1200):              "at most 65536 are published",
	} {
		if _, err := record.EncodeObject(recordtest.ConfigMap(east, "app", "ca", 1, data)); err == nil || !strings.Contains(err.Error(), "ConfigMap/app/ca: ") || !strings.Contains(err.Error(), say) {
			t.Errorf("%.60q: error %v does not say %q", data, err, say)
		}
	}
	binary := recordtest.ConfigMap(east, "app", "ca", 1, "")
	binary.Value.(*corev1.ConfigMap).BinaryData = map[string][]byte{record.CAKey: []byte(recordtest.CA)}
	r, err := record.EncodeObject(binary)
	if err != nil {
		t.Fatal(err)
	}
	c, err := record.Decode(kv(r))
	if err != nil || c.Objects[0].Value.(*corev1.ConfigMap).Data[record.CAKey] != recordtest.CA {
		t.Errorf("certificates of binaryData come as %+v, %v", c, err)
	}
	for _, json := range []string{`{"metadata":{"namespace":"app","name":"a"}}`, `{"metadata":{"namespace":"app","name":"a"},"data":{"ca.crt":7}}`} {
		value, err := proto.Marshal(&causewayv1.Object{Kind: "ConfigMap", Namespace: "app", Name: "a", Json: []byte(json)})
		if err != nil {
			t.Fatal(err)
		}
		if c, err := record.Decode(store.KV{Key: "/causeway/v1/clusters/east/policies/configmap/app/a", Value: value}); err == nil {
			t.Errorf("%s was taken: %+v", json, c.Objects[0].Value)
		}
	}
}

package resolvetest

import (
	"math"
	"net/netip"
	"reflect"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
)

// choices are decisions read from bytes: every string of bytes is a valid one.
type choices struct{ rest []byte }

func (c *choices) done() bool { return len(c.rest) == 0 }

func (c *choices) next() byte {
	if c.done() {
		return 0
	}
	b := c.rest[0]
	c.rest = c.rest[1:]
	return b
}

// below gives a number from 0 to n-1; 0 once the bytes are used up.
func (c *choices) below(n int) int {
	switch {
	case n <= 1:
		return 0
	case n <= 256:
		return int(c.next()) % n
	}
	return (int(c.next())<<8 | int(c.next())) % n
}

func oneOf[T any](c *choices, of []T) T { return of[c.below(len(of))] }

// oddStrings are those that something between a manifest and Envoy may trip over.
var oddStrings = []string{
	"", " ", "a b", "a", "b", "A", "0", "-1", "00", "1e9", "65536", ".", "..", "a.", ".a", "-", "_", "*", "**", "*.", "*.*", "*.a", "a.*", "*.com",
	"%", "%%", "%REQ(x)%", "%REQ(:path)%", "%UPSTREAM_METADATA([\"a\"])%", "%ENVIRONMENT(HOME)%", "100%", "${x}", "{{x}}", "{x}", "{a=*}", "]]", "--", "]=]", `\n`, `\`, `\\1`, `\C`, `"`, "'", "`", ";", ",", "=", "a=b", "a;b", "a,b",
	"\x00", "\n", "\r\n", "\t", "\x7f", "\x1b[31m", "é", "ünïcode.example", "😀", "\xff\xfe", "a\xffb", "\u2028", "\ufeff",
	"/", "//", "/a", "/a/", "/a//b", "/a/../b", "/./a", "/%2e%2e", "/%2F", "/%", "/a?b", "/a#b", "?", "#", "/é", "/a b", "/*", "/{a}", "a/b", "p.S", "p.S/M",
	"(", ")", "[a-", "(?i)a", "(?P<a>b)", "(?=a)", "(a+)+$", ".*", ".*.*.*.*=.*", "a{1000}", "((a{100}){100}){10}", "^$", "|", "a|", "[[:alpha:]]+", `\pL`, `\x{10FFFF}`, `\d+`, "/a(/.*)?",
	":", ":path", ":authority", ":method", ":status", "host", "Host", "connection", "transfer-encoding", "content-length", "te", "upgrade", "cookie", "set-cookie", "__Host-a", "grpc-timeout", "content-type", "x-envoy-retry-on", "x-envoy-upstream-rq-timeout-ms", "x-forwarded-for", "x-causeway-route",
	"GET", "get", "CONNECT", "PURGE", "GET ", "0s", "1ms", "1s", "10s", "1h", "24h", "99999h", "99999h59m59s999ms", "1h1m1s1ms", "5.5s", "-1s", "1d", "1ns",
	"http", "https", "HTTP", "ftp", "80", "443", "127.0.0.1", "::1", "[::1]:80", "a:80", "a.example.com", "a.example.com:80", "*.example.com", "A.EXAMPLE", "xn--a", "a..b", "https://*", "https://*.a:*", "http://*", "https://a.example:99999", "null", "spiffe://x/y", "spiffe://", "urn:x", "kubernetes.io/h2c", "kubernetes.io/ws", "kubernetes.io/wss", "https", "grpc", "UDP", "SCTP",
	strings.Repeat("a", 63), strings.Repeat("a", 64), strings.Repeat("a.", 126) + "a", strings.Repeat("a", 254), "/" + strings.Repeat("a/", 2000), strings.Repeat("é", 2048), strings.Repeat("x", 20000), strings.Repeat("(a|", 300) + strings.Repeat(")", 300),
}

// enumerations hold values that goldens need not have, for types that know some.
var enumerations = []any{
	gatewayv1.PathMatchExact, gatewayv1.PathMatchPathPrefix, gatewayv1.PathMatchRegularExpression,
	gatewayv1.HeaderMatchExact, gatewayv1.HeaderMatchRegularExpression, gatewayv1.QueryParamMatchExact, gatewayv1.QueryParamMatchRegularExpression,
	gatewayv1.GRPCMethodMatchExact, gatewayv1.GRPCMethodMatchRegularExpression, gatewayv1.GRPCHeaderMatchExact, gatewayv1.GRPCHeaderMatchRegularExpression,
	gatewayv1.HTTPRouteFilterRequestHeaderModifier, gatewayv1.HTTPRouteFilterResponseHeaderModifier, gatewayv1.HTTPRouteFilterRequestRedirect, gatewayv1.HTTPRouteFilterURLRewrite,
	gatewayv1.HTTPRouteFilterRequestMirror, gatewayv1.HTTPRouteFilterCORS, gatewayv1.HTTPRouteFilterExternalAuth, gatewayv1.HTTPRouteFilterExtensionRef,
	gatewayv1.GRPCRouteFilterRequestHeaderModifier, gatewayv1.GRPCRouteFilterResponseHeaderModifier, gatewayv1.GRPCRouteFilterRequestMirror, gatewayv1.GRPCRouteFilterExtensionRef,
	gatewayv1.FullPathHTTPPathModifier, gatewayv1.PrefixMatchHTTPPathModifier, gatewayv1.CookieBasedSessionPersistence, gatewayv1.HeaderBasedSessionPersistence,
	gatewayv1.PermanentCookieLifetimeType, gatewayv1.SessionCookieLifetimeType, gatewayv1.HTTPRouteExternalAuthGRPCProtocol, gatewayv1.HTTPRouteExternalAuthHTTPProtocol,
	gatewayv1.HTTPProtocolType, gatewayv1.HTTPSProtocolType, gatewayv1.TLSProtocolType, gatewayv1.TCPProtocolType, gatewayv1.UDPProtocolType, gatewayv1.TLSModeTerminate, gatewayv1.TLSModePassthrough,
	gatewayv1.NamespacesFromAll, gatewayv1.NamespacesFromSame, gatewayv1.NamespacesFromSelector, gatewayv1.NamespacesFromNone, gatewayv1.AllowValidOnly, gatewayv1.AllowInsecureFallback,
	gatewayv1.HostnameSubjectAltNameType, gatewayv1.URISubjectAltNameType, gatewayv1.WellKnownCACertificatesSystem,
	gatewayv1.Kind("Service"), gatewayv1.Kind("ServiceImport"), gatewayv1.Kind("Gateway"), gatewayv1.Kind("ListenerSet"), gatewayv1.Group(""), gatewayv1.Group(gatewayv1.GroupName), gatewayv1.Group("multicluster.x-k8s.io"),
}

var oddInts = []int64{0, 1, 2, 3, -1, 53, 80, 81, 99, 100, 101, 200, 300, 301, 302, 303, 307, 308, 399, 400, 418, 443, 499, 500, 503, 599, 600, 999, 1000, 8080, 65535, 65536, 1000000, 1000001, math.MaxInt32, math.MinInt32, math.MaxInt64, math.MinInt64}

var oddAddrs = []netip.Addr{{}, netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("::1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("::ffff:1.2.3.4"), netip.MustParseAddr("fe80::1%eth0"), netip.MustParseAddr("224.0.0.1"), netip.MustParseAddr("255.255.255.255")}

var annotations = []string{cluster.AnnotationScope, cluster.AnnotationServiceRoutes, cluster.AnnotationClusters, cluster.AnnotationDistribution, cluster.AnnotationWeight}

// editor changes values of any type, as bytes say.
type editor struct {
	*choices
	known map[reflect.Type][]reflect.Value // strings that the worlds have, by type
}

var (
	typeObjectMeta = reflect.TypeFor[metav1.ObjectMeta]()
	typeAddr       = reflect.TypeFor[netip.Addr]()
	opaque         = map[reflect.Type]bool{reflect.TypeFor[metav1.TypeMeta](): true, reflect.TypeFor[metav1.Time](): true, reflect.TypeFor[time.Time](): true, reflect.TypeFor[resource.Quantity](): true, reflect.TypeFor[intstr.IntOrString](): true}
)

// edit changes one thing somewhere in v, which is settable or a pointer. An
// object keeps its name.
func (e *editor) edit(v reflect.Value) {
	switch v.Type() {
	case typeObjectMeta:
		m := v.Addr().Interface().(*metav1.ObjectMeta)
		if m.Annotations == nil {
			m.Annotations = map[string]string{}
		}
		key := oneOf(e.choices, annotations)
		e.setString(reflect.ValueOf(&key).Elem(), false)
		value := m.Annotations[key]
		e.setString(reflect.ValueOf(&value).Elem(), true)
		m.Annotations[key] = value
		return
	case typeAddr:
		v.Set(reflect.ValueOf(oneOf(e.choices, oddAddrs)))
		return
	}
	if opaque[v.Type()] {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		switch {
		case v.IsNil():
			v.Set(reflect.New(v.Type().Elem()))
			e.fill(v.Elem(), 0)
		case v.CanSet() && e.below(4) == 0:
			v.SetZero()
		default:
			e.edit(v.Elem())
		}
	case reflect.Struct:
		if f := v.Field(e.below(v.NumField())); f.CanSet() {
			e.edit(f)
		}
	case reflect.Slice:
		e.editSlice(v)
	case reflect.Map:
		if v.IsNil() {
			v.Set(reflect.MakeMap(v.Type()))
		}
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		if keys := v.MapKeys(); len(keys) > 0 && e.below(2) == 0 {
			key.Set(keys[0])
			for _, k := range keys { // the order of MapKeys is no decision
				if k.String() < key.String() {
					key.Set(k)
				}
			}
		} else {
			e.fill(key, 0)
		}
		if e.below(4) == 0 {
			v.SetMapIndex(key, reflect.Value{})
			return
		}
		e.fill(value, 0)
		v.SetMapIndex(key, value)
	case reflect.String:
		e.setString(v, true)
	default:
		e.fill(v, 0)
	}
}

func (e *editor) editSlice(v reflect.Value) {
	n := v.Len()
	op := e.below(6)
	switch {
	case n == 0 || op == 0:
		x := reflect.New(v.Type().Elem()).Elem()
		e.fill(x, 0)
		v.Set(reflect.Append(v, x))
	case op == 1:
		i := e.below(n)
		v.Set(reflect.AppendSlice(v.Slice(0, i), v.Slice(i+1, n)))
	case op == 2: // one more that is nearly the same
		v.Set(reflect.Append(v, clone(v.Index(e.below(n)))))
		e.edit(v.Index(n))
	default:
		e.edit(v.Index(e.below(n)))
	}
}

// fill gives v, which is zero or to be replaced, some value. What is nested deep,
// or comes when the bytes are used up, stays empty.
func (e *editor) fill(v reflect.Value, depth int) {
	if depth > 6 || opaque[v.Type()] {
		return
	}
	switch v.Type() {
	case typeAddr, typeObjectMeta:
		e.edit(v)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if !e.done() && e.below(2) == 0 {
			v.Set(reflect.New(v.Type().Elem()))
			e.fill(v.Elem(), depth+1)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				e.fill(v.Field(i), depth+1)
			}
		}
	case reflect.Slice:
		if e.done() {
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), e.below(3), 4))
		for i := range v.Len() {
			e.fill(v.Index(i), depth+1)
		}
	case reflect.Map:
		if !e.done() && e.below(2) == 0 {
			e.edit(v)
		}
	case reflect.String:
		e.setString(v, false)
	case reflect.Bool:
		v.SetBool(e.below(2) == 0)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		if x := oneOf(e.choices, oddInts); !v.OverflowInt(x) {
			v.SetInt(x)
		}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if x := uint64(oneOf(e.choices, oddInts)); !v.OverflowUint(x) {
			v.SetUint(x)
		}
	}
}

// setString gives a string another value: mostly one that the worlds have for
// its type, else an odd one or bytes of the input.
func (e *editor) setString(v reflect.Value, had bool) {
	how := e.below(8)
	if known := e.known[v.Type()]; how < 4 && len(known) > 0 {
		v.Set(oneOf(e.choices, known))
		return
	}
	switch {
	case how < 6:
		v.SetString(oneOf(e.choices, oddStrings))
	case how == 6 && had:
		v.SetString(v.String() + oneOf(e.choices, oddStrings))
	default:
		n := min(e.below(40), len(e.rest))
		v.SetString(string(e.rest[:n]))
		e.rest = e.rest[n:]
	}
}

// clone copies a value with all that hangs on it.
func clone(v reflect.Value) reflect.Value {
	out := reflect.New(v.Type()).Elem()
	out.Set(v)
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			out.Set(reflect.New(v.Type().Elem()))
			out.Elem().Set(clone(v.Elem()))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if f := out.Field(i); f.CanSet() {
				f.Set(clone(v.Field(i)))
			}
		}
	case reflect.Slice:
		if !v.IsNil() {
			out.Set(reflect.MakeSlice(v.Type(), v.Len(), v.Len()))
			for i := range v.Len() {
				out.Index(i).Set(clone(v.Index(i)))
			}
		}
	case reflect.Map:
		if !v.IsNil() {
			out.Set(reflect.MakeMap(v.Type()))
			for _, k := range v.MapKeys() {
				out.SetMapIndex(k, clone(v.MapIndex(k)))
			}
		}
	}
	return out
}

// eachString visits every short string within v, those of maps apart.
func eachString(v reflect.Value, visit func(reflect.Value)) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			eachString(v.Elem(), visit)
		}
	case reflect.Struct:
		if opaque[v.Type()] || v.Type() == typeObjectMeta {
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				eachString(v.Field(i), visit)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			eachString(v.Index(i), visit)
		}
	case reflect.String:
		if v.Len() < 300 {
			visit(v)
		}
	}
}

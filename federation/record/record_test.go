package record_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/record"
	"github.com/causeway-mesh/causeway/federation/record/recordtest"
	"github.com/causeway-mesh/causeway/federation/store"
)

const east cluster.ID = "east"

func encode(o *cluster.Object) (record.Record, error) {
	if o.Kind == cluster.KindEndpointSlice {
		return record.EncodeSlice(o)
	}
	return record.EncodeObject(o)
}

func kv(r record.Record) store.KV {
	return store.KV{Key: r.Key, Value: r.Value, CreateRevision: 7, ModRevision: 9}
}

// What crosses arrives as it was, with the store's rank and without the writer's
// place in its files.
func TestObjectsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := recordtest.Draw(t, east)
		if s, ok := o.Value.(*cluster.EndpointSlice); ok && rapid.Bool().Draw(t, "counted") {
			o.Value = s.Counted()
		}
		var r record.Record
		var err error
		want := []*cluster.Object{o}
		switch o.Kind {
		case cluster.KindSecret:
			if _, err := record.EncodeObject(o); !errors.Is(err, record.ErrNotPublished) {
				t.Fatalf("a Secret was encoded: %v", err)
			}
			if _, err := record.ObjectKey(o); !errors.Is(err, record.ErrNotPublished) {
				t.Fatalf("a Secret has a key: %v", err)
			}
			return
		case cluster.KindService, cluster.KindServiceExport:
			svc, exp := recordtest.Service(east, o.Namespace, o.Name, 1, 8001), recordtest.Export(east, o.Namespace, o.Name, 2, "3")
			r, err = record.EncodeService(svc, exp)
			want = []*cluster.Object{svc, exp}
		case cluster.KindConfigMap:
			if v := o.Value.(*corev1.ConfigMap); !record.HasCA(v) {
				if r, err := record.EncodeObject(o); err == nil {
					t.Fatalf("a ConfigMap without certificates crosses as %s", r.Value)
				}
				return
			}
			r, err = encode(o)
			only := *o
			only.Value = &corev1.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Name}, Data: map[string]string{record.CAKey: recordtest.CA}}
			want[0] = &only
		default:
			r, err = encode(o)
		}
		if err != nil {
			t.Fatal(err)
		}
		if key, err := record.ObjectKey(o); err != nil || key != r.Key {
			t.Fatalf("ObjectKey gives %q, %v; the record is at %q", key, err, r.Key)
		}
		c, err := record.Decode(kv(r))
		if err != nil {
			t.Fatal(err)
		}
		k, _ := store.ParseKey(r.Key)
		refs, err := record.Refs(k)
		if err != nil {
			t.Fatal(err)
		}
		for i, w := range want {
			got := c.Objects[i]
			expected := *w
			expected.Origin = ""
			expected.Seniority.Revision = 7
			if w.Kind == cluster.KindEndpointSlice {
				expected.Seniority = cluster.Seniority{}
			}
			if !reflect.DeepEqual(*got, expected) {
				t.Fatalf("got  %#v\nwant %#v", *got, expected)
			}
			if refs[i] != got.Ref {
				t.Fatalf("Refs says %s, the record holds %s", refs[i], got.Ref)
			}
		}
		if again, err := encodeAgain(c.Objects); err != nil || !slices.Equal(again.Value, r.Value) {
			t.Fatalf("encoding what was decoded gives other bytes (%v)", err)
		}
	})
}

func encodeAgain(objects []*cluster.Object) (record.Record, error) {
	if len(objects) == 2 {
		return record.EncodeService(objects[0], objects[1])
	}
	return encode(objects[0])
}

// Status, managed fields, owners, the last-applied annotation, and what of a
// Service means nothing elsewhere, stay at home.
func TestOnlyWhatIsMeantToCrosses(t *testing.T) {
	secret := "stays-at-home"
	om := metav1.ObjectMeta{Namespace: "app", Name: "a", UID: "stays-at-home", ResourceVersion: secret,
		Annotations:   map[string]string{corev1.LastAppliedConfigAnnotation: secret, "kept": "yes"},
		ManagedFields: []metav1.ManagedFieldsEntry{{Manager: secret}}, OwnerReferences: []metav1.OwnerReference{{Name: secret}}, Finalizers: []string{secret}}

	route := recordtest.Route(east, "app", "a", 1, "a", "b", "/")
	v := route.Value.(*gatewayv1.HTTPRoute)
	v.ObjectMeta = om
	v.Status.Parents = []gatewayv1.RouteParentStatus{{ControllerName: gatewayv1.GatewayController(secret)}}
	r, err := record.EncodeObject(route)
	if err != nil {
		t.Fatal(err)
	}
	if s := string(r.Value); strings.Contains(s, secret) || !strings.Contains(s, `"kept":"yes"`) {
		t.Errorf("route crosses as %s", s)
	}

	cm := recordtest.ConfigMap(east, "app", "a", 1, recordtest.CA)
	c := cm.Value.(*corev1.ConfigMap)
	c.ObjectMeta = om
	c.Labels, c.Data["other"], c.BinaryData = map[string]string{"label": secret}, secret, map[string][]byte{"ca.crt": []byte(secret)}
	if r, err = record.EncodeObject(cm); err != nil {
		t.Fatal(err)
	}
	if s := string(r.Value); strings.Contains(s, secret) || strings.Contains(s, "kept") || !strings.Contains(s, "BEGIN CERTIFICATE") {
		t.Errorf("certificates cross as %s", s)
	}

	svc, exp := recordtest.Service(east, "app", "a", 1, 80), recordtest.Export(east, "app", "a", 1, "1")
	s := svc.Value.(*corev1.Service)
	s.ObjectMeta = om
	s.Labels = map[string]string{"label": secret}
	s.Spec.Selector = map[string]string{"app": secret}
	s.Spec.ClusterIP, s.Spec.ExternalIPs, s.Spec.LoadBalancerIP = "10.9.8.7", []string{secret}, secret
	if r, err = record.EncodeService(svc, exp); err != nil {
		t.Fatal(err)
	}
	if text := string(r.Value); strings.Contains(text, secret) || strings.Contains(text, "10.9.8.7") || strings.Contains(text, "kept") {
		t.Errorf("service crosses as %s", text)
	}
}

func TestMetaTrustAliveRoundTrip(t *testing.T) {
	der := recordtest.Authority(t)
	meta := cluster.Meta{Region: "eu", Zone: "eu-1", Network: "net", TrustDomain: "east.example", Crossing: []string{"[fd00::1]:15443", "gw.example:15443"}}
	for _, m := range []cluster.Meta{meta, {}} {
		r, err := record.EncodeMeta(east, m)
		if err != nil {
			t.Fatal(err)
		}
		c, err := record.Decode(kv(r))
		if err != nil || !c.Meta.Equal(m) || c.Cluster != east {
			t.Errorf("meta %+v comes back as %+v, %v", m, c.Meta, err)
		}
	}
	r, err := record.EncodeTrust(east, record.Trust{TrustDomain: "east.example", Authorities: [][]byte{der}, Sealing: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	c, err := record.Decode(kv(r))
	if err != nil || c.Trust.TrustDomain != "east.example" || !slices.Equal(c.Trust.Authorities[0], der) {
		t.Errorf("trust comes back as %+v, %v", c.Trust, err)
	}
	if r, err = record.EncodeAlive(east, "agent-0"); err != nil {
		t.Fatal(err)
	}
	if c, err = record.Decode(kv(r)); err != nil || c.Agent != "agent-0" {
		t.Errorf("alive comes back as %+v, %v", c, err)
	}
}

// Hostile records: each is refused, with an error that names cluster, key and object.
func TestRefused(t *testing.T) {
	der := recordtest.Authority(t)
	route := func(change func(*gatewayv1.HTTPRoute)) proto.Message {
		o := recordtest.Route(east, "app", "a", 1, "a", "b", "/")
		r, err := record.EncodeObject(o)
		if err != nil {
			t.Fatal(err)
		}
		var msg causewayv1.Object
		if err := proto.Unmarshal(r.Value, &msg); err != nil {
			t.Fatal(err)
		}
		change(o.Value.(*gatewayv1.HTTPRoute))
		msg.Json = marshal(t, o.Value)
		return &msg
	}
	slice := func(change func(*causewayv1.EndpointSlice)) proto.Message {
		msg := &causewayv1.EndpointSlice{Namespace: "app", Name: "a-1", Service: "a",
			Ports:     []*causewayv1.EndpointPort{{Port: 80, Protocol: "TCP"}},
			Endpoints: []*causewayv1.Endpoint{{Address: []byte{10, 0, 0, 1}, Ready: true, Serving: true}}}
		change(msg)
		return msg
	}
	service := func(json string) proto.Message {
		return &causewayv1.ExportedService{Namespace: "app", Name: "a",
			Service: []byte(`{"metadata":{"namespace":"app","name":"a"},"spec":` + json + `}`), Export: []byte(`{"metadata":{"namespace":"app","name":"a"}}`)}
	}
	const (
		routeKey   = "/causeway/v1/clusters/east/routes/httproute/app/a"
		sliceKey   = "/causeway/v1/clusters/east/endpoints/app/a/a-1"
		serviceKey = "/causeway/v1/clusters/east/services/app/a"
	)
	long := strings.Repeat("x", 5000)
	for name, c := range map[string]struct {
		key  string
		msg  proto.Message
		want string
	}{
		"route of another namespace":     {"/causeway/v1/clusters/east/routes/httproute/other/a", route(func(*gatewayv1.HTTPRoute) {}), "its key of HTTPRoute/other/a"},
		"route with another name inside": {routeKey, route(func(r *gatewayv1.HTTPRoute) { r.Name = "b" }), "value is of HTTPRoute/app/b"},
		"another kind":                   {"/causeway/v1/clusters/east/gateways/gateway/app/a", route(func(*gatewayv1.HTTPRoute) {}), "value is of HTTPRoute/app/a"},
		"header with a line break": {routeKey, route(func(r *gatewayv1.HTTPRoute) {
			r.Spec.Rules[0].Matches[0].Headers = []gatewayv1.HTTPHeaderMatch{{Name: "h", Value: "a\r\nx: y"}}
		}), "control characters"},
		"header name": {routeKey, route(func(r *gatewayv1.HTTPRoute) {
			r.Spec.Rules[0].Filters = []gatewayv1.HTTPRouteFilter{{RequestHeaderModifier: &gatewayv1.HTTPHeaderFilter{Remove: []string{"a b"}}}}
		}), "header name"},
		"long string":     {routeKey, route(func(r *gatewayv1.HTTPRoute) { *r.Spec.Rules[0].Matches[0].Path.Value = "/" + long }), "longer than"},
		"many rules":      {routeKey, route(func(r *gatewayv1.HTTPRoute) { r.Spec.Rules = make([]gatewayv1.HTTPRouteRule, 200) }), "at most 128"},
		"negative weight": {routeKey, route(func(r *gatewayv1.HTTPRoute) { w := int32(-1); r.Spec.Rules[0].BackendRefs[0].Weight = &w }), "weight -1"},
		"port":            {routeKey, route(func(r *gatewayv1.HTTPRoute) { p := int32(70000); r.Spec.Rules[0].BackendRefs[0].Port = &p }), "port 70000"},
		"hostname":        {routeKey, route(func(r *gatewayv1.HTTPRoute) { r.Spec.Hostnames = []gatewayv1.Hostname{"a.*.b"} }), "hostname"},
		"timeout": {routeKey, route(func(r *gatewayv1.HTTPRoute) {
			d := gatewayv1.Duration("forever")
			r.Spec.Rules[0].Timeouts = &gatewayv1.HTTPRouteTimeouts{Request: &d}
		}), "timeout"},
		"label":               {routeKey, route(func(r *gatewayv1.HTTPRoute) { r.Labels = map[string]string{"a b": "c"} }), "metadata.labels"},
		"no JSON":             {routeKey, &causewayv1.Object{Kind: "HTTPRoute", Namespace: "app", Name: "a", Json: []byte("{")}, "JSON of HTTPRoute/app/a"},
		"deep JSON":           {routeKey, &causewayv1.Object{Kind: "HTTPRoute", Namespace: "app", Name: "a", Json: []byte(strings.Repeat(`{"a":`, 20000))}, "JSON of"},
		"route of no kind":    {"/causeway/v1/clusters/east/routes/secret/app/a", route(func(*gatewayv1.HTTPRoute) {}), "unknown to this version"},
		"too few names":       {"/causeway/v1/clusters/east/services/a", service(`{}`), "has 1 names"},
		"unknown section":     {"/causeway/v1/clusters/east/strange/app/a", service(`{}`), "unknown section"},
		"external name":       {serviceKey, service(`{"type":"ExternalName","externalName":"x.example"}`), "ExternalName"},
		"service port":        {serviceKey, service(`{"ports":[{"port":0,"protocol":"TCP"}]}`), "port 0"},
		"service protocol":    {serviceKey, service(`{"ports":[{"port":80,"protocol":"ICMP"}]}`), "ICMP"},
		"service port twice":  {serviceKey, service(`{"ports":[{"name":"a","port":80,"protocol":"TCP"},{"name":"b","port":80,"protocol":"TCP"}]}`), "twice"},
		"slice of another":    {sliceKey, slice(func(s *causewayv1.EndpointSlice) { s.Service = "b" }), `Service "b"`},
		"many endpoints":      {sliceKey, slice(func(s *causewayv1.EndpointSlice) { s.Endpoints = make([]*causewayv1.Endpoint, 1001); fill(s.Endpoints) }), "1001 endpoints"},
		"address of 5 bytes":  {sliceKey, slice(func(s *causewayv1.EndpointSlice) { s.Endpoints[0].Address = []byte{1, 2, 3, 4, 5} }), "5 bytes"},
		"unspecified address": {sliceKey, slice(func(s *causewayv1.EndpointSlice) { s.Endpoints[0].Address = []byte{0, 0, 0, 0} }), "0.0.0.0"},
		"both and counts":     {sliceKey, slice(func(s *causewayv1.EndpointSlice) { s.Counts = &causewayv1.EndpointCounts{} }), "both endpoints and counts"},
		"high count": {sliceKey, slice(func(s *causewayv1.EndpointSlice) {
			s.Endpoints, s.Counts = nil, &causewayv1.EndpointCounts{Leaving: 1 << 31, NotReady: 1 << 31}
		}), "2147483648 endpoints"},
		"high sum": {sliceKey, slice(func(s *causewayv1.EndpointSlice) {
			s.Endpoints, s.Counts = nil, &causewayv1.EndpointCounts{Ready: 500, NotReady: 501}
		}), "1001 endpoints"},
		"slice port":         {sliceKey, slice(func(s *causewayv1.EndpointSlice) { s.Ports[0].Port = 65536 }), "65536"},
		"ready, terminating": {sliceKey, slice(func(s *causewayv1.EndpointSlice) { s.Endpoints[0].Terminating = true }), "both ready and terminating"},
		"meta of another":    {"/causeway/v1/clusters/east/meta/cluster", &causewayv1.Meta{Cluster: "west"}, `cluster "west"`},
		"meta elsewhere":     {"/causeway/v1/clusters/east/meta/other", &causewayv1.Meta{Cluster: "east"}, `not "cluster"`},
		"crossing":           {"/causeway/v1/clusters/east/meta/cluster", &causewayv1.Meta{Cluster: "east", Crossing: []string{"gw"}}, "host:port"},
		"trust of another":   {"/causeway/v1/clusters/east/trust/east.example", &causewayv1.Trust{TrustDomain: "west.example", Authorities: [][]byte{der}}, "west.example"},
		"trust without a CA": {"/causeway/v1/clusters/east/trust/east.example", &causewayv1.Trust{TrustDomain: "east.example"}, "no authority"},
		"trust of noise":     {"/causeway/v1/clusters/east/trust/east.example", &causewayv1.Trust{TrustDomain: "east.example", Authorities: [][]byte{{1}}}, "no certificate"},
		"alive of another":   {"/causeway/v1/clusters/east/alive/agent-0", &causewayv1.Alive{Agent: "agent-1"}, "agent-1"},
	} {
		t.Run(name, func(t *testing.T) {
			value, err := proto.Marshal(c.msg)
			if err != nil {
				t.Fatal(err)
			}
			_, err = record.Decode(store.KV{Key: c.key, Value: value, CreateRevision: 1, ModRevision: 1})
			var e *record.Error
			if !errors.As(err, &e) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v does not say %q", err, c.want)
			}
			if p := e.Problem(); p.Where != c.key || p.Message == "" || name != "unknown section" && p.Cluster != east {
				t.Errorf("problem %+v", p)
			}
		})
	}
	big := store.KV{Key: routeKey, Value: make([]byte, record.MaxValueBytes+1)}
	if _, err := record.Decode(big); err == nil || len(err.Error()) > 2000 {
		t.Errorf("a value of %d bytes: %v", len(big.Value), err)
	}
}

func fill(es []*causewayv1.Endpoint) {
	for i := range es {
		es[i] = &causewayv1.Endpoint{Address: []byte{10, 0, byte(i >> 8), byte(i)}}
	}
}

// What can't be read elsewhere is refused where it is written.
func TestEncodeRefuses(t *testing.T) {
	svc := recordtest.Service(east, "app", "a", 1, 80)
	huge := recordtest.Route(east, "app", "a", 1, "a", "b", "/")
	huge.Value.(*gatewayv1.HTTPRoute).Annotations = map[string]string{"a": strings.Repeat("x", 1<<20)}
	for name, encode := range map[string]func() (record.Record, error){
		"annotations of 1 MiB": func() (record.Record, error) { return record.EncodeObject(huge) },
		"export of another": func() (record.Record, error) {
			return record.EncodeService(svc, recordtest.Export(east, "app", "b", 1, "1"))
		},
		"external name": func() (record.Record, error) {
			s := recordtest.Service(east, "app", "a", 1, 80)
			s.Value.(*corev1.Service).Spec.Type = corev1.ServiceTypeExternalName
			return record.EncodeService(s, recordtest.Export(east, "app", "a", 1, "1"))
		},
		"upper-case name": func() (record.Record, error) {
			return record.EncodeObject(recordtest.Route(east, "app", "A", 1, "a", "b", "/"))
		},
		"1001 endpoints": func() (record.Record, error) {
			return record.EncodeSlice(recordtest.Slice(east, "app", "a", "s", 1, 1001))
		},
		"bad cluster":       func() (record.Record, error) { return record.EncodeMeta("East", cluster.Meta{}) },
		"crossing":          func() (record.Record, error) { return record.EncodeMeta(east, cluster.Meta{Crossing: []string{"x:0"}}) },
		"agent with slash":  func() (record.Record, error) { return record.EncodeAlive(east, "a/b") },
		"trust without CAs": func() (record.Record, error) { return record.EncodeTrust(east, record.Trust{TrustDomain: "td"}) },
	} {
		if r, err := encode(); err == nil {
			t.Errorf("%s: encoded as %s", name, r.Key)
		}
	}
}

func dump(objects []*cluster.Object) (s string) {
	for _, o := range objects {
		s += fmt.Sprintf("%s %+v %+v\n", o.Ref, o.Seniority, o.Value)
	}
	return s
}

// A copy on disk comes back as it was, with what was added; cut or changed anywhere,
// what comes before that is what comes back.
func TestCopy(t *testing.T) {
	meta := store.KV{Key: "/causeway/v1/clusters/a/meta/cluster", Value: []byte("x"), CreateRevision: 2, ModRevision: 4}
	alive := store.KV{Key: "/causeway/v1/clusters/a/alive/n", Value: []byte("y"), CreateRevision: 3, ModRevision: 3, Leased: true}
	large := store.KV{Key: "/causeway/v1/clusters/a/routes/r", Value: make([]byte, record.MaxValueBytes), CreateRevision: 11, ModRevision: 11}
	larger := large
	larger.Key += "2"
	back := alive
	back.CreateRevision, back.ModRevision = 14, 14
	var b bytes.Buffer
	ends := []int{}
	for i, c := range []record.CopyChange{
		{Revision: 9, Put: slices.Values([]store.KV{meta, alive})},
		{Revision: 12, Put: slices.Values([]store.KV{large, larger}), Removed: slices.Values([]string{alive.Key})},
		{Revision: 14, Put: slices.Values([]store.KV{back}), Removed: slices.Values([]string{large.Key, larger.Key})},
	} {
		write, before := record.AppendCopy, b.Len()
		if i == 0 {
			write = record.WriteCopy
		}
		if n, err := write(&b, c); err != nil || int(n) != b.Len()-before {
			t.Fatalf("%d bytes written, %d told, %v", b.Len()-before, n, err)
		}
		ends = append(ends, b.Len())
	}
	revisions := []int64{9, 12, 14}
	want := [][]store.KV{{meta, alive}, {meta, large, larger}, {meta, back}}
	check := func(data []byte, steps int, whole bool, what string, at int) {
		t.Helper()
		rev, got, cut, err := record.ReadCopy(bytes.NewReader(data), 1<<30)
		switch {
		case steps == 0 && err == nil:
			t.Fatalf("%s %d, and it was taken", what, at)
		case steps > 0 && (err != nil || rev != revisions[steps-1] || !reflect.DeepEqual(got, want[steps-1]) || (cut == nil) != whole):
			t.Fatalf("%s %d: revision %d with %d records, cut: %v, %v", what, at, rev, len(got), cut, err)
		}
	}
	for i := range ends {
		check(b.Bytes()[:ends[i]], i+1, true, "whole up to", i)
	}
	for i := range b.Len() {
		if i%9 > 0 || i > ends[0]+200 && i < ends[1]-200 { // two megabytes of zeros
			continue
		}
		steps := len(ends) - len(slices.DeleteFunc(slices.Clone(ends), func(end int) bool { return end <= i }))
		check(b.Bytes()[:i], steps, slices.Contains(ends, i), "cut at", i)
		broken := slices.Clone(b.Bytes())
		broken[i] ^= 0x10
		check(broken, steps, false, "changed byte", i)
	}
	if _, _, _, err := record.ReadCopy(&b, 10); err == nil {
		t.Error("larger than its limit, and it was taken")
	}
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What is sealed comes back as it was, and is bounded; a key that is none seals nothing.
func TestSealedRoundTrip(t *testing.T) {
	want := &cluster.SealedSecret{Key: bytes.Repeat([]byte{1}, 32), Sealed: []byte("sealed"), Mark: []byte("mark")}
	r, err := record.EncodeSealed(east, "app", "a", "west", want)
	if err != nil {
		t.Fatal(err)
	}
	if r.Key != store.ClustersPrefix+"east/secrets/app/a/west" {
		t.Errorf("key %s", r.Key)
	}
	c, err := record.Decode(store.KV{Key: r.Key, Value: r.Value, CreateRevision: 7})
	if err != nil || len(c.Objects) != 1 || !reflect.DeepEqual(c.Objects[0].Value, want) || c.Objects[0].Name != cluster.SealedName("west", "a") {
		t.Errorf("%+v (%v)", c.Objects, err)
	}
	if _, err := record.Decode(store.KV{Key: strings.Replace(r.Key, "/west", "/north", 1), Value: r.Value, CreateRevision: 7}); err == nil {
		t.Error("it was taken for another cluster")
	}
	for name, s := range map[string]*cluster.SealedSecret{
		"a short key": {Key: make([]byte, 31)}, "too much": {Key: want.Key, Sealed: make([]byte, cluster.MaxTravelBytes+2048)}, "a long mark": {Key: want.Key, Mark: make([]byte, 65)},
	} {
		if _, err := record.EncodeSealed(east, "app", "a", "west", s); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if _, err := record.EncodeTrust(east, record.Trust{TrustDomain: "td", Authorities: [][]byte{recordtest.Authority(t)}, Sealing: []byte{1}}); err == nil {
		t.Error("a sealing key of one byte was taken")
	}
	if _, err := record.EncodeCertificate(make([]byte, cluster.MaxTravelBytes), nil); err == nil {
		t.Error("a certificate of 64 KiB and more was taken")
	}
	if _, _, err := record.DecodeCertificate([]byte("-----BEGIN PRIVATE KEY-----")); err == nil || strings.Contains(err.Error(), "PRIVATE") {
		t.Errorf("error %v", err)
	}
}

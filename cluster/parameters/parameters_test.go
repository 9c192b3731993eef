package parameters

import (
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func TestParse(t *testing.T) {
	two := int32(2)
	for _, c := range []struct {
		data map[string]string
		want Parameters
		says string // of the error
	}{
		{data: nil},
		{data: map[string]string{
			"replicas": "2", "resources": "requests: {cpu: 100m}\nlimits: {memory: 1Gi}\n", "serviceType": "NodePort", "ipFamilyPolicy": "PreferDualStack",
			"image": "registry.example.com:5000/team/envoy:v1", "logLevel": "debug", "accessLog": "json\n",
		}, want: Parameters{
			Replicas: &two, ServiceType: corev1.ServiceTypeNodePort, IPFamilyPolicy: corev1.IPFamilyPolicyPreferDualStack,
			Resources: &corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("100m")}, Limits: corev1.ResourceList{"memory": resource.MustParse("1Gi")}},
			Image:     "registry.example.com:5000/team/envoy:v1", LogLevel: "debug", AccessLog: AccessLogJSON,
		}},
		{data: map[string]string{"accessLog": "off"}},
		{data: map[string]string{"accessLog": `%START_TIME(%Y-%m-%d)% %REQ(X-A?:PATH):40% 100%%`}, want: Parameters{AccessLog: `%START_TIME(%Y-%m-%d)% %REQ(X-A?:PATH):40% 100%%`}},
		{data: map[string]string{"replicas": "0"}, says: `replicas: "0" is not a number from 1 to 1000`},
		{data: map[string]string{"replicas": "9223372036854775807"}, says: "is not a number"},
		{data: map[string]string{"replica": "2"}, says: "replica: there is no such option: there are accessLog, image, ipFamilyPolicy, logLevel, replicas, resources, serviceType"},
		{data: map[string]string{"serviceType": "ExternalName"}, says: "is not LoadBalancer, NodePort or ClusterIP"},
		{data: map[string]string{"resources": "requests: {cpu: lots}"}, says: "not the resources of a container"},
		{data: map[string]string{"resources": "claims: []"}, says: "not the resources of a container"},
		{data: map[string]string{"resources": "requests: {cpu: -1}"}, says: "cpu is negative"},
		{data: map[string]string{"resources": "requests: {gpu: 1}"}, says: "is not cpu, memory"},
		{data: map[string]string{"resources": "requests: {cpu: 2}\nlimits: {cpu: 1}"}, says: "more cpu is requested (2) than the limit (1)"},
		{data: map[string]string{"image": "an image"}, says: "is no image"},
		{data: map[string]string{"logLevel": "loud"}, says: "is none of trace"},
		{data: map[string]string{"accessLog": "yes"}, says: "is not off, json, text, or a format"},
		{data: map[string]string{"accessLog": "%REQ%"}, says: "%REQ% is no command"},
		{data: map[string]string{"accessLog": "%DURATION(1)%"}, says: "is no command"},
		{data: map[string]string{"accessLog": "100% %DURATION%"}, says: "a % is written %%"},
		{data: map[string]string{"accessLog": "%ENVIRONMENT(SECRET)%"}, says: "is no command"},
		{data: map[string]string{strings.Repeat("k", 200): ""}, says: strings.Repeat("k", 80) + ": there is no"},
	} {
		got, err := Parse(c.data)
		switch {
		case c.says == "" && err != nil:
			t.Errorf("%v: %v", c.data, err)
		case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%v: %v, should say %q", c.data, err, c.says)
		case c.says == "" && !reflect.DeepEqual(got, c.want):
			t.Errorf("%v: %+v, want %+v", c.data, got, c.want)
		}
	}
	// What is right is read beside what is wrong, all of which is named.
	some, err := Parse(map[string]string{"accessLog": "json", "replicas": "many", "image": "an image"})
	if err == nil || err.Error() != `image: "an image" is no image: use REGISTRY/REPOSITORY:TAG; replicas: "many" is not a number from 1 to 1000` || !reflect.DeepEqual(some, Parameters{AccessLog: AccessLogJSON}) {
		t.Errorf("%+v: %v", some, err)
	}
	text, err := Parse(map[string]string{"accessLog": "text"})
	if err != nil || checkFormat(text.AccessLog) != nil {
		t.Errorf("text is %q (%v)", text.AccessLog, err)
	}
}

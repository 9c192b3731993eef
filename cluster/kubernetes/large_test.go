package kubernetes_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typed "k8s.io/client-go/kubernetes"

	"golang.org/x/sync/errgroup"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/kubernetes"
	"github.com/causeway-mesh/causeway/test/lab"
)

// A cluster of 1,000 Services with ten endpoints each is read within the 5 s that a
// start may take.
func TestLarge(t *testing.T) {
	if testing.Short() {
		t.Skip("it makes 2,000 objects")
	}
	t.Parallel()
	cp := lab.StartControlPlane(t, everything)
	api, err := typed.NewForConfig(cp.Config)
	if err != nil {
		t.Fatal(err)
	}
	const services, endpoints = 1000, 10
	var g errgroup.Group
	g.SetLimit(16)
	for i := range services {
		g.Go(func() error {
			name := fmt.Sprintf("svc-%d", i)
			if _, err := api.CoreV1().Services("default").Create(t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}}}, metav1.CreateOptions{}); err != nil {
				return err
			}
			port, portName := int32(8080), "http"
			s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{cluster.LabelServiceName: name}}, AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &portName, Port: &port}}}
			for j := range endpoints {
				s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.%d.%d.%d", j, i/250, i%250+1)}, TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: fmt.Sprintf("%s-%d", name, j)}})
			}
			_, err := api.DiscoveryV1().EndpointSlices("default").Create(t.Context(), s, metav1.CreateOptions{})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	// A fresh API server asks for patience with kinds that nobody has read before.
	client := asAgent(t, cp)
	first := run(t, kubernetes.Config{Client: client})
	first.await(t, "the first full set", func() bool { return first.synced })
	first.stop()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	// How fast this machine is just now: the bare lists, by another client, decoded from JSON.
	// They take some 150 ms where nobody else works.
	bare := time.Now()
	if _, err := api.CoreV1().Services("").List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := api.DiscoveryV1().EndpointSlices("").List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	most := max(5*time.Second, 20*time.Since(bare))
	w := run(t, kubernetes.Config{Client: client})
	took := w.await(t, "the first full set", func() bool { return w.synced })
	runtime.GC()
	runtime.ReadMemStats(&after)
	n := 0
	for _, o := range w.current(t) {
		if s, ok := o.Value.(*cluster.EndpointSlice); ok {
			n += len(s.Endpoints)
		}
	}
	if n != services*endpoints {
		t.Errorf("%d endpoints", n)
	}
	t.Logf("%d Services with %d endpoints each were read in %s, of at most %s; %d KiB more in the heap", services, endpoints, took.Round(time.Millisecond), most.Round(time.Millisecond), (after.HeapAlloc-before.HeapAlloc)>>10)
	if took > most {
		t.Errorf("reading took %s; want %s", took, most)
	}
}

package file

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/workload"
	"github.com/causeway-mesh/causeway/cluster/workload/echo"
)

type addresses struct{ n byte }

func (a *addresses) Addr(string) (netip.Addr, error) {
	a.n++
	pid := os.Getpid()
	return netip.AddrFrom4([4]byte{127, byte(180 + pid>>8%64), byte(pid), a.n}), nil
}

func (*addresses) Release(string) {}

// Manifests in the manner of a tutorial run as they stand; an edit and what is
// made up of it come in one batch, which Sync waits for.
func TestTutorial(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has all of 127.0.0.0/8 without set-up")
	}
	t.Parallel()
	text, err := os.ReadFile("testdata/tutorial/reviews.yaml")
	if err != nil {
		t.Fatal(err)
	}
	m, err := workload.New(workload.Config{Cluster: "east", Addresses: &addresses{}, Logger: slog.New(slog.DiscardHandler), Grace: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write(t, dir, "reviews.yaml", string(text))
	r := start(t, Config{Dir: dir, Workloads: m})
	slice := func(s *state, service string) *cluster.EndpointSlice {
		o := s.objects[cluster.Ref{Kind: cluster.KindEndpointSlice, Namespace: "shop", Name: service + "-workload"}]
		if o == nil {
			t.Fatalf("no slice of %s in:\n%s", service, describe(s))
		}
		return o.Value.(*cluster.EndpointSlice)
	}
	var gone cluster.Endpoint
	r.now(func(s *state) {
		if len(s.problems) != 0 || len(s.batches) != 1 {
			t.Errorf("%d batches, %v", len(s.batches), s.problems)
		}
		for service, n := range map[string]int{"reviews": 3, "reviews-v1": 2, "reviews-v2": 1} {
			sl := slice(s, service)
			if len(sl.Endpoints) != n || sl.Service != service || sl.Ports[0].Name != "http" {
				t.Errorf("%s: %+v", service, sl)
			}
			for _, e := range sl.Endpoints {
				resp, err := http.Get("http://" + netip.AddrPortFrom(e.Addr, sl.Ports[0].Port).String() + "/x")
				if err != nil {
					t.Fatal(err)
				}
				var echo echo.HTTP
				if err := json.NewDecoder(resp.Body).Decode(&echo); err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if !e.Ready || echo.Pod != e.Pod || echo.Namespace != "shop" || echo.Cluster != "east" || echo.Path != "/x" {
					t.Errorf("%+v answers %+v", e, echo)
				}
			}
		}
		gone = slice(s, "reviews-v1").Endpoints[1]
	})

	r.edit(t, "reviews.yaml", strings.Replace(string(text), "replicas: 2", "replicas: 1", 1))
	r.sync(t)
	r.now(func(s *state) {
		if n := len(slice(s, "reviews").Endpoints); n != 2 || len(s.batches) != 2 {
			t.Errorf("%d endpoints after %d batches", n, len(s.batches))
		}
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(2 * time.Millisecond) {
		conn, err := net.Dial("tcp", fmt.Sprintf("%s:9080", gone.Addr))
		if err != nil {
			break // closed after its grace, by the source's own clock
		}
		conn.Close()
		if time.Now().After(deadline) {
			t.Fatal("a replica that is gone listens on")
		}
	}

	// The user's own slice of the name of ours stands beside it.
	r.edit(t, "own.yaml", `
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: reviews-workload, namespace: shop, labels: {kubernetes.io/service-name: reviews}}
addressType: IPv4
ports: [{name: http, port: 1}]
endpoints: [{addresses: [127.0.0.1]}]
`)
	r.sync(t)
	r.now(func(s *state) {
		if own := slice(s, "reviews"); len(own.Endpoints) != 1 || own.Ports[0].Port != 1 {
			t.Errorf("%+v", own)
		}
		if s.objects[cluster.Ref{Kind: cluster.KindEndpointSlice, Namespace: "shop", Name: "reviews-workload-2"}] == nil {
			t.Error("ours is gone")
		}
	})
}

package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/causeway-mesh/causeway/test/lab"
)

// Answers is what the client of the image causeway-test prints of requests.
type Answers struct {
	Answers []struct {
		Status                  int
		Cluster, Namespace, Pod string
		Body, Error             string
	}
	Clusters, Pods map[string]int
	Failed         int
}

// Records is what it prints of a look-up.
type Records struct {
	RCode   string
	Records []string
}

// Client runs the client in a pod and reads what it prints.
func Client[T any](ctx context.Context, c *lab.Cluster, namespace, pod string, argv ...string) (out T, err error) {
	text, err := c.Exec(ctx, namespace, pod, "", append([]string{"/usr/local/bin/causeway-test"}, argv...)...)
	if err != nil {
		return out, err
	}
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		return out, fmt.Errorf("%q: %w", text, err)
	}
	return out, nil
}

// Traffic are requests without a pause, each on a connection of its own, from a client's pod.
type Traffic struct {
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu    sync.Mutex
	sent  int
	lost  []string
	error error
}

// Senders of one Traffic, and how many requests each of their runs in the pod sends.
const (
	senders = 2
	inRun   = 50
)

// Send begins to send requests from the pod of an idle client. Until End the pod has to be
// there, and the API server, by which the runs are told to begin.
func Send(t testing.TB, c *lab.Cluster, namespace, pod, url string) *Traffic {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	f := &Traffic{stop: stop}
	for range senders {
		f.wg.Go(func() {
			for ctx.Err() == nil {
				// A run that has begun goes to its end, or nobody would hear of its last answers.
				f.add(Client[Answers](context.WithoutCancel(ctx), c, namespace, pod, "http", "-n", fmt.Sprint(inRun), "-every", "15ms", "-timeout", "10s", url))
			}
		})
	}
	t.Cleanup(func() {
		stop()
		f.wg.Wait()
	})
	return f
}

func (f *Traffic) add(a Answers, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.error = errors.Join(f.error, err)
		f.stop()
		return
	}
	f.sent += len(a.Answers)
	for i, x := range a.Answers {
		if x.Error != "" || x.Status != http.StatusOK {
			f.lost = append(f.lost, fmt.Sprintf("%d of the %d until %s: status %d, %s%s", i+1, len(a.Answers), time.Now().UTC().Format("15:04:05.000"), x.Status, x.Error, x.Body))
		}
	}
}

// End ends it, and fails the test unless every request was answered with success. It gives how
// many it were.
func (f *Traffic) End(t testing.TB) int {
	t.Helper()
	f.stop()
	f.wg.Wait()
	if f.error != nil {
		t.Errorf("after %d requests: %v", f.sent, f.error)
	}
	if len(f.lost) > 0 {
		t.Errorf("%d of %d requests were lost:\n%s", len(f.lost), f.sent, strings.Join(f.lost[:min(len(f.lost), 20)], "\n"))
	}
	return f.sent
}

package fleet

import (
	"context"
	"io"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/causeway-mesh/causeway/test/lab"
)

const maxLog = 32 << 10

// logs shows what our own pods have said, of a test that failed.
func (f *Fleet) logs(t testing.TB) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
	defer cancel()
	for _, c := range f.Clusters {
		if err := podLogs(ctx, t, c); err != nil {
			t.Logf("%s: no logs: %v", c.Name, err)
		}
	}
}

func podLogs(ctx context.Context, t testing.TB, c *lab.Cluster) error {
	k, err := kubernetes.NewForConfig(c.Config)
	if err != nil {
		return err
	}
	pods, err := k.CoreV1().Pods("causeway-system").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	tail := int64(60)
	for _, p := range pods.Items {
		t.Logf("%s: pod %s is %s: %v", c.Name, p.Name, p.Status.Phase, waiting(&p))
		for _, container := range p.Spec.Containers {
			r, err := k.CoreV1().Pods(p.Namespace).GetLogs(p.Name, &corev1.PodLogOptions{Container: container.Name, TailLines: &tail}).Stream(ctx)
			if err != nil {
				t.Logf("%s/%s: %v", p.Name, container.Name, err)
				continue
			}
			text, err := io.ReadAll(io.LimitReader(r, maxLog))
			r.Close()
			t.Logf("%s/%s: %s%v", p.Name, container.Name, text, err)
		}
	}
	return nil
}

func waiting(p *corev1.Pod) (out []string) {
	for _, s := range p.Status.ContainerStatuses {
		if w := s.State.Waiting; w != nil {
			out = append(out, s.Name+": "+w.Reason+" "+w.Message)
		}
		if x := s.LastTerminationState.Terminated; x != nil {
			out = append(out, s.Name+" ended before: "+x.Reason+" "+x.Message)
		}
	}
	return out
}

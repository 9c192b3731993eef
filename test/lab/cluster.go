package lab

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
)

// Cluster is a running Kubernetes of one node.
type Cluster struct {
	// Number is the cluster's in its lab, from 1, and Name its name: "c1".
	Number int
	Name   string
	// Kubeconfig is the path of an administrator's kubeconfig file.
	Kubeconfig string
	// Config is the same administrator's, for client-go. It has no limit of requests a second.
	Config *rest.Config

	// What follows is of a lab's clusters alone.

	// Node4 and Node6 are the node's addresses, where hostPorts and NodePorts are reached.
	Node4, Node6 netip.Addr
	// LoadBalancers4 and LoadBalancers6 are the prefixes that LoadBalancer Services get their addresses from.
	LoadBalancers4, LoadBalancers6 netip.Prefix

	node      *node
	apiserver *process
	client    kubernetes.Interface
}

func newCluster(n *node) (*Cluster, error) {
	config, err := adminConfig(n.adminConfig())
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &Cluster{
		Number: n.n, Name: nameOf(n.n), Kubeconfig: n.adminConfig(), Config: config, Node4: n.node4(), Node6: n.node6(),
		LoadBalancers4: n.balancers4(), LoadBalancers6: n.balancers6(), node: n, apiserver: n.apiserverProcess(), client: client,
	}, nil
}

// Foreign says that the cluster is not a lab's, but one of $CAUSEWAY_E2E_KUBECONFIGS: this
// machine may not reach its pods, and what a test leaves in it stays.
func (c *Cluster) Foreign() bool { return c.node == nil }

func nameOf(n int) string { return fmt.Sprintf("c%d", n) }

// up starts all processes, the later ones when what they need answers, and returns
// when the node is ready and DNS answers.
func (c *Cluster) up(ctx context.Context, o Options, images []string) error {
	n := c.node
	etcd, containerd := n.etcdProcess(), n.containerdProcess()
	for _, p := range []*process{etcd, c.apiserver, containerd} {
		if err := p.start(); err != nil {
			return err
		}
	}
	if err := await(ctx, "containerd", 50*time.Millisecond, func(ctx context.Context) error {
		if containerd.pid() == 0 {
			return &terminal{containerd.died()}
		}
		return run(ctx, "ctr", "--address", n.socket(), "version")
	}); err != nil {
		return err
	}
	for _, i := range images {
		if err := n.importImage(ctx, i); err != nil {
			return err
		}
	}
	if err := awaitReady(ctx, c.Config, etcd, c.apiserver); err != nil {
		return err
	}
	later := n.later()
	for _, p := range later {
		if err := p.start(); err != nil {
			return err
		}
	}
	crds, err := o.CRDs.manifests(ctx)
	if err != nil {
		return err
	}
	coredns, err := dns(o.CRDs.MCS)
	if err != nil {
		return err
	}
	if err := c.Apply(ctx, append(append(crds, "\n---\n"...), coredns...)); err != nil {
		return err
	}
	return await(ctx, "node and DNS", 100*time.Millisecond, func(ctx context.Context) error {
		for _, p := range later {
			if p.pid() == 0 {
				return &terminal{p.died()}
			}
		}
		node, err := c.client.CoreV1().Nodes().Get(ctx, n.hostname(), metav1.GetOptions{})
		if err != nil {
			return err
		}
		ready := false
		for _, cond := range node.Status.Conditions {
			ready = ready || cond.Type == corev1.NodeReady && cond.Status == corev1.ConditionTrue
		}
		if !ready {
			return fmt.Errorf("node %s is not ready: %+v", n.hostname(), node.Status.Conditions)
		}
		d, err := c.client.AppsV1().Deployments("kube-system").Get(ctx, "coredns", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if d.Status.ReadyReplicas == 0 || d.Status.ObservedGeneration != d.Generation {
			return fmt.Errorf("CoreDNS is not ready; see kubectl --kubeconfig %s -n kube-system describe pods", c.Kubeconfig)
		}
		return nil
	})
}

// LoadImage loads image archives (of `docker save` or OCI layouts, in tars) into the node.
// Pods use them with any imagePullPolicy but Always.
func (c *Cluster) LoadImage(ctx context.Context, archives ...string) error {
	if c.node == nil {
		return ErrForeign
	}
	for _, a := range archives {
		if err := c.node.importImage(ctx, a); err != nil {
			return err
		}
	}
	return nil
}

// Apply applies manifests, as the function Apply does.
func (c *Cluster) Apply(ctx context.Context, manifests []byte) error {
	if err := Apply(ctx, c.Config, manifests); err != nil {
		return fmt.Errorf("cluster %s: %w", c.Name, err)
	}
	return nil
}

// StopAPIServer kills the cluster's API server, as a crash would; pods go on. It returns when
// its port is closed.
func (c *Cluster) StopAPIServer() error {
	if c.node == nil {
		return ErrForeign
	}
	return c.apiserver.stop(syscall.SIGKILL, stopGrace)
}

// StartAPIServer starts it again, and waits until it is ready.
func (c *Cluster) StartAPIServer(ctx context.Context) error {
	if c.node == nil {
		return ErrForeign
	}
	if err := c.apiserver.start(); err != nil {
		return err
	}
	return awaitReady(ctx, c.Config, c.apiserver)
}

// KillContainer ends a container as a crash would, with the API server or without it. id is a
// ContainerID of a pod's status.
func (c *Cluster) KillContainer(ctx context.Context, id string) error {
	if c.node == nil {
		return ErrForeign
	}
	return c.node.killContainer(ctx, strings.TrimPrefix(id, "containerd://"))
}

// Volumes adds PersistentVolumes without a class to a cluster, folders of its node. A foreign
// cluster is taken to make its own.
func (c *Cluster) Volumes(ctx context.Context, count int) error {
	if c.node == nil {
		return nil
	}
	var manifests bytes.Buffer
	for i := range count {
		dir := c.node.file("volumes", strconv.Itoa(i))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		fmt.Fprintf(&manifests, `---
apiVersion: v1
kind: PersistentVolume
metadata: {name: lab-%d}
spec:
  capacity: {storage: 64Gi}
  accessModes: [ReadWriteOnce]
  local: {path: %q}
  nodeAffinity:
    required:
      nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [%s]}]}]
`, i, dir, c.node.hostname())
	}
	return c.Apply(ctx, manifests.Bytes())
}

// Exec runs a command in a container of a pod (container empty: its only one) and returns what it
// has written. Where it fails the error tells, with what it wrote to stderr.
func (c *Cluster) Exec(ctx context.Context, namespace, pod, container string, argv ...string) (stdout string, err error) {
	req := c.client.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name(pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Container: container, Command: argv, Stdout: true, Stderr: true}, scheme.ParameterCodec)
	exec, err := remotecommand.NewWebSocketExecutor(c.Config, "GET", req.URL().String())
	if err != nil {
		return "", err
	}
	var out, errs bytes.Buffer
	if err := exec.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &out, Stderr: &errs}); err != nil {
		return out.String(), fmt.Errorf("%v in pod %s/%s of cluster %s: %w: %s", argv, namespace, pod, c.Name, err, bytes.TrimSpace(errs.Bytes()))
	}
	return out.String(), nil
}

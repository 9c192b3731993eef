package lab

import (
	"context"
	"crypto/x509/pkix"
	"errors"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/causeway-mesh/causeway/federation/store/etcd/embedded/port"
)

const (
	controlPlaneTimeout = 3 * time.Minute // until an API server is ready; they share a busy machine
	stopGrace           = 10 * time.Second
	serviceRange4       = "10.96.0.0/16" // in every cluster, so they overlap, as in fleets they do
	serviceRange6       = "fd00:10:96::/112"
	firstService        = "10.96.0.1" // of the API server
)

// ControlPlaneOptions says what a ControlPlane has beside its API server.
type ControlPlaneOptions struct {
	CRDs CRDs
	// Controllers adds kube-controller-manager, for what needs garbage collection, namespaces
	// that go, ServiceAccounts or EndpointSlices of pods.
	Controllers bool
}

// ControlPlane is a Kubernetes of an etcd and an API server alone, on loopback ports: no
// node, and so no pod that runs. It needs no root and starts in a few seconds.
type ControlPlane struct {
	// Config is an administrator's. It has no limit of requests a second.
	Config *rest.Config
	// Kubeconfig is the path of a kubeconfig file of the same administrator.
	Kubeconfig string

	dir       string
	ports     []*port.Reservation // the servers' own, whether these run or not
	etcd      *process
	apiserver *process
	manager   *process // nil: there is none
}

// StartControlPlane starts one for a test, and stops it when the test ends. It
// skips the test if the lab's Kubernetes has not been built (`make lab-build`).
func StartControlPlane(t testing.TB, o ControlPlaneOptions) *ControlPlane {
	t.Helper()
	binary, err := kubernetesBinary.find()
	if errors.Is(err, ErrNotBuilt) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), controlPlaneTimeout)
	defer cancel()
	c, err := newControlPlane(binary, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.stop(); err != nil {
			t.Error(err)
		}
		if !t.Failed() {
			return
		}
		for _, p := range c.processes() {
			t.Logf("the end of %s's log:\n%s", p.name, tail(p.logPath(), 10))
		}
	})
	if err := c.start(ctx, binary, o); err != nil {
		t.Fatal(err)
	}
	return c
}

func newControlPlane(binary, dir string) (c *ControlPlane, err error) {
	c = &ControlPlane{dir: dir, Kubeconfig: filepath.Join(dir, "kubeconfig")}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.stop())
		}
	}()
	for range 3 {
		r, err := port.Reserve(0)
		if err != nil {
			return nil, err
		}
		c.ports = append(c.ports, r)
	}
	client, peer, secure := "http://"+c.ports[0].Address(), "http://"+c.ports[1].Address(), c.ports[2]
	ca, err := newAuthority(filepath.Join(dir, "pki"), "control plane")
	if err != nil {
		return nil, err
	}
	if err := ca.issueControlPlane("127.0.0.1", "localhost"); err != nil {
		return nil, err
	}
	if err := ca.kubeconfig(c.Kubeconfig, "control-plane", "https://"+secure.Address(), "admin"); err != nil {
		return nil, err
	}
	if c.Config, err = adminConfig(c.Kubeconfig); err != nil {
		return nil, err
	}
	c.etcd = &process{dir: dir, name: "etcd", args: etcdArgs(binary, filepath.Join(dir, "data"), client, peer)}
	c.apiserver = &process{dir: dir, name: "kube-apiserver", args: append(apiserverArgs(binary, ca, client),
		"--bind-address=127.0.0.1", "--secure-port="+strconv.Itoa(secure.Port()),
		"--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none", // endpoints can't be on loopback
	)}
	return c, nil
}

func (c *ControlPlane) start(ctx context.Context, binary string, o ControlPlaneOptions) error {
	if err := c.etcd.start(); err != nil {
		return err
	}
	if err := c.StartAPIServer(ctx); err != nil {
		return err
	}
	if o.Controllers {
		c.manager = &process{dir: c.dir, name: "kube-controller-manager", args: append(managerArgs(binary, filepath.Join(c.dir, "pki"), c.Kubeconfig), "--secure-port=0")}
		if err := c.manager.start(); err != nil {
			return err
		}
		client, err := kubernetes.NewForConfig(c.Config)
		if err != nil {
			return err
		}
		if err := await(ctx, "the controllers", 50*time.Millisecond, func(ctx context.Context) error {
			if c.manager.pid() == 0 {
				return &terminal{c.manager.died()}
			}
			_, err := client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
			return err
		}); err != nil {
			return err
		}
	}
	manifests, err := o.CRDs.manifests(ctx)
	if err != nil {
		return err
	}
	return Apply(ctx, c.Config, manifests)
}

// StopAPIServer kills the API server, as a crash would. What it holds stays in etcd.
func (c *ControlPlane) StopAPIServer() error { return c.apiserver.stop(syscall.SIGKILL, stopGrace) }

// StartAPIServer starts it again, on the same port, and waits until it is ready.
func (c *ControlPlane) StartAPIServer(ctx context.Context) error {
	if err := c.apiserver.start(); err != nil {
		return err
	}
	return awaitReady(ctx, c.Config, c.etcd, c.apiserver)
}

func (c *ControlPlane) stop() error {
	var errs []error
	for _, p := range c.processes() {
		errs = append(errs, p.stop(syscall.SIGKILL, stopGrace)) // nothing of it is needed again
	}
	for _, r := range c.ports {
		errs = append(errs, r.Close())
	}
	c.ports = nil
	return errors.Join(errs...)
}

func (c *ControlPlane) processes() []*process {
	var all []*process
	for _, p := range []*process{c.apiserver, c.etcd, c.manager} {
		if p != nil {
			all = append(all, p)
		}
	}
	return all
}

// awaitReady waits for the API server, and gives up at once if one of the processes has ended.
func awaitReady(ctx context.Context, config *rest.Config, needs ...*process) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	return await(ctx, "the API server", 50*time.Millisecond, func(ctx context.Context) error {
		for _, p := range needs {
			if p.pid() == 0 {
				return &terminal{p.died()}
			}
		}
		_, err := client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		return err
	})
}

// adminConfig reads a kubeconfig, and lifts client-go's limit of requests a second,
// which would measure itself.
func adminConfig(kubeconfig string) (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	return config, nil
}

// issueControlPlane issues what the API server and its clients need. hosts are those
// that the API server is reached by, beside the Service's.
func (a *authority) issueControlPlane(hosts ...string) error {
	hosts = append(hosts, firstService, "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
	if err := a.issue("apiserver", pkix.Name{CommonName: "kube-apiserver"}, hosts...); err != nil {
		return err
	}
	if err := a.issue("admin", pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}}); err != nil {
		return err
	}
	_, err := a.newKey("service-accounts")
	return err
}

func etcdArgs(binary, data, client, peer string) []string {
	return []string{
		binary, "etcd", "--name=lab", "--data-dir=" + data, "--listen-client-urls=" + client, "--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=lab=" + peer,
		"--unsafe-no-fsync", // it dies with the lab
		"--log-level=warn",
	}
}

func apiserverArgs(binary string, ca *authority, etcd string) []string {
	return []string{
		binary, "kube-apiserver", "--etcd-servers=" + etcd,
		"--cert-dir=" + ca.dir, "--tls-cert-file=" + ca.path("apiserver.crt"), "--tls-private-key-file=" + ca.path("apiserver.key"),
		"--client-ca-file=" + ca.path("ca.crt"), "--authorization-mode=Node,RBAC",
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file=" + ca.path("service-accounts.pub"),
		"--service-account-signing-key-file=" + ca.path("service-accounts.key"),
		"--service-cluster-ip-range=" + serviceRange4 + "," + serviceRange6, "--allow-privileged=true", "--profiling=false",
	}
}

func managerArgs(binary, pki, kubeconfig string) []string {
	file := func(name string) string { return filepath.Join(pki, name) }
	return []string{
		binary, "kube-controller-manager", "--kubeconfig=" + kubeconfig, "--leader-elect=false", "--bind-address=127.0.0.1",
		"--root-ca-file=" + file("ca.crt"), "--service-account-private-key-file=" + file("service-accounts.key"),
		"--cluster-signing-cert-file=" + file("ca.crt"), "--cluster-signing-key-file=" + file("ca.key"),
		"--use-service-account-credentials=true",
	}
}

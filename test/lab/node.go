package lab

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"text/template"

	"sigs.k8s.io/yaml"

	"github.com/causeway-mesh/causeway/deploy/oci"
)

//go:embed manifests
var manifests embed.FS

const (
	dnsService   = "10.96.0.10"
	pauseImage   = "localhost/causeway-lab/pause:1"
	corednsImage = "localhost/causeway-lab/coredns:1"
	maxPods      = 400
)

// packImages packs the images that every node has from the start, next to their binaries
// in the cache, and returns the archives.
func packImages(pausePath, corednsPath string) ([]string, error) {
	var out []string
	for _, i := range []struct {
		name, binary string
	}{{pauseImage, pausePath}, {corednsImage, corednsPath}} {
		archive := i.binary + ".tar"
		out = append(out, archive)
		if exists(archive) {
			continue
		}
		inside := "/" + filepath.Base(i.binary)
		if err := oci.WriteFile(archive, oci.Image{
			Name: i.name, Entrypoint: []string{inside}, Files: []oci.File{{Path: inside, Mode: 0o755, Source: i.binary}},
		}); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// node is a cluster's one node: its files and its processes.
type node struct {
	member
	dir string
	bin string // our Kubernetes
	ca  *authority
}

func (n *node) file(name ...string) string { return filepath.Join(append([]string{n.dir}, name...)...) }
func (n *node) socket() string             { return filepath.Join(runDir(n.name()), "containerd.sock") }
func (n *node) server() string             { return fmt.Sprintf("https://%s:6443", n.node4()) }
func (n *node) adminConfig() string        { return n.file("admin.kubeconfig") }

// hostname is the Node's name. Images of hosts show it, so it tells the cluster.
func (n *node) hostname() string { return fmt.Sprintf("c%d-node", n.n) }

// process is one of the node's own, in its network namespace.
func (n *node) process(name string, argv ...string) *process {
	return &process{dir: n.dir, name: name, args: inside(n.name(), argv...)}
}

// prepare writes all files that the processes read.
func (n *node) prepare(cluster string) error {
	for _, d := range []string{n.file("kubelet"), n.file("cni"), runDir(n.name())} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	var err error
	if n.ca, err = newAuthority(n.file("pki"), cluster); err != nil {
		return err
	}
	if err := n.ca.issueControlPlane(n.node4().String(), n.node6().String(), "127.0.0.1"); err != nil {
		return err
	}
	if err := n.ca.issue("node", nodeSubject(n.hostname()), n.node4().String(), n.node6().String(), n.hostname()); err != nil {
		return err
	}
	for user, file := range map[string]string{"admin": n.adminConfig(), "node": n.file("node.kubeconfig")} {
		if err := n.ca.kubeconfig(file, cluster, n.server(), user); err != nil {
			return err
		}
	}
	for name, content := range map[string]any{"cni/10-lab.conflist": n.cni(), "kubelet.yaml": n.kubelet(), "proxy.yaml": n.proxy()} {
		b, err := json.Marshal(content)
		if err == nil && strings.HasSuffix(name, ".yaml") {
			b, err = yaml.JSONToYAML(b)
		}
		if err != nil {
			return err
		}
		if err := os.WriteFile(n.file(name), b, 0o644); err != nil {
			return err
		}
	}
	// Pods without cluster DNS ask nobody: the lab has no way out.
	if err := os.WriteFile(n.file("resolv.conf"), []byte("nameserver 127.0.0.1\n"), 0o644); err != nil {
		return err
	}
	toml, err := n.containerd()
	if err != nil {
		return err
	}
	return os.WriteFile(n.file("containerd.toml"), []byte(toml), 0o644)
}

type object = map[string]any

func (n *node) cni() object {
	return object{"cniVersion": "1.0.0", "name": n.name(), "plugins": []object{
		{
			"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
			"ipam": object{
				"type": "host-local", "dataDir": n.file("ipam"),
				"ranges": [][]object{{{"subnet": n.pods4().String()}}, {{"subnet": n.pods6().String()}}},
				"routes": []object{{"dst": "0.0.0.0/0"}, {"dst": "::/0"}},
			},
		},
		{"type": "portmap", "capabilities": object{"portMappings": true}},
	}}
}

func (n *node) kubelet() object {
	return object{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"authentication": object{"anonymous": object{"enabled": false}, "webhook": object{"enabled": true}, "x509": object{"clientCAFile": n.ca.path("ca.crt")}},
		"authorization":  object{"mode": "Webhook"},
		"cgroupDriver":   "cgroupfs", "cgroupRoot": "/" + n.name(), "cgroupsPerQOS": false, "enforceNodeAllocatable": []string{},
		"failCgroupV1": false, "failSwapOn": false, "localStorageCapacityIsolation": false,
		"containerRuntimeEndpoint": "unix://" + n.socket(), "clusterDNS": []string{dnsService}, "clusterDomain": "cluster.local",
		"resolvConf": n.file("resolv.conf"), "podLogsDir": n.file("podlogs"), "volumePluginDir": n.file("volumeplugins"),
		"tlsCertFile": n.ca.path("node.crt"), "tlsPrivateKeyFile": n.ca.path("node.key"),
		"imageGCHighThresholdPercent": 100, "evictionHard": object{"memory.available": "1Mi"},
		"serializeImagePulls": false, "maxPods": maxPods, "registerNode": true,
		"shutdownGracePeriod": "0s", "syncFrequency": "10s", "nodeStatusUpdateFrequency": "5s",
	}
}

func (n *node) proxy() object {
	return object{
		"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": "iptables",
		"clientConnection": object{"kubeconfig": n.adminConfig()}, "clusterCIDR": n.pods4().String() + "," + n.pods6().String(),
		"hostnameOverride": n.hostname(), "conntrack": object{"maxPerCore": 0, "min": 0},
		"iptables": object{"minSyncPeriod": "50ms"},
	}
}

// overlayFS is what statfs says of an overlay, over which there can't be another one.
const overlayFS = 0x794c7630

func (n *node) containerd() (string, error) {
	snapshotter := "overlayfs"
	var fs syscall.Statfs_t
	if err := syscall.Statfs(n.dir, &fs); err != nil {
		return "", err
	}
	if fs.Type == overlayFS {
		snapshotter = "native"
	}
	return fmt.Sprintf(`version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = %q
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  netns_mounts_under_state_dir = true
  restrict_oom_score_adj = true # without CAP_SYS_RESOURCE no score can be lowered, and runc would fail
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = %q
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        Root = %q
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = %q
    conf_dir = %q
`, n.file("containerd"), filepath.Join(runDir(n.name()), "state"), n.socket(), pauseImage, snapshotter, filepath.Join(runDir(n.name()), "runc"), cniFolder(), n.file("cni")), nil
}

const etcdURL = "http://127.0.0.1:2379"

func (n *node) etcdProcess() *process {
	return n.process("etcd", etcdArgs(n.bin, n.file("etcd-data"), etcdURL, "http://127.0.0.1:2380")...)
}

func (n *node) apiserverProcess() *process {
	return n.process("kube-apiserver", append(apiserverArgs(n.bin, n.ca, etcdURL),
		"--bind-address=0.0.0.0", "--secure-port=6443", "--advertise-address="+n.node4().String(),
		"--kubelet-client-certificate="+n.ca.path("admin.crt"), "--kubelet-client-key="+n.ca.path("admin.key"),
		"--kubelet-certificate-authority="+n.ca.path("ca.crt"), "--kubelet-preferred-address-types=InternalIP")...)
}

func (n *node) containerdProcess() *process {
	return n.process("containerd", "containerd", "-c", n.file("containerd.toml"))
}

// later are the processes that need the API server.
func (n *node) later() []*process {
	return []*process{
		n.process("kube-controller-manager", managerArgs(n.bin, n.ca.dir, n.adminConfig())...),
		n.process("kube-scheduler", n.bin, "kube-scheduler", "--kubeconfig="+n.adminConfig(), "--leader-elect=false", "--bind-address=127.0.0.1"),
		n.process("kubelet", n.bin, "kubelet", "--config="+n.file("kubelet.yaml"), "--kubeconfig="+n.file("node.kubeconfig"),
			"--root-dir="+n.file("kubelet"), "--cert-dir="+n.ca.dir, "--hostname-override="+n.hostname(),
			"--node-ip="+n.node4().String()+","+n.node6().String(),
			fmt.Sprintf("--node-labels=topology.kubernetes.io/region=region%d,topology.kubernetes.io/zone=region%d-a", n.n, n.n)),
		n.process("kube-proxy", n.bin, "kube-proxy", "--config="+n.file("proxy.yaml")),
		n.process("load-balancer", n.bin, "load-balancer", "-kubeconfig", n.adminConfig(), "-pools", n.balancers4().String()+","+n.balancers6().String()),
	}
}

// importImage loads an image archive into the node.
func (n *node) importImage(ctx context.Context, archive string) error {
	if err := run(ctx, "ctr", "--address", n.socket(), "--namespace", "k8s.io", "images", "import", archive); err != nil {
		return fmt.Errorf("load image archive %s into %s: %w", archive, n.name(), err)
	}
	return nil
}

func (n *node) killContainer(ctx context.Context, id string) error {
	if err := run(ctx, "ctr", "--address", n.socket(), "--namespace", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", id); err != nil {
		return fmt.Errorf("kill container %s of %s: %w", id, n.name(), err)
	}
	return nil
}

// dns returns the manifests of the cluster's DNS.
func dns(mcs bool) ([]byte, error) {
	t, err := template.ParseFS(manifests, "manifests/coredns.yaml")
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = t.Execute(&out, struct {
		MCS            bool
		Address, Image string
	}{mcs, dnsService, corednsImage})
	return out.Bytes(), err
}

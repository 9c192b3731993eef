package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/causeway-mesh/causeway/cluster"
)

// Times of the connection to the API server. A dead one is noticed within
// pingAfter+pingTimeout, instead of client-go's 45 s.
const (
	dialTimeout = 2 * time.Second
	pingAfter   = 5 * time.Second
	pingTimeout = 3 * time.Second
)

const mediaProtobuf = "application/vnd.kubernetes.protobuf"

// Client is one connection to the API server of a cluster. It may be used from any
// goroutine. While a Source runs on it and the API server is away, requests wait for
// its return, or for their context's end.
type Client struct {
	cfg     *rest.Config
	http    *http.Client
	scheme  *runtime.Scheme
	codecs  serializer.CodecFactory
	params  runtime.ParameterCodec
	root    *rest.RESTClient // for absolute paths
	objects metadata.Interface
	gate    *gate

	mu    sync.Mutex
	byGV  map[schema.GroupVersion]*rest.RESTClient
	types map[cluster.Kind]string // versions in use, by Source
}

// LoadConfig finds the API server: by a kubeconfig file, or, without one, as a pod
// does. userAgent shows in the server's audit log.
func LoadConfig(kubeconfig, userAgent string) (*rest.Config, error) {
	if kubeconfig == "" {
		cfg, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("find the API server as a pod does: %w; outside of a cluster, name a kubeconfig", err)
		}
		cfg.UserAgent = userAgent
		return cfg, nil
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", kubeconfig, err)
	}
	cfg.UserAgent = userAgent
	return cfg, nil
}

// NewClient prepares a connection; it makes none yet. cfg isn't changed. Its
// limits of requests are not used: the server's own priority and fairness hold.
func NewClient(cfg *rest.Config) (*Client, error) {
	if cfg == nil {
		return nil, errors.New("client of the API server without a configuration")
	}
	cfg = rest.CopyConfig(cfg)
	cfg.QPS = -1
	c := &Client{cfg: cfg, scheme: newScheme(), byGV: map[schema.GroupVersion]*rest.RESTClient{}, types: map[cluster.Kind]string{}}
	c.codecs, c.params = serializer.NewCodecFactory(c.scheme), runtime.NewParameterCodec(c.scheme)
	c.gate = newGate(c.prober())
	h, err := httpClient(cfg, c.gate)
	if err != nil {
		return nil, fmt.Errorf("client of the API server %s: %w", cfg.Host, err)
	}
	c.http = h
	root := rest.CopyConfig(cfg)
	root.NegotiatedSerializer = c.codecs.WithoutConversion()
	root.GroupVersion, root.APIPath = &schema.GroupVersion{}, "/"
	if c.root, err = rest.RESTClientForConfigAndClient(root, h); err != nil {
		return nil, fmt.Errorf("client of the API server %s: %w", cfg.Host, err)
	}
	if c.objects, err = metadata.NewForConfigAndClient(metadata.ConfigFor(cfg), h); err != nil {
		return nil, fmt.Errorf("client of the API server %s: %w", cfg.Host, err)
	}
	return c, nil
}

// httpClient is rest.HTTPClientFor with a transport that notices dead connections.
func httpClient(cfg *rest.Config, g *gate) (*http.Client, error) {
	tlsConfig, err := rest.TLSConfigFor(cfg)
	if err != nil {
		return nil, err
	}
	dial := cfg.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: pingAfter}).DialContext
	}
	proxy := cfg.Proxy
	if proxy == nil {
		proxy = http.ProxyFromEnvironment
	}
	wrapped, err := rest.HTTPWrappersForConfig(cfg, &http.Transport{
		Proxy: proxy, DialContext: dial, TLSClientConfig: tlsConfig, TLSHandshakeTimeout: 5 * time.Second,
		MaxIdleConnsPerHost: 10, IdleConnTimeout: 90 * time.Second, ForceAttemptHTTP2: true,
		HTTP2: &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
	})
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: g.roundTripper(wrapped)}, nil
}

// Config and HTTP are for other clients on the same connection.
func (c *Client) Config() *rest.Config { return rest.CopyConfig(c.cfg) }

// HTTP is Config's.
func (c *Client) HTTP() *http.Client { return c.http }

// of gives the client of one version of a group.
func (c *Client) of(r *resource, version string) (*rest.RESTClient, error) {
	gv := schema.GroupVersion{Group: r.group, Version: version}
	c.mu.Lock()
	defer c.mu.Unlock()
	if rc, ok := c.byGV[gv]; ok {
		return rc, nil
	}
	cfg := rest.CopyConfig(c.cfg)
	cfg.GroupVersion, cfg.APIPath = &gv, "/apis"
	if r.group == "" {
		cfg.APIPath = "/api"
	}
	cfg.NegotiatedSerializer = c.codecs.WithoutConversion()
	cfg.ContentType = runtime.ContentTypeJSON
	if !r.custom {
		cfg.ContentType, cfg.AcceptContentTypes = mediaProtobuf, mediaProtobuf+","+runtime.ContentTypeJSON
	}
	rc, err := rest.RESTClientForConfigAndClient(cfg, c.http)
	if err != nil {
		return nil, fmt.Errorf("client of %s: %w", gv, err)
	}
	c.byGV[gv] = rc
	return rc, nil
}

// use notes the version in which a kind is served; empty: not at all.
func (c *Client) use(k cluster.Kind, version string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if version == "" {
		delete(c.types, k)
	} else {
		c.types[k] = version
	}
}

// ErrNotServed says that the API server doesn't have a kind now.
var ErrNotServed = errors.New("the API server does not serve the kind")

// PatchStatus changes the status subresource of an object by a JSON merge patch.
// A resourceVersion in the patch makes it fail with a conflict
// (apierrors.IsConflict) when the object has another one by now.
func (c *Client) PatchStatus(ctx context.Context, ref cluster.Ref, patch []byte, fieldManager string) error {
	r := byKind(ref.Kind)
	if r == nil {
		return fmt.Errorf("status of %s: %w", ref, ErrNotServed)
	}
	c.mu.Lock()
	version := c.types[ref.Kind]
	c.mu.Unlock()
	if version == "" && !r.custom {
		version = r.versions[0]
	}
	if version == "" {
		return fmt.Errorf("status of %s: %w", ref, ErrNotServed)
	}
	rc, err := c.of(r, version)
	if err != nil {
		return err
	}
	err = rc.Patch(types.MergePatchType).NamespaceIfScoped(ref.Namespace, r.namespaced).Resource(r.plural).Name(ref.Name).SubResource("status").
		VersionedParams(&metav1.PatchOptions{FieldManager: fieldManager}, c.params).Body(patch).Do(ctx).Error()
	if err != nil {
		return fmt.Errorf("status of %s: %w", ref, err)
	}
	return nil
}

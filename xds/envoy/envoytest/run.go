package envoytest

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/causeway-mesh/causeway/xds/envoy"
)

// following is the bootstrap of an Envoy that follows a server without TLS.
const following = `{
  "node": {"id": %q, "cluster": "test"},
  "admin": {"address": {"pipe": {"path": %q}}},
  "bootstrap_extensions": [{"name": "envoy.bootstrap.internal_listener",
    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener"}}],
  "dynamic_resources": {
    "ads_config": {"api_type": "DELTA_GRPC", "transport_api_version": "V3", "set_node_on_first_message_only": true,
      "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}]},
    "cds_config": {"ads": {}, "resource_api_version": "V3"},
    "lds_config": {"ads": {}, "resource_api_version": "V3"}
  },
  "static_resources": {"clusters": [{
    "name": "xds", "connect_timeout": "1s", "type": "STATIC",
    "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
      "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
      "explicit_http_config": {"http2_protocol_options": {}}}},
    "load_assignment": {"cluster_name": "xds", "endpoints": [{"lb_endpoints": [{"endpoint":
      {"address": {"socket_address": {"address": "127.0.0.1", "port_value": %d}}}}]}]}
  }]}
}`

// Follow runs the Envoy at path until the test ends, as the node that is named. It
// follows the discovery server on a port of 127.0.0.1, without TLS. If the test fails,
// the end of its log is shown.
func Follow(t testing.TB, path, node string, port int) {
	t.Helper()
	dir := t.TempDir()
	sockets, err := os.MkdirTemp("", "cw") // names of sockets are short
	if err != nil {
		t.Fatal(err)
	}
	file, log := filepath.Join(dir, "envoy.json"), filepath.Join(dir, "envoy.log")
	if err := os.WriteFile(file, fmt.Appendf(nil, following, node, filepath.Join(sockets, "a"), port), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- envoy.Process{Path: path, Bootstrap: file, LogPath: log, Logger: slog.New(slog.DiscardHandler)}.Run(ctx)
	}()
	t.Cleanup(func() {
		if t.Failed() {
			b, _ := os.ReadFile(log)
			t.Logf("%s: Envoy's log:\n%s", node, b[max(0, len(b)-4000):])
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = os.RemoveAll(sockets)
	})
}

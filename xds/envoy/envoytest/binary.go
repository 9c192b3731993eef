package envoytest

import (
	"testing"

	"github.com/causeway-mesh/causeway/xds/envoy"
)

// Binary is the Envoy of this machine; the test is skipped where there is none.
func Binary(t testing.TB) string {
	t.Helper()
	b, err := envoy.Find("")
	if err != nil {
		t.Skipf("no Envoy: %v", err)
	}
	return b.Path
}

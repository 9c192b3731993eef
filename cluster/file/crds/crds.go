// Package crds holds the schemas of the Gateway API kinds that a folder of
// manifests may contain, so that the folder is judged as an API server with the
// experimental channel installed would judge it.
//
// The files are copies of the CustomResourceDefinitions of the Gateway API
// module that go.mod names, written as JSON without their descriptions, which
// make up three quarters of them and which nothing here reads. `go generate`
// makes them anew; a test of the generator fails while they lag behind go.mod.
// cluster/file is the only caller.
package crds

import "embed"

//go:generate go run ./gen .

// Files holds one JSON file for each kind, named after its plural.
//
//go:embed *.json
var Files embed.FS

// Plurals lists the files of Files without their ending, in a fixed order.
var Plurals = []string{
	"backendtlspolicies", "gatewayclasses", "gateways", "grpcroutes", "httproutes", "listenersets", "referencegrants", "tcproutes", "tlsroutes", "udproutes",
}

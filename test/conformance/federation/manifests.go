package federation

import "embed"

// Manifests are those of the tests, and what base/member.yaml has for the other cluster. The
// suite finds its own in conformance.Manifests.
//
//go:embed base tests/*.yaml
var Manifests embed.FS

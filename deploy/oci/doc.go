// Package oci writes container images without a container runtime or a registry, as
// archives which `docker load`, `podman load`, `ctr images import`, `kind load
// image-archive` and the like take: an OCI image layout with the manifest.json of
// `docker save` beside it, in a tar.
//
// It guarantees that the same image with the same files gives the same bytes, built
// wherever and by whomever: times are zero, owners are root, entries are sorted, and
// what is missing in a path is added. Go's gzip is the same for one version of Go.
//
// deploy/images makes Causeway's own images with it, and test/lab those of its nodes.
// It follows the OCI image specification 1.1.
package oci

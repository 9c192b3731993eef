package record

import (
	"errors"
	"fmt"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/store"
)

// arity is how many names follow a section.
var arity = map[store.Section]int{
	store.SectionMeta: 1, store.SectionAlive: 1, store.SectionTrust: 1, store.SectionNamespaces: 1,
	store.SectionServices: 2, store.SectionGrants: 2, store.SectionRuns: 2,
	store.SectionEndpoints: 3, store.SectionRoutes: 3, store.SectionGateways: 3, store.SectionPolicies: 3, store.SectionSecrets: 3,
}

const metaName = "cluster"

// MetaKey is the key of a cluster's Meta.
func MetaKey(id cluster.ID) (string, error) {
	return store.ClusterKey(string(id), store.SectionMeta, metaName)
}

// AliveKey is the key that an agent of the cluster holds while it lives. The
// agent's name must be a DNS subdomain.
func AliveKey(id cluster.ID, agent string) (string, error) {
	return store.ClusterKey(string(id), store.SectionAlive, agent)
}

// TrustKey is the key of a cluster's trust bundle.
func TrustKey(id cluster.ID, trustDomain string) (string, error) {
	return store.ClusterKey(string(id), store.SectionTrust, trustDomain)
}

// ServiceKey is the key of an exported Service with its ServiceExport.
func ServiceKey(id cluster.ID, namespace, name string) (string, error) {
	return store.ClusterKey(string(id), store.SectionServices, namespace, name)
}

// SliceKey is the key of an EndpointSlice of an exported Service.
func SliceKey(id cluster.ID, namespace, service, name string) (string, error) {
	return store.ClusterKey(string(id), store.SectionEndpoints, namespace, service, name)
}

// RunKey is the key under which a cluster says how it runs a Gateway that is for several.
func RunKey(id cluster.ID, namespace, gateway string) (string, error) {
	return store.ClusterKey(string(id), store.SectionRuns, namespace, gateway)
}

// ErrNotPublished says that objects of a kind have no key.
var ErrNotPublished = errors.New("kind is never published")

// ObjectKey is the key under which an object stands while it is published:
// Service and ServiceExport share one. Kinds that never cross are
// ErrNotPublished, names that fit no key store.ErrInvalid.
func ObjectKey(o *cluster.Object) (string, error) {
	id := string(o.Cluster)
	switch o.Kind {
	case cluster.KindService, cluster.KindServiceExport:
		return ServiceKey(o.Cluster, o.Namespace, o.Name)
	case cluster.KindEndpointSlice:
		s, ok := o.Value.(*cluster.EndpointSlice)
		if !ok {
			return "", fmt.Errorf("%s holds a %T", o.Ref, o.Value)
		}
		return SliceKey(o.Cluster, o.Namespace, s.Service, o.Name)
	case cluster.KindNamespace:
		return store.ClusterKey(id, store.SectionNamespaces, o.Name)
	case cluster.KindReferenceGrant:
		return store.ClusterKey(id, store.SectionGrants, o.Namespace, o.Name)
	case cluster.KindGatewayRun:
		return RunKey(o.Cluster, o.Namespace, o.Name)
	}
	if c, ok := codecs[o.Kind]; ok {
		return store.ClusterKey(id, c.section, keyName(o.Kind), o.Namespace, o.Name)
	}
	return "", fmt.Errorf("%s: %w", o.Ref, ErrNotPublished)
}

// Refs lists the objects for which a key stands, none for those of Meta, trust
// and liveness. Keys of the wrong shape are an error.
func Refs(k store.Key) ([]cluster.Ref, error) {
	want, n := arity[k.Section], k.Names
	if k.Cluster == "" || len(n) != want {
		return nil, fmt.Errorf("key has %d names after the section %q, not %d: it was written by another version of Causeway or by hand", len(n), k.Section, want)
	}
	ref := func(kind cluster.Kind, namespace, name string) cluster.Ref {
		return cluster.Ref{Kind: kind, Namespace: namespace, Name: name}
	}
	switch k.Section {
	case store.SectionMeta:
		if n[0] != metaName {
			return nil, fmt.Errorf("key of the section meta is named %q, not %q", n[0], metaName)
		}
	case store.SectionNamespaces:
		return []cluster.Ref{ref(cluster.KindNamespace, "", n[0])}, nil
	case store.SectionServices:
		return []cluster.Ref{ref(cluster.KindService, n[0], n[1]), ref(cluster.KindServiceExport, n[0], n[1])}, nil
	case store.SectionEndpoints:
		return []cluster.Ref{ref(cluster.KindEndpointSlice, n[0], n[2])}, nil
	case store.SectionGrants:
		return []cluster.Ref{ref(cluster.KindReferenceGrant, n[0], n[1])}, nil
	case store.SectionRuns:
		return []cluster.Ref{ref(cluster.KindGatewayRun, n[0], n[1])}, nil
	case store.SectionSecrets:
		return []cluster.Ref{ref(cluster.KindSealedSecret, n[0], cluster.SealedName(cluster.ID(n[2]), n[1]))}, nil
	case store.SectionRoutes, store.SectionGateways, store.SectionPolicies:
		kind, ok := keyKinds[k.Section][n[0]]
		if !ok {
			return nil, fmt.Errorf("%s of kind %q are unknown to this version of Causeway", k.Section, n[0])
		}
		return []cluster.Ref{ref(kind, n[1], n[2])}, nil
	}
	return nil, nil
}

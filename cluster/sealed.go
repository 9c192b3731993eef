package cluster

// KindSealedSecret names a certificate that one cluster has sealed for another
// (Ref.Name is SealedName's). Agents make and publish it; no source delivers it.
const KindSealedSecret Kind = "SealedSecret" // *SealedSecret

// SealedSecret is a certificate with its private key, as one cluster may read it and
// nobody else. It may be shown to anybody.
type SealedSecret struct {
	// Key is the public key of that cluster for which it was sealed.
	Key []byte
	// Sealed is what identity.Seal gave.
	Sealed []byte
	// Mark is by what the cluster that sealed it knows it again.
	Mark []byte
}

// SealedName is the name of a SealedSecret.
func SealedName(to ID, secret string) string { return string(to) + "/" + secret }

// SealingKeyBytes is the length of a public sealing key (identity.Authority.SealingKey).
const SealingKeyBytes = 32

// MaxTravelBytes bounds a certificate chain with its key that travels to other clusters.
const MaxTravelBytes = 64 << 10

// AnnotationTravel is, on a Secret, a label selector over region, zone, network and name:
// the clusters to which its certificate may travel. It is AnnotationClusters, as on a
// Gateway; a Secret without it stays at home.
const AnnotationTravel = AnnotationClusters

package record

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/store"
)

// Bounds of what is sealed.
const (
	maxMarkBytes = 64
	// sealedOverhead is more than sealing and its message add to a certificate with its key.
	sealedOverhead = 1 << 10
)

// SecretKey is the key of a certificate that a cluster has sealed for another.
func SecretKey(id cluster.ID, namespace, name string, to cluster.ID) (string, error) {
	return store.ClusterKey(string(id), store.SectionSecrets, namespace, name, string(to))
}

// EncodeSealed makes the record of a certificate that one cluster has sealed for another.
func EncodeSealed(from cluster.ID, namespace, name string, to cluster.ID, s *cluster.SealedSecret) (Record, error) {
	if err := checkSealed(s); err != nil {
		return Record{}, fmt.Errorf("certificate of Secret/%s/%s for %s: %w", namespace, name, to, err)
	}
	key, err := SecretKey(from, namespace, name, to)
	return finish(key, err, &causewayv1.SealedSecret{Namespace: namespace, Name: name, Cluster: string(to), SealingKey: s.Key, Sealed: s.Sealed, Mark: s.Mark})
}

func (d decoder) sealed(ref cluster.Ref) ([]*cluster.Object, error) {
	var msg causewayv1.SealedSecret
	if err := d.read(&msg); err != nil {
		return nil, err
	}
	to := cluster.ID(msg.Cluster)
	if err := to.Validate(); err != nil {
		return nil, err
	}
	if err := sameName(ref, ref.Kind, msg.Namespace, cluster.SealedName(to, msg.Name)); err != nil {
		return nil, err
	}
	s := &cluster.SealedSecret{Key: msg.SealingKey, Sealed: msg.Sealed, Mark: msg.Mark}
	if err := checkSealed(s); err != nil {
		return nil, err
	}
	return []*cluster.Object{d.made(ref, 0, s)}, nil
}

func checkSealingKey(key []byte) error {
	if n := len(key); n != 0 && n != cluster.SealingKeyBytes {
		return fmt.Errorf("has a sealing key of %d bytes, not %d", n, cluster.SealingKeyBytes)
	}
	return nil
}

func checkSealed(s *cluster.SealedSecret) error {
	switch {
	case len(s.Key) != cluster.SealingKeyBytes:
		return fmt.Errorf("is sealed for a key of %d bytes, not %d", len(s.Key), cluster.SealingKeyBytes)
	case len(s.Sealed) > cluster.MaxTravelBytes+sealedOverhead:
		return fmt.Errorf("has %d bytes, at most %d travel", len(s.Sealed), cluster.MaxTravelBytes)
	case len(s.Mark) > maxMarkBytes:
		return fmt.Errorf("has a mark of %d bytes, at most %d are read", len(s.Mark), maxMarkBytes)
	}
	return nil
}

// EncodeCertificate gives what is to be sealed of a certificate: it must not go anywhere
// else.
func EncodeCertificate(chain, key []byte) ([]byte, error) {
	out, err := proto.MarshalOptions{Deterministic: true}.Marshal(&causewayv1.SecretContent{Certificate: chain, PrivateKey: key})
	if err == nil && len(out) > cluster.MaxTravelBytes {
		return nil, fmt.Errorf("the certificate and its key have %d bytes, at most %d travel: leave certificates out of the chain that no client needs", len(out), cluster.MaxTravelBytes)
	}
	return out, err
}

// DecodeCertificate reads EncodeCertificate. Whether chain and key are any good is for
// the reader to find out.
func DecodeCertificate(text []byte) (chain, key []byte, err error) {
	var msg causewayv1.SecretContent
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, &msg); err != nil {
		// What it says might show what was sealed.
		return nil, nil, fmt.Errorf("what was sealed is no certificate with a key")
	}
	return msg.Certificate, msg.PrivateKey, nil
}

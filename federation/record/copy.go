package record

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"iter"

	"google.golang.org/protobuf/proto"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/federation/store"
)

// copyMagic begins a copy; its last number is the version of the format.
const copyMagic = "causeway store copy 1\n"

// EncodeCopy puts records as they were at a revision into one piece, with a
// checksum, to be kept on disk. More than limit bytes are an error.
func EncodeCopy(revision int64, records iter.Seq[store.KV], limit int) ([]byte, error) {
	msg, size := &causewayv1.Copy{Revision: revision}, len(copyMagic)+sha256.Size
	for kv := range records {
		if size += len(kv.Key) + len(kv.Value); size > limit {
			return nil, fmt.Errorf("copy of the store at revision %d is larger than %d bytes", revision, limit)
		}
		msg.Entries = append(msg.Entries, &causewayv1.CopyEntry{
			Key: kv.Key, Value: kv.Value, CreateRevision: kv.CreateRevision, ModRevision: kv.ModRevision, Leased: kv.Leased,
		})
	}
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(msg)
	if err != nil {
		return nil, fmt.Errorf("copy of the store: %w", err)
	}
	sum := sha256.Sum256(body)
	return bytes.Join([][]byte{[]byte(copyMagic), sum[:], body}, nil), nil
}

// DecodeCopy is the inverse of EncodeCopy. It refuses what was cut short or
// changed on disk. The values are still another cluster's: Decode them.
func DecodeCopy(data []byte) (int64, []store.KV, error) {
	rest, ok := bytes.CutPrefix(data, []byte(copyMagic))
	if !ok || len(rest) < sha256.Size {
		return 0, nil, fmt.Errorf("is no copy of the store, or one of another version of Causeway")
	}
	sum, body := rest[:sha256.Size], rest[sha256.Size:]
	if got := sha256.Sum256(body); !bytes.Equal(got[:], sum) {
		return 0, nil, fmt.Errorf("checksum does not match: the copy of the store is damaged")
	}
	var msg causewayv1.Copy
	if err := proto.Unmarshal(body, &msg); err != nil {
		return 0, nil, fmt.Errorf("copy of the store: %w", err)
	}
	out := make([]store.KV, 0, len(msg.Entries))
	for _, e := range msg.Entries {
		if e.CreateRevision <= 0 || e.ModRevision < e.CreateRevision || e.ModRevision > msg.Revision {
			return 0, nil, fmt.Errorf("copy of the store: key %s has revisions that can't be", shorten(e.Key))
		}
		out = append(out, store.KV{Key: e.Key, Value: e.Value, CreateRevision: e.CreateRevision, ModRevision: e.ModRevision, Leased: e.Leased})
	}
	return msg.Revision, out, nil
}

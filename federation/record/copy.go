package record

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"

	"google.golang.org/protobuf/proto"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/federation/store"
)

const (
	// copyMagic begins a copy; its last number is the version of the format.
	copyMagic = "causeway store copy 2\n"
	// copyPiece is about how many bytes a piece has: what writing a copy takes in memory.
	copyPiece = 1 << 20
	// copyHead is what stands before each piece: its length and its SHA-256.
	copyHead = 8 + sha256.Size
)

// CopyChange is what changed between two revisions of a copy, or all of one.
type CopyChange struct {
	Revision int64
	Put      iter.Seq[store.KV]
	Removed  iter.Seq[string]
}

// WriteCopy writes all of a revision, in pieces with a checksum each, and tells how
// many bytes that were. It does not flush or sync.
func WriteCopy(w io.Writer, c CopyChange) (int64, error) {
	n, err := io.WriteString(w, copyMagic)
	if err != nil {
		return int64(n), err
	}
	m, err := AppendCopy(w, c)
	return int64(n) + m, err
}

// AppendCopy writes what changed, to stand after what WriteCopy and earlier calls
// wrote. Whoever reads the copy takes the change whole or not at all.
func AppendCopy(w io.Writer, c CopyChange) (int64, error) {
	var written int64
	msg, size := &causewayv1.Copy{Revision: c.Revision}, 0
	flush := func(more bool) error {
		msg.More = more
		body, err := proto.MarshalOptions{Deterministic: true}.Marshal(msg)
		if err != nil {
			return fmt.Errorf("copy of the store: %w", err)
		}
		sum := sha256.Sum256(body)
		head := append(binary.BigEndian.AppendUint64(make([]byte, 0, copyHead), uint64(len(body))), sum[:]...)
		for _, b := range [][]byte{head, body} {
			n, err := w.Write(b)
			written += int64(n)
			if err != nil {
				return err
			}
		}
		msg, size = &causewayv1.Copy{Revision: c.Revision}, 0
		return nil
	}
	full := func(n int) (err error) {
		if size += n; size > copyPiece {
			err = flush(true)
		}
		return err
	}
	for kv := range c.Put {
		msg.Entries = append(msg.Entries, &causewayv1.CopyEntry{
			Key: kv.Key, Value: kv.Value, CreateRevision: kv.CreateRevision, ModRevision: kv.ModRevision, Leased: kv.Leased,
		})
		if err := full(len(kv.Key) + len(kv.Value)); err != nil {
			return written, err
		}
	}
	if c.Removed != nil {
		for key := range c.Removed {
			msg.Removed = append(msg.Removed, key)
			if err := full(len(key)); err != nil {
				return written, err
			}
		}
	}
	return written, flush(false)
}

// ReadCopy reads what WriteCopy and AppendCopy wrote. What was cut short or changed on
// disk is refused, with all that follows: cut tells that the copy is an older one
// than it could be. The values are still another cluster's: Decode them.
func ReadCopy(r io.Reader, limit int64) (revision int64, records []store.KV, cut, err error) {
	in := bufio.NewReaderSize(io.LimitReader(r, limit), 1<<16)
	magic := make([]byte, len(copyMagic))
	if _, err := io.ReadFull(in, magic); err != nil || string(magic) != copyMagic {
		return 0, nil, nil, errors.New("is no copy of the store, or one of another version of Causeway")
	}
	all := map[string]store.KV{}
	var order []string // of the first appearance, so that equal copies give equal lists
	for {
		change, err := readChange(in)
		if errors.Is(err, io.EOF) && revision > 0 {
			break
		}
		if err != nil && revision > 0 {
			cut = err
			break
		}
		if err != nil {
			return 0, nil, nil, fmt.Errorf("copy of the store is damaged: %w", err)
		}
		for _, msg := range change {
			for _, e := range msg.Entries {
				if _, ok := all[e.Key]; !ok {
					order = append(order, e.Key)
				}
				all[e.Key] = store.KV{Key: e.Key, Value: e.Value, CreateRevision: e.CreateRevision, ModRevision: e.ModRevision, Leased: e.Leased}
			}
			for _, key := range msg.Removed {
				delete(all, key)
			}
			revision = msg.Revision
		}
	}
	records = make([]store.KV, 0, len(all))
	for _, key := range order {
		if kv, ok := all[key]; ok {
			records = append(records, kv)
			delete(all, key) // it may have come, gone, and come again
		}
	}
	return revision, records, cut, nil
}

// readChange reads the pieces of one change; io.EOF if there is none.
func readChange(in *bufio.Reader) (out []*causewayv1.Copy, err error) {
	for {
		head := make([]byte, copyHead)
		if _, err := io.ReadFull(in, head); err != nil {
			if len(out) > 0 || !errors.Is(err, io.EOF) {
				err = errors.New("it ends in the middle of a change")
			}
			return nil, err
		}
		size := binary.BigEndian.Uint64(head)
		if size > copyPiece+maxCopyEntry {
			return nil, fmt.Errorf("a piece of %d bytes is larger than any", size)
		}
		body := make([]byte, size)
		if _, err := io.ReadFull(in, body); err != nil {
			return nil, errors.New("it ends in the middle of a piece")
		}
		if sha256.Sum256(body) != [sha256.Size]byte(head[8:]) {
			return nil, errors.New("a checksum does not match")
		}
		msg := &causewayv1.Copy{}
		if err := proto.Unmarshal(body, msg); err != nil {
			return nil, err
		}
		if msg.Revision <= 0 || len(out) > 0 && msg.Revision != out[0].Revision {
			return nil, fmt.Errorf("it has a piece of revision %d where there can be none", msg.Revision)
		}
		for _, e := range msg.Entries {
			if e.CreateRevision <= 0 || e.ModRevision < e.CreateRevision || e.ModRevision > msg.Revision {
				return nil, fmt.Errorf("key %s has revisions that can't be", shorten(e.Key))
			}
		}
		if out = append(out, msg); !msg.More {
			return out, nil
		}
	}
}

// maxCopyEntry bounds one key with its value and what encoding adds; etcd takes no
// request of more than 1.5 MiB by default.
const maxCopyEntry = 16 << 20

package etcd

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
)

// Snapshot writes a snapshot of one member's data to w, in etcd's own format, which
// `etcdutl snapshot restore` takes, and returns its size. What is not whole, by the
// checksum at its end, is an error. The store's certificate must be AdminUser's.
func Snapshot(ctx context.Context, s *Store, w io.Writer) (int64, error) {
	resp, err := s.client.SnapshotWithVersion(ctx)
	if err != nil {
		return 0, fmt.Errorf("snapshot: %w", convert(err))
	}
	defer resp.Snapshot.Close()
	c := &checked{sum: sha256.New()}
	n, err := io.Copy(io.MultiWriter(w, c), resp.Snapshot)
	if err != nil {
		return n, fmt.Errorf("snapshot: %w", convert(err))
	}
	if !c.whole() {
		return n, errors.New("snapshot: it came without its end; take it again")
	}
	return n, nil
}

// checked sums all but the last bytes that it gets, which are to be that sum.
type checked struct {
	sum  hash.Hash
	tail []byte
}

func (c *checked) Write(b []byte) (int, error) {
	c.tail = append(c.tail, b...)
	if n := len(c.tail) - sha256.Size; n > 0 {
		_, _ = c.sum.Write(c.tail[:n])
		c.tail = append(c.tail[:0], c.tail[n:]...)
	}
	return len(b), nil
}

func (c *checked) whole() bool { return string(c.sum.Sum(nil)) == string(c.tail) }

// Defragment gives free space of the members' files back to the file system, one
// member after the other, since each stops for that time. It ends with the first that
// fails. The store's certificate must be AdminUser's.
func Defragment(ctx context.Context, s *Store, done func(endpoint string)) error {
	for _, e := range s.client.Endpoints() {
		if _, err := s.client.Defragment(ctx, e); err != nil {
			return fmt.Errorf("defragment %s: %w", e, convert(err))
		}
		done(e)
	}
	return nil
}

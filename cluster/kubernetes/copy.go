package kubernetes

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"time"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/identity"
)

const (
	// maxCopyBytes bounds the copy on disk.
	maxCopyBytes = 1 << 30
	// copyPause is the least time between two writings of the copy, which is written
	// whole; one that takes long is followed by copyRatio times as long a pause.
	copyPause, copyRatio = 5 * time.Second, 50
	copyFormat           = "causeway kubernetes source 1"
)

// copyHead begins the file, copyObject follows for each object: JSON, one a line.
type copyHead struct {
	Format  string
	Cluster cluster.ID
	Objects int
}

type copyObject struct {
	Kind            cluster.Kind
	Namespace, Name string
	Created         time.Time
	Value           json.RawMessage
}

// saveCopies writes what is known to disk after changes, once all of it has been
// read, until ctx ends: then once more, if anything has changed since the last writing.
func (s *Source) saveCopies(ctx context.Context) {
	var written chan struct{} // state.advanced as of the last writing that went well
	for {
		ended := ctx.Err() != nil
		s.state.mu.Lock()
		advanced := s.state.advanced
		s.state.mu.Unlock()
		if s.full.Load() && advanced != written {
			began := time.Now()
			if err := s.writeCopy(); err == nil {
				written = advanced
			} else {
				s.log.Error("the copy of what was read could not be written: a restart while the API server is away would start from an older one; free space, or check the folder's rights", "file", s.copyPath(), "error", err)
			}
			_ = cluster.Pause(ctx, max(copyPause, copyRatio*time.Since(began))) // over once ctx is
		}
		if ended {
			return
		}
		select {
		case <-ctx.Done():
		case <-advanced:
		}
	}
}

func (s *Source) writeCopy() error {
	var objects []*cluster.Object
	for _, r := range resources {
		objects = append(objects, s.state.all(r.kind)...)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	if err := enc.Encode(copyHead{copyFormat, s.cfg.Cluster, len(objects)}); err != nil {
		return err
	}
	for _, o := range objects {
		value, err := json.Marshal(o.Value)
		if err != nil {
			return fmt.Errorf("%s: %w", o.Ref, err)
		}
		if err := enc.Encode(copyObject{o.Kind, o.Namespace, o.Name, o.Seniority.Created, value}); err != nil {
			return fmt.Errorf("%s: %w", o.Ref, err)
		}
		if b.Len() > maxCopyBytes {
			return fmt.Errorf("it would be larger than %d bytes", maxCopyBytes)
		}
	}
	return identity.WriteFile(s.copyPath(), b.Bytes(), 0o600)
}

// readCopy puts what the last run left into the state, as if it had been read, and
// gives it; nil if there is nothing of use.
func (s *Source) readCopy() *[]*cluster.Object {
	if s.cfg.Dir == "" {
		return nil
	}
	objects, err := decodeCopy(s.copyPath(), s.cfg.Cluster)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("the copy of what was read is of no use and will be replaced", "file", s.copyPath(), "error", err)
		}
		return nil
	}
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	for _, o := range objects {
		s.state.kinds[o.Kind].entries[o.Ref] = &entry{object: o}
		s.state.pend(o.Ref, o)
	}
	return &objects
}

func decodeCopy(path string, id cluster.ID) ([]*cluster.Object, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	dec := json.NewDecoder(bufio.NewReader(io.LimitReader(f, maxCopyBytes+1)))
	var head copyHead
	if err := dec.Decode(&head); err != nil {
		return nil, err
	}
	if head.Format != copyFormat || head.Cluster != id {
		return nil, fmt.Errorf("it is a %q of cluster %q", head.Format, head.Cluster)
	}
	var out []*cluster.Object
	for range head.Objects {
		var c copyObject
		if err := dec.Decode(&c); err != nil {
			return nil, err
		}
		r := byKind(c.Kind)
		if r == nil || r.hidden {
			return nil, fmt.Errorf("it holds a %q", c.Kind)
		}
		var value any = &cluster.EndpointSlice{}
		if c.Kind != cluster.KindEndpointSlice {
			value = reflect.New(reflect.TypeOf(r.example).Elem()).Interface()
		}
		if err := json.Unmarshal(c.Value, value); err != nil {
			return nil, fmt.Errorf("%s %s/%s: %w", c.Kind, c.Namespace, c.Name, err)
		}
		out = append(out, &cluster.Object{Ref: cluster.Ref{Kind: c.Kind, Namespace: c.Namespace, Name: c.Name}, Cluster: id, Seniority: cluster.Seniority{Created: c.Created}, Value: value})
	}
	return out, nil
}

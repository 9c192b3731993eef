package provision

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// copied is a derived Service in the copy: what Entries needs of it.
type copied struct {
	Name    Name
	Created time.Time
	Ports   []copiedPort
}

type copiedPort struct {
	Protocol corev1.Protocol
	Port     int32
	Entry    int32
}

// maxCopy bounds what is read: some 200 bytes for each of as many imports as there are
// entry ports.
const maxCopy = 16 << 20

func (e *Entries) path() string { return filepath.Join(e.cfg.Dir, "entries.json") }

// save writes the copy, in the place of the former one.
func (e *Entries) save() error {
	if e.cfg.Dir == "" {
		return nil
	}
	e.mu.Lock()
	var list []copied
	for n, s := range e.seen {
		c := copied{Name: n, Created: s.CreationTimestamp.Time}
		for _, p := range s.Spec.Ports {
			c.Ports = append(c.Ports, copiedPort{p.Protocol, p.Port, p.TargetPort.IntVal})
		}
		list = append(list, c)
	}
	e.mu.Unlock()
	slices.SortFunc(list, func(a, b copied) int { return compareNames(a.Name, b.Name) })
	data, err := json.Marshal(list)
	if err != nil {
		return err
	}
	next := e.path() + ".next"
	if err := os.WriteFile(next, data, 0o600); err != nil {
		return err
	}
	return os.Rename(next, e.path())
}

// load begins with the copy. One that can't be read is as good as none.
func (e *Entries) load() error {
	if e.cfg.Dir == "" {
		return nil
	}
	if err := os.MkdirAll(e.cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("entries: %w", err)
	}
	info, err := os.Stat(e.path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("entries: %w", err)
	}
	var list []copied
	data, err := os.ReadFile(e.path())
	if err == nil && info.Size() > maxCopy {
		err = fmt.Errorf("%d bytes are too many", info.Size())
	}
	if err == nil {
		err = json.Unmarshal(data, &list)
	}
	if err != nil {
		e.cfg.Logger.Warn("the copy of the entry ports can't be read; they are read from the API server", "file", e.path(), "error", err)
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range list {
		s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(c.Created)}}
		for _, p := range c.Ports {
			s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Protocol: p.Protocol, Port: p.Port, TargetPort: intstr.FromInt32(p.Entry)})
		}
		e.seen[c.Name] = s
		e.alloc.set(c.Name, s)
	}
	e.fresh = true
	return nil
}

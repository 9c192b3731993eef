package clusterset

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/causeway-mesh/causeway/cluster/identity"
	"github.com/causeway-mesh/causeway/cmd/causeway/mounted"
	"github.com/causeway-mesh/causeway/federation/store/etcd"
)

// StoreCommand is `causeway store`: what keeps an etcd in order, by its
// administrator's certificate.
func StoreCommand(cfg Config) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "store",
		Short: "Keep the store in order: defragment it, take snapshots",
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return errors.New("say what to do: defragment or snapshot") },
	}
	cmd.AddCommand(newDefragment(newCommand(cfg)), newSnapshot(newCommand(cfg)))
	return cmd
}

// root is how a command becomes the store's administrator: by the folder, or, where
// there is none, by a mounted certificate.
type root struct {
	*command
	credentials string
	endpoints   []string
}

func (r *root) addFlags(cmd *cobra.Command) {
	r.command.addFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&r.credentials, "credentials", "", "folder with ca.crt, tls.crt and tls.key of etcd's root, instead of --dir")
	f.StringSliceVar(&r.endpoints, "endpoints", nil, "members, https://HOST:PORT, with --credentials")
}

func (r *root) connect() (*etcd.Store, error) {
	if r.credentials == "" {
		f, err := open(r.folder(), r.log)
		if err != nil {
			return nil, err
		}
		return f.connect(r.log)
	}
	at := func(name string) string { return filepath.Join(r.credentials, name) }
	cfg, err := mounted.StoreTLS(at(identity.FileBundle), at(identity.FileCert), at(identity.FileKey))
	if err != nil {
		return nil, err
	}
	return etcd.New(etcd.Config{Endpoints: r.endpoints, TLS: cfg, Logger: r.log, Registerer: prometheus.NewRegistry()})
}

func newDefragment(c *command) *cobra.Command {
	r := root{command: c}
	cmd := &cobra.Command{
		Use:   "defragment",
		Short: "Give free space of the store's files back, one member after the other",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := r.connect()
			if err != nil {
				return err
			}
			defer s.Close()
			return etcd.Defragment(cmd.Context(), s, func(e string) { c.say("%s is defragmented", e) })
		},
	}
	r.addFlags(cmd)
	return cmd
}

func newSnapshot(c *command) *cobra.Command {
	r := root{command: c}
	var keep int
	cmd := &cobra.Command{
		Use:   "snapshot FOLDER",
		Short: "Take a snapshot of the store",
		Long: `Take a snapshot of the store into a folder, by the time of its taking. It is restored
by "etcdutl snapshot restore". Whoever restores an older one makes etcd's revisions go
back: agents notice, read all of it anew, and write again what they export.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := r.connect()
			if err != nil {
				return err
			}
			defer s.Close()
			return c.snapshot(cmd.Context(), s, args[0], keep)
		},
	}
	r.addFlags(cmd)
	cmd.Flags().IntVar(&keep, "keep", 0, "how many snapshots of the folder are kept; older ones are deleted; 0: all")
	return cmd
}

const (
	snapshotPrefix = "causeway-"
	snapshotSuffix = ".db"
)

// snapshot leaves only whole snapshots under their names, however it ends.
func (c *command) snapshot(ctx context.Context, s *etcd.Store, dir string, keep int) (err error) {
	f, err := os.CreateTemp(dir, ".partial-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	n, err := etcd.Snapshot(ctx, s, f)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	name := filepath.Join(dir, snapshotPrefix+time.Now().UTC().Format("20060102T150405Z")+snapshotSuffix)
	if err := os.Rename(f.Name(), name); err != nil {
		return err
	}
	c.say("%s: %d bytes", name, n)
	if keep <= 0 {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var old []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), snapshotPrefix) && strings.HasSuffix(e.Name(), snapshotSuffix) {
			old = append(old, e.Name())
		}
	}
	slices.Sort(old) // by time
	for _, name := range old[:max(0, len(old)-keep)] {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("delete an old snapshot: %w", err)
		}
	}
	return nil
}

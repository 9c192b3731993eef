package up

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cmd/causeway/client"
	"github.com/causeway-mesh/causeway/xds/translate"
)

// stateDir is the folder in which one `causeway up` keeps what it makes: keys,
// etcd's data, Envoys' configurations and logs, and the clients' context file.
// Everything in it is derived from the manifests, and made anew at each start.
type stateDir struct {
	path string
	lock *os.File
	// sockets is a short path for unix sockets, whose names are limited to 108 bytes.
	sockets string
}

// parts of a stateDir, cleared at start.
var stateParts = []string{"client.yaml", "client", "authority", "etcd", "clusters", "proxies", "hub"}

// openState makes the folder, takes its lock and clears what an earlier run
// left. Nothing but known parts is ever removed.
func openState(path string) (*stateDir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make the state folder: %w; name another with --state", err)
	}
	lockPath := filepath.Join(path, "lock")
	f, err := os.OpenFile(lockPath, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the state folder's lock: %w; name another folder with --state", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		pid, _ := os.ReadFile(lockPath)
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("another `causeway up` (process %s) uses the state folder %s; stop it, or give this one a folder of its own with --state", strings.TrimSpace(string(pid)), path)
		}
		return nil, fmt.Errorf("lock %s: %w", lockPath, err)
	}
	for _, p := range stateParts {
		if err := os.RemoveAll(filepath.Join(path, p)); err != nil {
			f.Close()
			return nil, fmt.Errorf("clear what an earlier run left: %w", err)
		}
	}
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	}
	sockets, err := os.MkdirTemp("", "cw")
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("make a folder for sockets: %w", err)
	}
	return &stateDir{path: path, lock: f, sockets: sockets}, nil
}

// close releases the lock. The context file goes, so that clients don't look for
// a server that is gone; logs stay.
func (s *stateDir) close() error {
	return errors.Join(client.RemoveContext(s.path), os.RemoveAll(s.sockets), s.lock.Close())
}

func (s *stateDir) join(parts ...string) string {
	return filepath.Join(append([]string{s.path}, parts...)...)
}

// proxy is the folder of one Envoy.
func (s *stateDir) proxy(p translate.Proxy) string {
	return s.join("proxies", string(p.Cluster), strings.Trim(string(p.Role)+"-"+p.Namespace+"-"+p.Name, "-"))
}

func (s *stateDir) cluster(id cluster.ID) string { return s.join("clusters", string(id)) }

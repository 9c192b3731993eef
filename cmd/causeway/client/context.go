package client

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"sigs.k8s.io/yaml"

	"github.com/causeway-mesh/causeway/cluster/identity"
)

// Context says how to reach a server: `causeway up` writes it into its state
// directory, and the commands here find it there.
type Context struct {
	// Server is the query API's address, "host:port".
	Server string `json:"server"`
	// CACert, Cert and Key are paths of PEM files. Relative ones start at the
	// directory of the Context's own file.
	CACert string `json:"cacert"`
	Cert   string `json:"cert"`
	Key    string `json:"key"`
}

// ContextFile is the name of a Context's file in the state directory.
const ContextFile = "client.yaml"

const maxContextBytes = 64 << 10

// StateDir gives the directory in which `causeway up` keeps its state: flag,
// else $CAUSEWAY_STATE, else causeway/up in $XDG_STATE_HOME or ~/.local/state.
func StateDir(flag string, getenv func(string) string) (string, error) {
	if flag != "" {
		return flag, nil
	}
	if dir := getenv("CAUSEWAY_STATE"); dir != "" {
		return dir, nil
	}
	base := getenv("XDG_STATE_HOME")
	if base == "" {
		home := getenv("HOME")
		if home == "" {
			return "", errors.New("no place for state: set --state, CAUSEWAY_STATE or HOME")
		}
		base = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(base, "causeway", "up"), nil
}

// ReadContext reads the Context in a state directory. The error is an
// fs.ErrNotExist if there is none. Paths in the result are usable as they are.
func ReadContext(dir string) (Context, error) {
	path := filepath.Join(dir, ContextFile)
	info, err := os.Stat(path)
	if err != nil {
		return Context{}, fmt.Errorf("read context: %w", err)
	}
	if info.Size() > maxContextBytes {
		return Context{}, fmt.Errorf("read context: %s is larger than %d bytes", path, maxContextBytes)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return Context{}, fmt.Errorf("read context: %w", err)
	}
	var c Context
	if err := yaml.UnmarshalStrict(data, &c); err != nil {
		return Context{}, fmt.Errorf("read context %s: %w", path, err)
	}
	if c.Server == "" {
		return Context{}, fmt.Errorf("read context %s: server is missing", path)
	}
	for _, p := range []*string{&c.CACert, &c.Cert, &c.Key} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	return c, nil
}

// WriteContext puts a Context into a state directory, which must exist, in one
// step.
func WriteContext(dir string, c Context) error {
	data, err := yaml.Marshal(c)
	if err != nil {
		return fmt.Errorf("write context: %w", err)
	}
	if err := identity.WriteFile(filepath.Join(dir, ContextFile), data, 0o600); err != nil {
		return fmt.Errorf("write context: %w", err)
	}
	return nil
}

// RemoveContext takes the Context away when its server stops. It is no error if
// there is none.
func RemoveContext(dir string) error {
	if err := os.Remove(filepath.Join(dir, ContextFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove context: %w", err)
	}
	return nil
}

//go:build !unix

package embedded

import "os"

// lockFile opens the file without locking it: etcd then waits for the lock of its
// database.
func lockFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
}

package store

import (
	"errors"
	"fmt"
)

// The errors of the contract; test for them with errors.Is.
var (
	// ErrCompacted: the revision asked for has been forgotten. List the newest.
	ErrCompacted = errors.New("revision has been compacted")
	// ErrFutureRevision: the store has not reached the revision asked for. If it
	// once had, the store was restored from a backup.
	ErrFutureRevision = errors.New("revision is in the future")
	// ErrReplaced: the store behind the address is no longer the one that was
	// being watched (other etcd cluster id), so its revisions mean something else.
	ErrReplaced = errors.New("store was replaced by another one")
	// ErrConflict: a guard did not hold.
	ErrConflict = errors.New("conflict")
	// ErrTooLarge: the transaction or value exceeds a limit of the store.
	ErrTooLarge = errors.New("too large for the store")
	// ErrDenied: this client may not do that.
	ErrDenied = errors.New("denied by the store")
	// ErrUnavailable: the store could not be reached or could not answer in time.
	ErrUnavailable = errors.New("store unavailable")
	// ErrInvalid: the request makes no sense to any store; a bug of the caller.
	ErrInvalid = errors.New("invalid store request")
)

// Resync reports whether err ends a watch in such a way that the reader must
// List afresh, replace what it had, and watch from there.
func Resync(err error) bool {
	return errors.Is(err, ErrCompacted) || errors.Is(err, ErrFutureRevision) || errors.Is(err, ErrReplaced)
}

// ConflictError names the first guard that did not hold. It is an ErrConflict.
type ConflictError struct {
	Key string
	// Want is the ModRevision of the guard, Have that of the key (0: absent).
	Want, Have int64
}

// Error implements error.
func (e *ConflictError) Error() string {
	if e.Have == 0 {
		return fmt.Sprintf("conflict: key %q does not exist, expected at revision %d; read it again and retry", e.Key, e.Want)
	}
	if e.Want == 0 {
		return fmt.Sprintf("conflict: key %q exists since revision %d, expected absent; read it again and retry", e.Key, e.Have)
	}
	return fmt.Sprintf("conflict: key %q is at revision %d, expected %d; read it again and retry", e.Key, e.Have, e.Want)
}

// Is makes errors.Is(err, ErrConflict) true.
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }

package record

import (
	"errors"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/store"
)

// Error says why a record of one cluster is not used.
type Error struct {
	Cluster cluster.ID // empty if not even that can be read from the key
	Key     string
	Object  string // cluster.Ref's String where the key names one
	Err     error
}

// Error implements error.
func (e *Error) Error() string {
	s := "record " + shorten(e.Key)
	if e.Object != "" {
		s += " (" + e.Object + ")"
	}
	return s + " of cluster \"" + string(e.Cluster) + "\" is left out: " + e.Err.Error()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Problem puts the error as a person is told of it.
func (e *Error) Problem() cluster.Problem {
	return cluster.Problem{Cluster: e.Cluster, Where: shorten(e.Key), Object: e.Object, Message: shorten(e.Err.Error())}
}

func keyError(kv store.KV, k store.Key, err error) error {
	var e *Error
	if errors.As(err, &e) {
		return err
	}
	e = &Error{Cluster: cluster.ID(k.Cluster), Key: kv.Key, Err: err}
	if refs, rerr := Refs(k); rerr == nil && len(refs) > 0 {
		e.Object = refs[0].String()
	}
	return e
}

// shorten bounds what a message repeats of other clusters' input.
func shorten(s string) string {
	const most = 512
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
}

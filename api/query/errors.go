package query

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/causeway-mesh/causeway/federation/store"
)

// The kinds of errors that handlers make themselves; wrap them with the words
// that the caller shall read.
var (
	errInvalid         = errors.New("invalid request")
	errNotFound        = errors.New("not found")
	errUnauthenticated = errors.New("unauthenticated")
	errNotAsked        = errors.New("the API server can't be asked about the token: try again")
	errForbidden       = errors.New("forbidden")
	errNoHistory       = errors.New("this server keeps no history: ask for revision 0, the newest")
	errNotYet          = errors.New("nothing has been resolved yet: try again")
	errTooMany         = errors.New("too many watches")
	errStopping        = errors.New("the server is stopping")
	errPanic           = errors.New("internal error: see the server's log")
)

// kindError is an error of a kind whose message is its own alone.
type kindError struct {
	kind error
	text string
}

func (e *kindError) Error() string { return e.text }
func (e *kindError) Unwrap() error { return e.kind }

func invalidf(format string, args ...any) error {
	return &kindError{errInvalid, fmt.Sprintf(format, args...)}
}

func notFoundf(format string, args ...any) error {
	return &kindError{errNotFound, fmt.Sprintf(format, args...)}
}

// codeOf maps errors to gRPC codes, for all methods.
func codeOf(err error) codes.Code {
	if err == nil {
		return codes.OK
	}
	if s, ok := status.FromError(err); ok {
		return s.Code()
	}
	for _, m := range []struct {
		err  error
		code codes.Code
	}{
		{errInvalid, codes.InvalidArgument},
		{errNotFound, codes.NotFound},
		{errUnauthenticated, codes.Unauthenticated},
		{errNotAsked, codes.Unavailable},
		{errForbidden, codes.PermissionDenied},
		{errNoHistory, codes.FailedPrecondition},
		{errNotYet, codes.Unavailable},
		{errTooMany, codes.ResourceExhausted},
		{errStopping, codes.Unavailable},
		{errPanic, codes.Internal},
		{store.ErrCompacted, codes.OutOfRange},
		{store.ErrFutureRevision, codes.OutOfRange},
		{store.ErrUnavailable, codes.Unavailable},
		{store.ErrDenied, codes.PermissionDenied},
		{context.DeadlineExceeded, codes.DeadlineExceeded},
		{context.Canceled, codes.Canceled},
	} {
		if errors.Is(err, m.err) {
			return m.code
		}
	}
	return codes.Unknown
}

// asStatus turns an error into what goes over the wire.
func asStatus(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.Error(codeOf(err), err.Error())
}

package server

import (
	"errors"
	"fmt"

	"github.com/causeway-mesh/causeway/xds/translate"
)

// What translate says of resources, by short names.
type (
	kind  = translate.Kind
	key   = translate.Ref
	facts = translate.Facts
)

const (
	kindSecret   = translate.KindSecret
	kindCluster  = translate.KindCluster
	kindEndpoint = translate.KindEndpoint
	kindListener = translate.KindListener
	kindRoute    = translate.KindRoute
	kinds        = translate.Kinds
)

// unfit says why a resource of a kind can't be sent: it is not what it claims to be, is
// too large, or breaks Envoy's validation rules.
func unfit(k kind, r *translate.Resource, limits *Limits) error {
	switch size := len(r.Body.GetValue()); {
	case r.Facts.Err != nil:
		return r.Facts.Err
	case r.Name == "" || len(r.Name) > maxName:
		return fmt.Errorf("its name has %d bytes; from 1 to %d are possible", len(r.Name), maxName)
	case r.Name != r.Facts.Name:
		return fmt.Errorf("it is offered as %q but calls itself %q", r.Name, r.Facts.Name)
	case r.Version == "":
		return errors.New("it has no version")
	case r.Body.GetTypeUrl() != k.URL():
		return fmt.Errorf("it is a %q, not a %q", r.Body.GetTypeUrl(), k.URL())
	case size > limits.ResourceBytes:
		return fmt.Errorf("it has %d bytes: more than the limit of %d", size, limits.ResourceBytes)
	}
	return nil
}

package client

import (
	"testing"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
)

func TestAcceptance(t *testing.T) {
	accepted := func(status, reason, message string) *causewayv1.Condition {
		return &causewayv1.Condition{Type: "Accepted", Status: status, Reason: reason, Message: message}
	}
	partial := &causewayv1.Condition{Type: "PartiallyInvalid", Status: "True", Reason: "UnsupportedValue", Message: "Dropped Rule 1"}
	for _, c := range []struct {
		name           string
		in             []*causewayv1.Condition
		short, message string
	}{
		{"all of it", []*causewayv1.Condition{accepted("True", "Accepted", "")}, "True", ""},
		{"with a note", []*causewayv1.Condition{accepted("True", "Accepted", "not listener b")}, "True", "not listener b"},
		{"some rules", []*causewayv1.Condition{accepted("True", "Accepted", "not listener b"), partial}, "Partially:UnsupportedValue", "not listener b; Dropped Rule 1"},
		{"nothing", []*causewayv1.Condition{accepted("False", "Conflicted", "no")}, "False:Conflicted", "no"},
		{"not judged", nil, "-", ""},
	} {
		if short, message := acceptance(c.in); short != c.short || message != c.message {
			t.Errorf("%s: %q, %q; want %q, %q", c.name, short, message, c.short, c.message)
		}
	}
}

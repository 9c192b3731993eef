package translate

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/causeway-mesh/causeway/federation/resolve"
)

const headerHost = "host"

// headerMod is a change to a set of headers as Envoy makes it: remove, then add
// and set in order.
type headerMod struct {
	add    []*corev3.HeaderValueOption
	remove []string
}

// headerChanges is what filters do to headers. host is what the request's Host
// becomes, if anything: Envoy changes it otherwise than headers.
type headerChanges struct {
	request, response headerMod
	host              string
}

// headerMods translates header modifiers, and what a rewrite does to the Host. An
// error means that Envoy would refuse them.
func headerMods(f resolve.Filters) (out headerChanges, err error) {
	if out.request, out.host, err = headerChange(f.Request, true); err != nil {
		return out, fmt.Errorf("request headers: %w", err)
	}
	if out.response, _, err = headerChange(f.Response, false); err != nil {
		return out, fmt.Errorf("response headers: %w", err)
	}
	if w := f.Rewrite; w != nil && w.Hostname != "" {
		if !hostname(w.Hostname) {
			return out, fmt.Errorf("%q can't be a hostname", clip(w.Hostname))
		}
		out.host = w.Hostname
	}
	return out, nil
}

// then is c followed by o.
func (c headerChanges) then(o headerChanges) headerChanges {
	out := headerChanges{request: c.request.then(o.request), response: c.response.then(o.response), host: c.host}
	if o.host != "" {
		out.host = o.host
	}
	return out
}

func (m headerMod) then(o headerMod) headerMod {
	var out headerMod
	for _, h := range m.add {
		// Envoy overwrites before it appends, whatever the order of the list.
		if !slices.Contains(o.remove, h.Header.Key) && !o.sets(h.Header.Key) {
			out.add = append(out.add, h)
		}
	}
	out.add = append(out.add, o.add...)
	out.remove = append(slices.Clone(m.remove), o.remove...)
	slices.Sort(out.remove)
	out.remove = slices.Compact(out.remove)
	return out
}

// sets tells whether m replaces a header.
func (m headerMod) sets(name string) bool {
	return slices.ContainsFunc(m.add, func(h *corev3.HeaderValueOption) bool {
		return h.Header.Key == name && h.AppendAction == corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD
	})
}

func (c headerChanges) putOn(r *routev3.Route) {
	r.RequestHeadersToAdd, r.RequestHeadersToRemove = c.request.add, c.request.remove
	r.ResponseHeadersToAdd, r.ResponseHeadersToRemove = c.response.add, c.response.remove
}

func headerChange(m resolve.HeaderMods, request bool) (out headerMod, host string, err error) {
	check := func(name, value string) error {
		if !resolve.IsToken(name) {
			return fmt.Errorf("%q can't be the name of a header", clip(name))
		}
		if !request && strings.EqualFold(name, headerHost) {
			return errors.New("responses have no Host header to change")
		}
		if !resolve.IsFieldValue(value) {
			return fmt.Errorf("the value of %s can't be a header's", name)
		}
		return nil
	}
	for _, n := range m.Remove {
		n = strings.ToLower(n)
		if err := check(n, ""); err != nil {
			return out, "", err
		}
		if request && n == headerHost {
			return out, "", errors.New("requests need their Host header: it can't be removed")
		}
		out.remove = append(out.remove, n)
	}
	for i, list := range [][]resolve.Header{m.Set, m.Add} {
		for _, h := range list {
			n := strings.ToLower(h.Name)
			if err := check(n, h.Value); err != nil {
				return out, "", err
			}
			switch {
			case request && n == headerHost:
				if !hostname(h.Value) {
					return out, "", fmt.Errorf("the Host header can't become %q: it takes a hostname without a port", clip(h.Value))
				}
				host = h.Value
			case i == 0:
				out.add = append(out.add, setHeader(n, literal(h.Value)))
			default:
				out.add = append(out.add, &corev3.HeaderValueOption{
					Header:         &corev3.HeaderValue{Key: n, Value: literal(h.Value)},
					AppendAction:   corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD,
					KeepEmptyValue: true,
				})
			}
		}
	}
	return out, host, nil
}

func setHeader(name, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:         &corev3.HeaderValue{Key: name, Value: value},
		AppendAction:   corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		KeepEmptyValue: true,
	}
}

// literal keeps Envoy from reading '%' as the start of a command.
func literal(v string) string { return strings.ReplaceAll(v, "%", "%%") }

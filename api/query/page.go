package query

import (
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"hash/fnv"
	"iter"
	"slices"
	"sort"
	"strings"

	"google.golang.org/protobuf/proto"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
)

// sep separates the parts of a row's key; no name contains it.
const sep = "\x00"

func key(parts ...string) string { return strings.Join(parts, sep) }

// row is a row that may be listed: its place and how to make it. Making is put
// off because most rows are not on the page.
type row[T proto.Message] struct {
	key  string
	make func() T
}

// rows are sorted by key, with no key twice.
type rows[T proto.Message] iter.Seq[row[T]]

// sorted makes rows of a list in any order.
func sorted[T proto.Message](list []row[T]) rows[T] {
	slices.SortFunc(list, func(a, b row[T]) int { return cmp.Compare(a.key, b.key) })
	return rows[T](slices.Values(list))
}

// paginate cuts a page out of rows. The token is the key of the last row of the
// page before, sealed with a hash of the request without its page.
func paginate[T proto.Message](p *causewayv1.Page, seal uint64, all rows[T]) ([]T, string, error) {
	size := int(p.GetPageSize())
	switch {
	case size < 0:
		return nil, "", invalidf("page_size must not be negative")
	case size == 0:
		size = defaultPageRows
	}
	size = min(size, maxPageRows)
	after, err := openToken(p.GetPageToken(), seal)
	if err != nil {
		return nil, "", err
	}
	var out []T
	var last string
	bytes := 0
	for r := range all {
		if after != "" && r.key <= after {
			continue
		}
		if len(out) == size || bytes > maxPageBytes {
			return out, sealToken(last, seal), nil
		}
		m := r.make()
		bytes += proto.Size(m)
		out, last = append(out, m), r.key
	}
	return out, "", nil
}

func sealToken(last string, seal uint64) string {
	return base64.RawURLEncoding.EncodeToString(append(binary.BigEndian.AppendUint64(nil, seal), last...))
}

func openToken(token string, seal uint64) (string, error) {
	if token == "" {
		return "", nil
	}
	data, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(data) <= 8 {
		return "", invalidf("page_token is not one of ours")
	}
	if binary.BigEndian.Uint64(data) != seal {
		return "", invalidf("page_token belongs to another request: leave the other fields as they were")
	}
	return string(data[8:]), nil
}

// sealOf hashes what must not change between the pages of a list.
func sealOf(method string, f *causewayv1.Filter, revision int64, more ...string) uint64 {
	h := fnv.New64a()
	for _, s := range append([]string{method, f.GetCluster(), f.GetNamespace(), f.GetName()}, more...) {
		_, _ = h.Write([]byte(s + sep))
	}
	_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(revision)))
	return h.Sum64()
}

func checkFilter(f *causewayv1.Filter) error {
	for _, v := range []struct{ field, value string }{
		{"cluster", f.GetCluster()}, {"namespace", f.GetNamespace()}, {"name", f.GetName()},
	} {
		if len(v.value) > maxName {
			return invalidf("filter.%s is longer than %d bytes", v.field, maxName)
		}
	}
	return nil
}

// matches reports whether an empty or equal filter value lets value pass.
func matches(filter, value string) bool { return filter == "" || filter == value }

// sortedKeys lists a map's keys in order.
func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	out := make([]K, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Slice(out, func(i, j int) bool { return out[i] < out[j] })
	return out
}

package explain

import (
	"strings"

	"github.com/causeway-mesh/causeway/federation/resolve"
)

// normalize gives a path as Envoy's proxies see it once they have normalized it
// (RFC 3986, section 6.2.2; our listeners ask for it): escapes of characters that
// need none are undone, characters that need one are escaped, "." and ".."
// segments are resolved. Repeated slashes and escaped ones stay.
func normalize(path string) string {
	var out []string
	segments := strings.Split(strings.TrimPrefix(strings.ReplaceAll(path, `\`, "/"), "/"), "/")
	for i, s := range segments {
		s = normalizeSegment(s)
		last := i == len(segments)-1
		switch s {
		case ".":
			if last {
				out = append(out, "")
			}
		case "..":
			if len(out) > 0 {
				out = out[:len(out)-1]
			}
			if last {
				out = append(out, "")
			}
		default:
			out = append(out, s)
		}
	}
	return "/" + strings.Join(out, "/")
}

func normalizeSegment(s string) string {
	const hex = "0123456789ABCDEF"
	s = resolve.Unescape(s)
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte("\"<>`{}", c) >= 0 {
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

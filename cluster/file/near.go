package file

import (
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
)

// nearField finds the field that somebody may have meant who wrote one that a
// schema doesn't know, given as its path; empty if none is close.
func nearField(s *schema.Structural, path string) string {
	parts := strings.Split(path, ".")
	for _, part := range parts[:len(parts)-1] {
		name, list, _ := strings.Cut(part, "[")
		next, ok := s.Properties[name]
		if !ok {
			return "" // below a map of names
		}
		if s = &next; list != "" {
			if s = next.Items; s == nil {
				return ""
			}
		}
	}
	wrote := parts[len(parts)-1]
	if len(wrote) > 40 {
		return "" // longer than any field
	}
	best, least := "", min(2, len(wrote)/3)+1
	for field := range s.Properties {
		n := distance(strings.ToLower(wrote), strings.ToLower(field))
		if n < least || n == least && best != "" && field < best {
			best, least = field, n
		}
	}
	return best
}

// distance counts the letters to add, drop, change or swap with the next one to
// come from a to b.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before, last, row = last, row, before
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j]+cost, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
	}
	return row[len(b)]
}

package file

import (
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// lineOf gives the line of the field that a path such as
// spec.rules[0].matches names, or of the deepest part of it that exists. Names
// of map entries may hold dots and stand in brackets or not.
func lineOf(root *yaml.Node, path string) int {
	return locate(root, path, root.Line, 0)
}

func locate(n *yaml.Node, rest string, line, depth int) int {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	rest = strings.TrimPrefix(rest, ".")
	if rest == "" || depth > maxDepth {
		return line
	}
	switch n.Kind {
	case yaml.MappingNode:
		if value, tail, at, ok := entry(n, rest); ok {
			return locate(value, tail, at, depth+1)
		}
	case yaml.SequenceNode:
		if strings.HasPrefix(rest, "[") {
			index, tail, ok := strings.Cut(rest[1:], "]")
			i, err := strconv.Atoi(index)
			if ok && err == nil && i >= 0 && i < len(n.Content) {
				return locate(n.Content[i], tail, n.Content[i].Line, depth+1)
			}
			return line
		}
		// Some decoders leave list indices out of their paths: the first
		// element that has the field is the best that can be said.
		for _, e := range n.Content {
			if e.Kind == yaml.MappingNode {
				if value, tail, at, ok := entry(e, rest); ok {
					return locate(value, tail, at, depth+1)
				}
			}
		}
	}
	return line
}

// entry finds the longest key of a mapping that the path starts with.
func entry(n *yaml.Node, rest string) (value *yaml.Node, tail string, line int, ok bool) {
	best := -1
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i].Value
		after, fits := strings.CutPrefix(rest, key)
		fits = fits && (after == "" || after[0] == '.' || after[0] == '[')
		if !fits {
			after, fits = strings.CutPrefix(rest, "["+key+"]")
		}
		if fits && len(key) > best {
			best, value, tail, line, ok = len(key), n.Content[i+1], after, n.Content[i].Line, true
		}
	}
	return value, tail, line, ok
}

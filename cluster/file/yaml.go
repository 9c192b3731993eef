package file

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Bounds of one document. An alias counts each time it is used, so a bomb of
// aliases meets them early.
const (
	maxDepth       = 100
	maxNodes       = 300_000
	maxScalarBytes = 8 << 20
	maxBlame       = 256 << 10 // bytes of a malformed document that is parsed again for its line
)

// chunk is the text between two document markers.
type chunk struct {
	line int // of its first line, from 1
	text []byte
}

// split cuts a file at the lines that start a YAML document. YAML forbids such
// a line inside of any scalar, so a document that is malformed can't swallow
// the next one.
func split(data []byte) []chunk {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	var chunks []chunk
	start, startLine, line, empty := 0, 1, 1, true
	for at := 0; at < len(data); line++ {
		end := len(data)
		if i := bytes.IndexByte(data[at:], '\n'); i >= 0 {
			end = at + i + 1
		}
		text := data[at:end]
		if marksDocument(text) {
			// Directives and comments belong to the document that follows them.
			if !empty {
				chunks = append(chunks, chunk{startLine, data[start:at]})
				start, startLine = at, line
			}
			empty = len(bytes.TrimSpace(text)) <= 3
		} else if t := bytes.TrimSpace(text); len(t) > 0 && t[0] != '#' && text[0] != '%' {
			empty = false
		}
		at = end
	}
	if !empty {
		chunks = append(chunks, chunk{startLine, data[start:]})
	}
	return chunks
}

func marksDocument(line []byte) bool {
	if !bytes.HasPrefix(line, []byte("---")) {
		return false
	}
	return len(line) == 3 || strings.IndexByte(" \t\r\n", line[3]) >= 0
}

var yamlLine = regexp.MustCompile(`^line (\d+): `)

// parseYAML gives the root nodes of a file with the lines of the file, and a
// problem for each document that isn't YAML.
func parseYAML(data []byte) (roots []*yaml.Node, problems []problem) {
	// YAML takes a few characters for line ends that editors don't.
	last := 1 + bytes.Count(data, []byte("\n"))
	for _, c := range split(data) {
		if len(problems) >= maxProblems {
			break
		}
		dec := yaml.NewDecoder(bytes.NewReader(c.text))
		for {
			var doc yaml.Node
			err := dec.Decode(&doc)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				line, text := blame(c.text, err)
				problems = append(problems, problem{line: min(c.line+line, last), message: "malformed YAML: " + clip(text)})
				break
			}
			if len(doc.Content) == 1 {
				shift(doc.Content[0], c.line-1, last)
				roots = append(roots, doc.Content[0])
			}
		}
	}
	return roots, problems
}

// blame gives the line, from 0, that a malformed document is wrong in, and the
// error without the line that it names. That may be where the surrounding block
// starts, which can be far above: the true one is the last line of the shortest
// beginning of the document that fails in the same words.
func blame(text []byte, err error) (line int, why string) {
	line, why = unline(err)
	if line < 0 {
		line = leading(text)
	}
	lines := slices.Collect(bytes.Lines(text))
	ends := make([]int, len(lines)+1)
	for i, l := range lines {
		ends[i+1] = ends[i] + len(l)
	}
	if line >= len(lines) {
		return max(len(lines)-1, 0), why
	}
	if !strings.HasPrefix(why, "did not find expected") || len(text) > maxBlame {
		return line, why // the scanner's own lines are right
	}
	n := sort.Search(len(lines)-line, func(i int) bool {
		dec := yaml.NewDecoder(bytes.NewReader(text[:ends[line+i+1]]))
		for {
			if err := dec.Decode(new(yaml.Node)); err != nil {
				_, same := unline(err)
				return same == why
			}
		}
	})
	return min(line+n, len(lines)-1), why
}

// unline splits an error of the YAML package; the line counts from 0 and is
// negative if there is none.
func unline(err error) (int, string) {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	m := yamlLine.FindStringSubmatch(text)
	if m == nil {
		return -1, text
	}
	n, _ := strconv.Atoi(m[1])
	return n - 1, text[len(m[0]):]
}

// leading counts the lines before the first one with content.
func leading(text []byte) int {
	n := 0
	for line := range bytes.Lines(text) {
		t := bytes.TrimSpace(line)
		if len(t) > 0 && t[0] != '#' && !bytes.Equal(t, []byte("---")) {
			return n
		}
		n++
	}
	return 0
}

// shift makes a node's lines those of the file, up to its last one. Aliases are left alone: what
// they point at is part of the same tree.
func shift(n *yaml.Node, by, last int) {
	n.Line = min(n.Line+by, last)
	for _, c := range n.Content {
		shift(c, by, last)
	}
}

// converter turns nodes into the values that JSON knows (nil, bool, int64,
// float64, string, []any, map[string]any), as kubectl does: with the YAML 1.1
// words for booleans, keys made strings, and aliases and merge keys resolved.
type converter struct {
	nodes, bytes int
	problems     []problem
	full         bool
}

// errBounds stops a conversion.
var errBounds = errors.New("too large once its aliases are followed: write the repeated parts as objects of their own, or less of them")

// convert gives the value of a document. It returns problems instead when the
// document repeats a key, has a value that JSON lacks or breaks a bound.
func convert(root *yaml.Node) (any, []problem) {
	c := &converter{}
	v := c.value(root, 0)
	if len(c.problems) > 0 {
		return nil, c.problems
	}
	return v, nil
}

func (c *converter) fail(n *yaml.Node, format string, args ...any) {
	if len(c.problems) < maxProblemsPerObject {
		c.problems = append(c.problems, problem{line: n.Line, message: clip(fmt.Sprintf(format, args...))})
	}
}

func (c *converter) spend(n *yaml.Node, depth int) bool {
	if c.full {
		return false
	}
	c.nodes++
	c.bytes += len(n.Value)
	switch {
	case depth > maxDepth:
		c.fail(n, "nested more than %d levels deep", maxDepth)
		c.full = true
	case c.nodes > maxNodes || c.bytes > maxScalarBytes:
		c.fail(n, "%v", errBounds)
		c.full = true
	}
	return !c.full
}

func (c *converter) value(n *yaml.Node, depth int) any {
	if !c.spend(n, depth) {
		return nil
	}
	switch n.Kind {
	case yaml.AliasNode:
		return c.value(n.Alias, depth+1)
	case yaml.SequenceNode:
		list := make([]any, 0, len(n.Content))
		for _, e := range n.Content {
			list = append(list, c.value(e, depth+1))
		}
		return list
	case yaml.MappingNode:
		m := make(map[string]any, len(n.Content)/2)
		c.mapping(n, depth, m)
		return m
	case yaml.ScalarNode:
		v, err := scalar(n)
		if err != nil {
			c.fail(n, "%v", err)
		}
		return v
	}
	c.fail(n, "unexpected YAML node")
	return nil
}

func (c *converter) mapping(n *yaml.Node, depth int, m map[string]any) {
	first := make(map[string]int, len(n.Content)/2)
	var merges []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		kn, vn := n.Content[i], n.Content[i+1]
		if kn.ShortTag() == "!!merge" {
			merges = append(merges, vn)
			continue
		}
		key, err := keyOf(kn)
		if err != nil {
			c.fail(kn, "%v", err)
			continue
		}
		if line, twice := first[key]; twice {
			c.fail(kn, "key %q is given twice, first on line %d", key, line)
			continue
		}
		first[key] = kn.Line
		m[key] = c.value(vn, depth+1)
	}
	for _, from := range merges {
		c.merge(from, depth+1, m)
	}
}

// merge adds the keys that m doesn't have yet.
func (c *converter) merge(from *yaml.Node, depth int, m map[string]any) {
	if !c.spend(from, depth) {
		return
	}
	switch from.Kind {
	case yaml.AliasNode:
		c.merge(from.Alias, depth+1, m)
	case yaml.SequenceNode:
		for _, e := range from.Content {
			c.merge(e, depth+1, m)
		}
	case yaml.MappingNode:
		merged := make(map[string]any, len(from.Content)/2)
		c.mapping(from, depth, merged)
		for k, v := range merged {
			if _, has := m[k]; !has {
				m[k] = v
			}
		}
	default:
		c.fail(from, "the merge key << needs a mapping or a list of mappings")
	}
}

func keyOf(n *yaml.Node) (string, error) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.ScalarNode {
		return "", errors.New("a key must be a plain word, not a list or mapping")
	}
	v, err := scalar(n)
	if err != nil {
		return "", err
	}
	switch v := v.(type) {
	case string:
		return v, nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	case bool:
		return strconv.FormatBool(v), nil
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64), nil
	}
	return "", errors.New("a key is missing before the colon")
}

// booleans11 are the words that YAML 1.1 adds to true and false.
var booleans11 = map[string]bool{
	"y": true, "Y": true, "yes": true, "Yes": true, "YES": true, "on": true, "On": true, "ON": true,
	"n": false, "N": false, "no": false, "No": false, "NO": false, "off": false, "Off": false, "OFF": false,
}

func scalar(n *yaml.Node) (any, error) {
	plain := n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle|yaml.TaggedStyle) == 0
	switch tag := n.ShortTag(); tag {
	case "!!null":
		return nil, nil
	case "!!str", "!!timestamp", "!!merge":
		if b, ok := booleans11[n.Value]; ok && plain && tag == "!!str" {
			return b, nil
		}
		return n.Value, nil
	case "!!bool":
		var b bool
		if err := n.Decode(&b); err != nil {
			return nil, fmt.Errorf("%q is not a boolean", clip(n.Value))
		}
		return b, nil
	case "!!int":
		if i, err := strconv.ParseInt(strings.ReplaceAll(n.Value, "_", ""), 0, 64); err == nil {
			return i, nil
		}
		fallthrough
	case "!!float":
		var f float64
		if err := n.Decode(&f); err != nil {
			return nil, fmt.Errorf("%q is not a number", clip(n.Value))
		}
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return nil, fmt.Errorf("%s is not a number that JSON has: put it in quotes if it is text", n.Value)
		}
		return f, nil
	case "!!binary":
		b, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(n.Value), ""))
		if err != nil {
			return nil, errors.New("value of the tag !!binary is not base64")
		}
		return string(b), nil
	default:
		return nil, fmt.Errorf("tag %s has no meaning in a manifest", clip(tag))
	}
}

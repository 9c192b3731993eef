package file

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// parseJSON gives the root nodes of a JSON file, which may hold several values
// one after the other, in the form that parseYAML gives. JSON isn't read as
// YAML, since YAML knows neither its surrogate escapes nor its tabs.
func parseJSON(data []byte) (roots []*yaml.Node, problems []problem) {
	p := &jsonParser{data: data, dec: json.NewDecoder(bytes.NewReader(data)), line: 1}
	p.dec.UseNumber()
	for {
		n, err := p.next(0)
		if errors.Is(err, io.EOF) {
			return roots, problems
		}
		if err != nil {
			var syntax *json.SyntaxError
			if errors.As(err, &syntax) {
				p.seek(syntax.Offset)
			} else if errors.Is(err, io.ErrUnexpectedEOF) {
				p.seek(int64(len(data)))
			}
			return roots, append(problems, problem{line: p.line, message: "malformed JSON: " + clip(strings.TrimPrefix(err.Error(), "json: "))})
		}
		roots = append(roots, n)
	}
}

type jsonParser struct {
	data []byte
	dec  *json.Decoder
	at   int64
	line int
}

func (p *jsonParser) seek(to int64) {
	to = min(to, int64(len(p.data)))
	if to > p.at {
		p.line += bytes.Count(p.data[p.at:to], []byte("\n"))
		p.at = to
	}
}

func (p *jsonParser) token() (json.Token, int, error) {
	t, err := p.dec.Token()
	if err != nil {
		return nil, 0, err
	}
	p.seek(p.dec.InputOffset())
	return t, p.line, nil
}

func (p *jsonParser) next(depth int) (*yaml.Node, error) {
	t, line, err := p.token()
	if err != nil {
		return nil, err
	}
	if depth > maxDepth {
		return nil, fmt.Errorf("nested more than %d levels deep", maxDepth)
	}
	n, err := p.node(t, line, depth)
	if depth == 0 && errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // EOF is the end of the file only between values
	}
	return n, err
}

func (p *jsonParser) node(t json.Token, line, depth int) (*yaml.Node, error) {
	n := &yaml.Node{Line: line}
	switch t := t.(type) {
	case nil:
		n.Kind, n.Tag, n.Value = yaml.ScalarNode, "!!null", "null"
	case bool:
		n.Kind, n.Tag, n.Value = yaml.ScalarNode, "!!bool", fmt.Sprint(t)
	case string:
		n.Kind, n.Tag, n.Value, n.Style = yaml.ScalarNode, "!!str", t, yaml.DoubleQuotedStyle
	case json.Number:
		n.Kind, n.Tag, n.Value = yaml.ScalarNode, "!!int", t.String()
		if strings.ContainsAny(n.Value, ".eE") {
			n.Tag = "!!float"
		}
	case json.Delim:
		n.Kind = yaml.SequenceNode
		if t == '{' {
			n.Kind = yaml.MappingNode
		}
		for p.dec.More() {
			c, err := p.next(depth + 1)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, c)
		}
		if _, _, err := p.token(); err != nil {
			return nil, err
		}
	}
	return n, nil
}

package client

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"
)

// format is a value of -o.
type format string

const (
	formatTable format = "table"
	formatWide  format = "wide"
	formatJSON  format = "json"
	formatYAML  format = "yaml"
)

// String implements pflag.Value.
func (f *format) String() string { return string(*f) }

// Type implements pflag.Value.
func (f *format) Type() string { return "FORMAT" }

// choice is a format flag that takes some formats only.
type choice struct {
	*format
	allowed []format
}

func newChoice(f *format, allowed ...format) choice {
	*f = allowed[0]
	return choice{f, allowed}
}

// Set implements pflag.Value.
func (c choice) Set(s string) error {
	for _, a := range c.allowed {
		if string(a) == s {
			*c.format = a
			return nil
		}
	}
	return fmt.Errorf("must be %s", c.usage())
}

func (c choice) usage() string {
	var names []string
	for _, a := range c.allowed {
		names = append(names, string(a))
	}
	return strings.Join(names, ", ")
}

// marshal gives ProtoJSON. Its library varies white space on purpose, so it is
// laid out again.
func marshal(m proto.Message, indent bool) ([]byte, error) {
	raw, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(m)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if indent {
		err = json.Indent(&out, raw, "", "  ")
	} else {
		err = json.Compact(&out, raw)
	}
	return out.Bytes(), err
}

// printMessage prints a message as JSON or YAML.
func printMessage(w io.Writer, m proto.Message, f format) error {
	data, err := marshal(m, true)
	if err != nil {
		return fmt.Errorf("print answer: %w", err)
	}
	return printJSON(w, data, f)
}

func printJSON(w io.Writer, data []byte, f format) error {
	if f == formatYAML {
		var err error
		if data, err = yaml.JSONToYAML(data); err != nil {
			return fmt.Errorf("print answer: %w", err)
		}
	}
	_, err := fmt.Fprintf(w, "%s\n", bytes.TrimRight(data, "\n"))
	return err
}

const gap = 3

// table prints rows in columns. Widths grow and never shrink, so that rows which
// are printed later (of a watch) stand below those before.
type table struct {
	w      io.Writer
	widths []int
}

func (t *table) print(rows ...[]string) error {
	for _, row := range rows {
		for i, cell := range row {
			if i == len(t.widths) {
				t.widths = append(t.widths, 0)
			}
			if i < len(row)-1 { // the last column needs no width
				t.widths[i] = max(t.widths[i], utf8.RuneCountInString(cell))
			}
		}
	}
	var b strings.Builder
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(cell)
			if i < len(row)-1 {
				line.WriteString(strings.Repeat(" ", t.widths[i]-utf8.RuneCountInString(cell)+gap))
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	_, err := io.WriteString(t.w, b.String())
	return err
}

// cell makes a text fit to stand in a table: one line, and something to see.
func cell(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if s == "" {
		return "-"
	}
	return s
}

// list joins up to limit items and counts the rest; 0 means no limit.
func list(items []string, limit int) string {
	if len(items) == 0 {
		return "-"
	}
	if limit > 0 && len(items) > limit {
		return strings.Join(items[:limit], ",") + fmt.Sprintf(",+%d", len(items)-limit)
	}
	return strings.Join(items, ",")
}

// among names what exists, for errors about what doesn't.
func among(items []string) string {
	const limit = 20
	if len(items) > limit {
		return strings.Join(items[:limit], ", ") + fmt.Sprintf(" and %d more", len(items)-limit)
	}
	return strings.Join(items, ", ")
}

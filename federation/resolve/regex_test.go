package resolve

import (
	"os"
	"strings"
	"testing"
)

// TestRegularExpressions holds what is taken and what is told of the rest. The real Envoy
// takes those of resolvetest/regular-expressions too (TestEnvoyTakesRegularExpressions in
// xds/translate).
func TestRegularExpressions(t *testing.T) {
	good, err := os.ReadFile("resolvetest/regular-expressions")
	if err != nil {
		t.Fatal(err)
	}
	for _, expr := range strings.Split(strings.TrimSpace(string(good)), "\n") {
		if err := checkRegex(expr); err != nil {
			t.Errorf("%q: %v", expr, err)
		}
	}
	for bad, says := range map[string]string{
		"":                        "is not of 1 to 1024 bytes",
		strings.Repeat("a", 1025): "is not of 1 to 1024 bytes",
		`(`:                       "missing closing )",
		`a(?=b)`:                  `invalid or unsupported Perl syntax at "(?="`,
		`(a)\1`:                   `invalid escape sequence at "\\1"`,
		`a**`:                     "invalid nested repetition operator",
		`a{1001}`:                 "invalid repeat count",
		`a{1000}`:                 "too large once compiled",
		// Envoy's RE2 compares bytes.
		`\x{10FFFF}`:   "is no byte",
		`[a-\x{100}]`:  "is no byte",
		`\777`:         "is no byte",
		`[äöü]`:        "sets of bytes",
		`[[:alpha:]é]`: "sets of bytes",
		`é+`:           "write (?:é)",
		// Go knows classes by more names.
		`\p{Letter}`:   `\p{Letter} is no class of RE2`,
		`[^\p{greek}]`: `\p{greek} is no class of RE2`,
		`\P{LC}`:       `\P{LC} is no class of RE2`,
	} {
		if err := checkRegex(bad); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, should say %q", bad, err, says)
		}
	}
}

package resolve

import (
	"errors"
	"fmt"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of a regular expression: its length (Gateway API's own for paths) and
// its size once compiled, since one may be short and huge.
const (
	maxRegex        = 1024
	maxRegexProgram = 1000
)

// checkRegex accepts what both Go and Envoy read as RE2, within bounds.
func checkRegex(s string) error {
	if s == "" || len(s) > maxRegex {
		return fmt.Errorf("the regular expression %q is not of 1 to %d bytes", clip(s), maxRegex)
	}
	return CheckRE2(s)
}

// CheckRE2 accepts the regular expressions that Envoy's RE2 is sure to compile, of
// whatever length. The error says what to change.
func CheckRE2(s string) error {
	parsed, err := syntax.Parse(s, syntax.Perl)
	if err != nil {
		why := ""
		var at *syntax.Error
		if errors.As(err, &at) {
			why = fmt.Sprintf(": %s at %q", at.Code, clip(at.Expr))
		}
		return fmt.Errorf("%q is not a regular expression in RE2 syntax%s", clip(s), why)
	}
	if prog, err := syntax.Compile(parsed.Simplify()); err != nil || len(prog.Inst) > maxRegexProgram {
		return fmt.Errorf("the regular expression %q is too large once compiled: repeat less in it", clip(s))
	}
	if err := checkBytes(s); err != nil {
		return fmt.Errorf("the regular expression %q can't be used: %w", clip(s), err)
	}
	return nil
}

// checkBytes finds in an expression that Go takes what Envoy's RE2 refuses, or reads
// in another way: Envoy has it compare bytes, not characters (RE2's Latin-1), and it
// knows classes by their short names alone.
func checkBytes(s string) error {
	class := false // within brackets
	for i := 0; i < len(s); {
		rest := s[i:]
		switch {
		case rest[0] == '\\' && len(rest) > 1:
			n, err := checkEscape(rest)
			if err != nil {
				return err
			}
			i += n
		case class && strings.HasPrefix(rest, "[:"):
			i += strings.Index(rest, ":]") + 2
		case !class && rest[0] == '[':
			class = true
			i += len("[")
			if strings.HasPrefix(s[i:], "^") {
				i++
			}
			if strings.HasPrefix(s[i:], "]") {
				i++ // is itself there
			}
		case class && rest[0] == ']':
			class = false
			i++
		case rest[0] >= utf8.RuneSelf:
			r, n := utf8.DecodeRuneInString(rest)
			if class {
				return fmt.Errorf("%q stands in brackets, which are sets of bytes: list such characters by (?:a|b)", r)
			}
			if len(rest) > n && strings.IndexByte("*+?{", rest[n]) >= 0 {
				return fmt.Errorf("%q has several bytes, of which the last alone would be repeated: write (?:%c)", r, r)
			}
			i += n
		default:
			i++
		}
	}
	return nil
}

// notRE2 are categories of Unicode that Go knows beyond RE2.
var notRE2 = []string{"Cn", "LC"}

// checkEscape judges what a backslash begins, and tells its length.
func checkEscape(s string) (int, error) {
	switch c := s[1]; {
	case c == 'Q':
		if end := strings.Index(s, `\E`); end >= 0 {
			return end + len(`\E`), nil
		}
		return len(s), nil
	case c == 'p' || c == 'P':
		name := s[2:]
		var n int
		if strings.HasPrefix(name, "{") {
			name, _, _ = strings.Cut(name[1:], "}")
			n = len(`\p{}`) + len(name)
		} else {
			_, size := utf8.DecodeRuneInString(name)
			name, n = name[:size], 2+size
		}
		short := strings.TrimPrefix(name, "^")
		if unicode.Scripts[short] == nil && short != "Any" && (len(short) > 2 || unicode.Categories[short] == nil || slices.Contains(notRE2, short)) {
			return 0, fmt.Errorf("%s is no class of RE2: use a category by its letters, such as \\p{Lu}, or a script", s[:n])
		}
		return n, nil
	case c == 'x' && strings.HasPrefix(s[2:], "{"):
		code, _, _ := strings.Cut(s[3:], "}")
		n := len(`\x{}`) + len(code)
		if v, err := strconv.ParseUint(code, 16, 32); err != nil || v > 0xff {
			return 0, fmt.Errorf("%s is no byte, and bytes are compared: write the character itself", s[:n])
		}
		return n, nil
	case c >= '0' && c <= '7':
		n := 2
		for n < len(s) && n < 4 && s[n] >= '0' && s[n] <= '7' {
			n++
		}
		if v, err := strconv.ParseUint(s[1:n], 8, 32); err != nil || v > 0xff {
			return 0, fmt.Errorf("%s is no byte, and bytes are compared: write the character itself", s[:n])
		}
		return n, nil
	}
	_, size := utf8.DecodeRuneInString(s[1:])
	return 1 + size, nil
}

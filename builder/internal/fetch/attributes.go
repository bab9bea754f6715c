// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/go-git/go-git/v6/plumbing"
)

// Limits of .gitattributes: what a file may have, and how many rules may apply to a directory.
const (
	maxAttributesFile = 1 << 20
	maxAttributeLine  = 2048 // git's own
	maxAttributeRules = 1000
	// What all of them together may cost: bytes that are parsed, and patterns that are tried.
	maxAttributeBytes   = 128 << 20
	maxAttributeMatches = 200_000_000
)

// The states of an attribute that are no value (gitattributes(5)).
const (
	attrUnspecified = ""
	attrSet         = "\x00set"
	attrUnset       = "\x00unset"
)

type attribute struct{ name, value string }

// attributeRule is a line of a .gitattributes.
type attributeRule struct {
	// match is for the last element of a path if base, else for the path below the file's directory.
	match *regexp.Regexp
	base  bool
	sets  []attribute
}

// attributes are those that decide how the lines of files in one directory end. nil means that no file says anything.
type attributes struct {
	parent *attributes
	dir    string
	rules  []attributeRule
	// macros are those of the repository's top directory; count is the number of rules from there to here.
	macros map[string][]attribute
	count  int
}

// attributesOf reads the .gitattributes of a directory. Like git it ignores one that is a link.
func (w *worktree) attributesOf(list []treeEntry, dir string, parent *attributes) (*attributes, error) {
	for _, e := range list {
		if e.name != ".gitattributes" || e.mode&modeType != modeFile {
			continue
		}
		b, err := w.git.objects.read(e.hash, plumbing.BlobObject, maxAttributesFile)
		if err != nil {
			return nil, err
		}
		if w.git.budget.attributes -= int64(len(b)); w.git.budget.attributes < 0 {
			return nil, fmt.Errorf("%w: too much .gitattributes", ErrLimit)
		}
		a := &attributes{parent: parent, dir: dir, macros: map[string][]attribute{"binary": {{"text", attrUnset}}}}
		if parent != nil {
			a.macros, a.count = parent.macros, parent.count
		}
		a.parse(b)
		if a.count += len(a.rules); a.count > maxAttributeRules {
			return nil, fmt.Errorf("%w: more than %d rules in .gitattributes", ErrLimit, maxAttributeRules)
		}
		return a, nil
	}
	return parent, nil
}

// parse takes the lines that concern line ends. What git would warn of is left out.
func (a *attributes) parse(b []byte) {
	for line := range strings.Lines(string(b)) {
		if len(a.rules) > maxAttributeRules {
			return // too many, as attributesOf says
		}
		line = strings.Trim(line, " \t\r\n")
		if line == "" || strings.HasPrefix(line, "#") || len(line) > maxAttributeLine {
			continue
		}
		pattern, rest := cutPattern(line)
		macro, isMacro := strings.CutPrefix(pattern, "[attr]")
		sets := a.sets(strings.Fields(rest))
		switch {
		case isMacro:
			if a.dir == "" {
				a.macros[macro] = sets
			}
		case len(sets) == 0 || strings.HasPrefix(pattern, "!") || strings.HasSuffix(pattern, "/"):
		default:
			re, err := regexp.Compile(globExpression(strings.TrimPrefix(pattern, "/")))
			if err == nil {
				a.rules = append(a.rules, attributeRule{match: re, base: !strings.Contains(pattern, "/"), sets: sets})
			}
		}
	}
}

// sets keeps the attributes that matter, in order, with macros expanded.
func (a *attributes) sets(words []string) []attribute {
	var out []attribute
	for _, word := range words {
		s := attribute{word, attrSet}
		if name, ok := strings.CutPrefix(word, "-"); ok {
			s = attribute{name, attrUnset}
		} else if name, ok := strings.CutPrefix(word, "!"); ok {
			s = attribute{name, attrUnspecified}
		} else if name, value, ok := strings.Cut(word, "="); ok {
			s = attribute{name, value}
		}
		switch s.name {
		case "text", "crlf", "eol":
			out = put(out, s)
		default:
			if s.value == attrSet {
				out = put(out, a.macros[s.name]...)
			}
		}
	}
	return out
}

// put adds attributes; of one name only the last counts, so that macros of macros stay short.
func put(list []attribute, add ...attribute) []attribute {
	for _, s := range add {
		list = append(slices.DeleteFunc(list, func(old attribute) bool { return old.name == s.name }), s)
	}
	return list
}

// cutPattern takes the pattern off a line: to the first blank, or quoted.
func cutPattern(line string) (pattern, rest string) {
	if !strings.HasPrefix(line, `"`) {
		if i := strings.IndexAny(line, " \t"); i >= 0 {
			return line[:i], line[i:]
		}
		return line, ""
	}
	var b strings.Builder
	for i := 1; i < len(line); i++ {
		switch {
		case line[i] == '"':
			return b.String(), line[i+1:]
		case line[i] == '\\' && i+1 < len(line):
			i++
		}
		b.WriteByte(line[i])
	}
	return line, ""
}

// globExpression translates a pattern as git matches paths: no star but a double one matches a slash.
func globExpression(p string) string {
	var b strings.Builder
	b.WriteString("^(?s:")
	for i := 0; i < len(p); i++ {
		switch {
		case strings.HasPrefix(p[i:], "**/") && (i == 0 || p[i-1] == '/'):
			b.WriteString("(?:.*/)?")
			i += 2
		case p[i:] == "**" && i > 0 && p[i-1] == '/':
			b.WriteString(".*")
			i++
		case p[i] == '*':
			b.WriteString("[^/]*")
		case p[i] == '?':
			b.WriteString("[^/]")
		case p[i] == '[':
			class, n := globClass(p[i:])
			b.WriteString(class)
			i += n - 1
		case p[i] == '\\' && i+1 < len(p):
			i++
			b.WriteString(regexp.QuoteMeta(bytewise(p[i : i+1])))
		default:
			b.WriteString(regexp.QuoteMeta(bytewise(p[i : i+1])))
		}
	}
	b.WriteString(")$")
	return b.String()
}

// nothing is an expression that matches nothing.
const nothing = `[^\x{0}-\x{10FFFF}]`

var posixClass = regexp.MustCompile(`^\[:(?:alnum|alpha|blank|cntrl|digit|graph|lower|print|punct|space|upper|xdigit):\]`)

// globClass translates a bracket expression and says how long it was. One without an end matches nothing.
func globClass(p string) (string, int) {
	var b strings.Builder
	b.WriteByte('[')
	i := 1
	if i < len(p) && (p[i] == '!' || p[i] == '^') {
		b.WriteString("^/")
		i++
	}
	for first := i; i < len(p); i++ {
		posix := posixClass.FindString(p[i:])
		switch {
		case p[i] == ']' && i > first:
			b.WriteByte(']')
			return b.String(), i + 1
		case posix != "":
			b.WriteString(posix)
			i += len(posix) - 1
		case p[i] == '-' && i > first && i+1 < len(p) && p[i+1] != ']':
			b.WriteByte('-')
		case p[i] == '\\' && i+1 < len(p):
			i++
			fallthrough
		default:
			fmt.Fprintf(&b, `\x{%x}`, p[i])
		}
	}
	return nothing, len(p)
}

// bytewise makes a character of every byte, for names need not be UTF-8 and git compares bytes.
func bytewise(s string) string {
	r := make([]rune, len(s))
	for i := range len(s) {
		r[i] = rune(s[i])
	}
	return string(r)
}

// lineEnds is what happens to the line feeds of a file.
type lineEnds uint8

const (
	keepLines lineEnds = iota
	crlfText           // the file is text
	crlfAuto           // it may be
)

// lines finds out what the line ends of a file become. Only eol=crlf changes any on this system.
func (a *attributes) lines(p string) lineEnds {
	if a == nil {
		return keepLines
	}
	state := map[string]string{}
	a.apply(p, state)
	text := state["text"]
	if text != attrSet && text != attrUnset && text != "auto" && text != "input" {
		text = state["crlf"]
	}
	switch {
	case text == attrUnset || state["eol"] != "crlf":
		return keepLines
	case text == "auto":
		return crlfAuto
	default:
		return crlfText
	}
}

// apply goes from the top directory down, for the nearer file and the later line win.
func (a *attributes) apply(p string, state map[string]string) {
	if a.parent != nil {
		a.parent.apply(p, state)
	}
	below := strings.TrimPrefix(strings.TrimPrefix(p, a.dir), "/")
	for _, r := range a.rules {
		name := below
		if r.base {
			name = p[strings.LastIndexByte(p, '/')+1:]
		}
		if !r.match.MatchString(bytewise(name)) {
			continue
		}
		for _, s := range r.sets {
			state[s.name] = s.value
		}
	}
}

// convert writes an object again with the line ends that its file has, after the objects, and returns where. It
// returns the object itself where nothing changes.
func (o *objects) convert(obj object, how lineEnds) (object, error) {
	stats, err := countLines(o.reader(obj))
	if err != nil {
		return object{}, local(err)
	}
	if stats.loneLF == 0 || how == crlfAuto && (stats.loneCR > 0 || stats.crlf > 0 || stats.isBinary()) {
		return obj, nil
	}
	out := object{kind: obj.kind, off: o.end, size: obj.size + stats.loneLF}
	if out.size > o.max-o.end {
		return object{}, fmt.Errorf("%w: the files have more than %d bytes", ErrLimit, o.max)
	}
	r := bufio.NewReader(o.reader(obj))
	for {
		line, err := r.ReadSlice('\n')
		if n := len(line); n > 0 && line[n-1] == '\n' && !stats.afterCR(line) {
			_, _ = o.w.Write(line[:n-1])
			line = []byte("\r\n")
		}
		stats.last(line)
		_, _ = o.w.Write(line) // Flush returns what went wrong
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return object{}, local(err)
		}
	}
	o.end += out.size
	return out, o.w.Flush()
}

// lineStats are what git judges a file by.
type lineStats struct {
	loneCR, loneLF, crlf, nul  int64
	printable, nonprintable    int64
	previousCR, previousIsCtlZ bool
}

func countLines(r io.Reader) (*lineStats, error) {
	s := &lineStats{}
	b := bufio.NewReader(r)
	for {
		c, err := b.ReadByte()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		s.count(c)
	}
	if s.previousCR {
		s.loneCR++
	}
	if s.previousIsCtlZ { // the end of a text of old
		s.nonprintable--
	}
	s.previousCR = false
	return s, nil
}

func (s *lineStats) count(c byte) {
	before := s.previousCR
	s.previousCR, s.previousIsCtlZ = c == '\r', c == 0x1a
	if before && c == '\n' {
		s.crlf++
		return
	}
	if before {
		s.loneCR++
	}
	switch {
	case c == '\r':
	case c == '\n':
		s.loneLF++
	case c == 0x7f:
		s.nonprintable++
	case c >= ' ', bytes.IndexByte([]byte("\b\t\x1b\f"), c) >= 0:
		s.printable++
	default:
		if c == 0 {
			s.nul++
		}
		s.nonprintable++
	}
}

func (s *lineStats) isBinary() bool {
	return s.loneCR > 0 || s.nul > 0 || s.printable>>7 < s.nonprintable
}

// afterCR reports whether the line feed that ends line has a carriage return before it.
func (s *lineStats) afterCR(line []byte) bool {
	if len(line) > 1 {
		return line[len(line)-2] == '\r'
	}
	return s.previousCR
}

// last remembers how a piece ended, for the next one.
func (s *lineStats) last(piece []byte) {
	if len(piece) > 0 {
		s.previousCR = piece[len(piece)-1] == '\r'
	}
}

// SPDX-License-Identifier: Apache-2.0

package dockerfile

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// Error is a failure with its place in a Dockerfile. Error gives the one cause
// line, Excerpt the source around it, so that a caller can print the excerpt
// first and the cause as its very last line.
type Error struct {
	// File is the name of the Dockerfile.
	File string
	// Location is empty when the failure belongs to the whole file.
	Location []parser.Range
	// Err is the reason.
	Err error

	source []byte
}

// Wrap gives err a location in this file. An err that already has one keeps
// it, for the innermost place is the most exact. A nil err stays nil.
func (f *File) Wrap(location []parser.Range, err error) error {
	if err == nil {
		return nil
	}
	var located *Error
	if errors.As(err, &located) {
		return err
	}
	return &Error{File: f.Name, Location: location, Err: err, source: f.Source}
}

// wrapParse takes the location out of an error of BuildKit's parser, which
// would otherwise repeat the line number in its text.
func (f *File) wrapParse(err error) error {
	var at *parser.LocationError
	if !errors.As(err, &at) {
		return f.Wrap(nil, err)
	}
	var location []parser.Range
	if len(at.Locations) > 0 {
		location = at.Locations[0]
	}
	return f.Wrap(location, at.Unwrap())
}

// Error is "Dockerfile:N: reason", with "N-M" for several lines, on one line
// whatever the reason contains.
func (e *Error) Error() string {
	reason := strings.NewReplacer("\r", "", "\n", `\n`).Replace(strings.TrimSpace(e.Err.Error()))
	return e.Place() + ": " + reason
}

// Unwrap returns the reason.
func (e *Error) Unwrap() error { return e.Err }

// Place is "Dockerfile:N", "Dockerfile:N-M" or the bare name.
func (e *Error) Place() string {
	first, last, ok := Lines(e.Location)
	switch {
	case !ok:
		return e.File
	case first == last:
		return fmt.Sprintf("%s:%d", e.File, first)
	default:
		return fmt.Sprintf("%s:%d-%d", e.File, first, last)
	}
}

// Lines gives the first and last line of a location; ok is false if it has none.
func Lines(location []parser.Range) (first, last int, ok bool) {
	first = math.MaxInt
	for _, r := range location {
		if r.Start.Line < 1 {
			continue
		}
		first = min(first, r.Start.Line)
		last = max(last, r.Start.Line, r.End.Line)
		ok = true
	}
	if !ok {
		return 0, 0, false
	}
	return first, last, true
}

const (
	excerptRule    = "--------------------\n"
	excerptContext = 2
	excerptLines   = 30
	excerptWidth   = 500
)

// Excerpt is the source around the location in the form BuildKit's users know:
// a header, numbered lines, ">>>" before those at fault. It ends in a line
// break, and is empty when there is no location. Control characters are
// replaced, so that a file cannot drive the terminal that shows it.
func (e *Error) Excerpt() string {
	first, last, ok := Lines(e.Location)
	lines := strings.Split(strings.TrimSuffix(string(e.source), "\n"), "\n")
	if !ok || first > len(lines) {
		return ""
	}
	last = min(last, len(lines))
	from, to := max(1, first-excerptContext), min(len(lines), last+excerptContext)
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d\n%s", e.File, first, excerptRule)
	for n := from; n <= to; n++ {
		if n-from == excerptLines {
			fmt.Fprintf(&b, "     |     ... %d more lines\n", to-n+1)
			break
		}
		mark := "   "
		if n >= first && n <= last && e.covers(n) {
			mark = ">>>"
		}
		b.WriteString(strings.TrimRight(fmt.Sprintf(" %3d | %s %s", n, mark, printable(lines[n-1])), " ") + "\n")
	}
	b.WriteString(excerptRule)
	return b.String()
}

func (e *Error) covers(line int) bool {
	for _, r := range e.Location {
		if r.Start.Line <= line && line <= max(r.Start.Line, r.End.Line) {
			return true
		}
	}
	return false
}

// printable cuts a long line and makes control characters visible.
func printable(line string) string {
	line = strings.TrimSuffix(line, "\r")
	if len(line) > excerptWidth {
		line = strings.ToValidUTF8(line[:excerptWidth], "") + "..."
	}
	return strings.Map(func(r rune) rune {
		if r != '\t' && (r < 0x20 || r >= 0x7f && r < 0xa0) {
			return '\uFFFD'
		}
		return r
	}, line)
}

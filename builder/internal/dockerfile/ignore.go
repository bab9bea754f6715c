// SPDX-License-Identifier: Apache-2.0

package dockerfile

import (
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"sync"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

// Matcher decides which paths of a build context an ignore file hides. A nil
// Matcher hides nothing. It is safe for concurrent use.
type Matcher struct {
	patterns []string
	// pool holds *patternmatcher.PatternMatcher, which compiles its patterns on
	// first use without a lock.
	pool sync.Pool
	// reincluded are the "!" patterns, split at slashes.
	reincluded [][]string
}

// Info is what Match learned about a directory, for its children. The zero
// value is right for the top of the context, and for a path whose parents were
// not matched before: they are then looked at too.
type Info struct {
	matched patternmatcher.MatchInfo
}

// ReadIgnore reads an ignore file: one pattern a line, "#" in the first column
// for comments, "!" to include again, "**" for any number of directories, the
// last match wins. A malformed pattern is an error that names it. A file
// without patterns gives the nil Matcher.
func ReadIgnore(r io.Reader) (*Matcher, error) {
	limited := &io.LimitedReader{R: r, N: MaxSize + 1}
	patterns, err := ignorefile.ReadAll(limited)
	if err != nil {
		return nil, fmt.Errorf("cannot read ignore file: %w", err)
	}
	if limited.N == 0 {
		return nil, fmt.Errorf("ignore file is larger than %d bytes", MaxSize)
	}
	return NewMatcher(patterns)
}

// NewMatcher makes a Matcher of patterns as ReadIgnore would read them.
func NewMatcher(patterns []string) (*Matcher, error) {
	m := &Matcher{patterns: patterns}
	for _, pattern := range patterns {
		if err := checkPattern(pattern); err != nil {
			return nil, fmt.Errorf("ignore pattern %q: %w", pattern, err)
		}
		if again, ok := strings.CutPrefix(pattern, "!"); ok {
			m.reincluded = append(m.reincluded, strings.Split(path.Clean(again), "/"))
		}
	}
	if len(patterns) == 0 {
		return nil, nil
	}
	m.pool.New = func() any {
		pm, err := patternmatcher.New(patterns)
		if err != nil {
			panic(err) // unreachable: every pattern was tried above
		}
		return pm
	}
	return m, nil
}

// checkPattern compiles a pattern now, so that Match cannot fail later.
func checkPattern(pattern string) error {
	positive := strings.TrimPrefix(pattern, "!")
	if positive == "" {
		return errors.New("nothing after the exclamation mark")
	}
	pm, err := patternmatcher.New([]string{positive})
	if err != nil {
		return err
	}
	_, err = pm.MatchesOrParentMatches("x")
	return err
}

// Match tells whether a path, slash-separated and relative to the context, is
// hidden. parent is what Match returned for its directory. The top itself, ".",
// is never hidden, not even by "*".
func (m *Matcher) Match(name string, parent Info) (ignored bool, info Info) {
	if m == nil || name == "." {
		return false, Info{}
	}
	pm, _ := m.pool.Get().(*patternmatcher.PatternMatcher)
	defer m.pool.Put(pm)
	ignored, matched, err := pm.MatchesUsingParentResults(name, parent.matched)
	if err != nil {
		// Only an Info of another Matcher gets here; answer without it.
		ignored, matched, _ = pm.MatchesUsingParentResults(name, patternmatcher.MatchInfo{})
	}
	if !ignored && len(m.reincluded) > 0 {
		// A pattern that matches a directory that was hidden already is not remembered for what is in it. Asked without memory,
		// the matcher knows; BuildKit asks both ways, and sends such a file without its content.
		if again, err := pm.MatchesOrParentMatches(name); err == nil {
			ignored = again
		}
	}
	return ignored, Info{matched: matched}
}

// Names tells whether an instruction that copies a path, as written, names what is hidden:
// the build check CopyIgnoredFile. It never does where a pattern includes
// again, for what a directory keeps is not seen from its name. The whole context is hidden only by a pattern that
// matches everything at the top.
func (m *Matcher) Names(source string) bool {
	if m == nil || len(m.reincluded) > 0 {
		return false
	}
	source = path.Clean(source)
	if (source == "." || source == "/") && !m.hidesTop() {
		return false
	}
	pm, _ := m.pool.Get().(*patternmatcher.PatternMatcher)
	defer m.pool.Put(pm)
	hidden, err := pm.MatchesOrParentMatches(source)
	return hidden && err == nil
}

func (m *Matcher) hidesTop() bool {
	for _, pattern := range m.patterns {
		switch path.Clean(strings.TrimSpace(pattern)) {
		case "*", "**", "**/*":
			return true
		}
	}
	return false
}

// MayReinclude tells whether a "!" pattern can match something below dir. When
// it cannot, an ignored dir need not be walked.
func (m *Matcher) MayReinclude(dir string) bool {
	if m == nil {
		return false
	}
	elements := strings.Split(path.Clean(dir), "/")
	for _, pattern := range m.reincluded {
		if reachesBelow(pattern, elements) {
			return true
		}
	}
	return false
}

// reachesBelow compares element by element as far as the directory goes.
func reachesBelow(pattern, dir []string) bool {
	for i, element := range dir {
		if i >= len(pattern) {
			return false
		}
		// "**" inside an element, too, runs over slashes.
		if strings.Contains(pattern[i], "**") {
			return true
		}
		if ok, err := path.Match(pattern[i], element); err != nil || !ok {
			return err != nil
		}
	}
	return len(pattern) > len(dir)
}

// SPDX-License-Identifier: Apache-2.0

package dockerfile

import (
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// MaxExpansion is the largest result of one expansion, in bytes.
const MaxExpansion = 1 << 20

// Expander expands variables in the words of a Dockerfile, in every form
// BuildKit knows. Unlike the bare lexer it bounds what a word may grow to:
// "$a$a$a..." and "${a//x/$b}" would otherwise turn a kilobyte into gigabytes.
// It is not safe for concurrent use.
type Expander struct {
	words  *shell.Lex
	text   *shell.Lex
	escape rune
}

// NewExpander makes one for a file's escape token.
func NewExpander(escape rune) *Expander {
	// A heredoc's body always escapes with a backslash, whatever the file's
	// escape directive says, and its quotes are content.
	text := shell.NewLex('\\')
	text.SkipProcessQuotes = true
	return &Expander{words: shell.NewLex(escape), text: text, escape: escape}
}

// Expansion is the result of expanding one word.
type Expansion struct {
	Text string
	// Used and Undefined are the variables that the word names, sorted.
	Used, Undefined []string
}

// Word expands one word to one word: blanks in values do not split it.
func (x *Expander) Word(word string, env shell.EnvGetter) (Expansion, error) {
	return process(x.words, x.escape, word, env)
}

// Document expands the body of a heredoc.
func (x *Expander) Document(text string, env shell.EnvGetter) (Expansion, error) {
	return process(x.text, '\\', text, env)
}

// Words expands a word and splits the result, as EXPOSE wants it.
func (x *Expander) Words(word string, env shell.EnvGetter) ([]string, error) {
	limited, err := limit(env, word, growth(word, x.escape, true))
	if err != nil {
		return nil, err
	}
	words, err := x.words.ProcessWords(word, limited)
	if limited.exceeded {
		return nil, errTooLarge(word)
	}
	return words, err
}

func process(lex *shell.Lex, escape rune, word string, env shell.EnvGetter) (Expansion, error) {
	if !strings.ContainsRune(word, '$') && lex.SkipProcessQuotes && !strings.ContainsRune(word, escape) {
		return Expansion{Text: word}, nil
	}
	limited, err := limit(env, word, growth(word, escape, !lex.SkipProcessQuotes))
	if err != nil {
		return Expansion{}, err
	}
	result, err := lex.ProcessWordWithMatches(word, limited)
	if limited.exceeded || len(result.Result) > MaxExpansion {
		return Expansion{}, errTooLarge(word)
	}
	return Expansion{
		Text:      result.Result,
		Used:      slices.Sorted(maps.Keys(result.Matched)),
		Undefined: slices.Sorted(maps.Keys(result.Unmatched)),
	}, err
}

func errTooLarge(word string) error {
	return fmt.Errorf("the expansion of %q is too large", shorten(word))
}

func shorten(word string) string {
	if len(word) > 80 {
		return strings.ToValidUTF8(word[:80], "") + "..."
	}
	return word
}

// limitedEnv counts the bytes that an expansion takes out of the environment.
// Once they pass the budget every value is empty, so that the lexer ends soon.
type limitedEnv struct {
	shell.EnvGetter
	left     int
	exceeded bool
}

func (l *limitedEnv) Get(key string) (string, bool) {
	value, ok := l.EnvGetter.Get(key)
	l.left -= len(value)
	if l.left < 0 {
		l.exceeded = true
		return "", ok
	}
	return value, ok
}

// maxNesting bounds the lexer's recursion: it goes as deep as "${" are nested,
// and counting them all is a bound that no quoting can fool.
const maxNesting = 5000

func limit(env shell.EnvGetter, word string, depth int) (*limitedEnv, error) {
	if strings.Count(word, "${") > maxNesting {
		return nil, fmt.Errorf("more than %d variables in %q", maxNesting, shorten(word))
	}
	budget := MaxExpansion
	switch {
	case depth > 0:
		// Nested replacements multiply lengths: with d levels and b bytes in
		// all, the result has at most (b/(d+1))^(d+1). Keep that to 64 MiB.
		factors := float64(depth + 1)
		budget = int(factors * math.Pow(64<<20, 1/factors))
		if len(word) > MaxExpansion {
			budget = 0
		}
	case patternForm.MatchString(word):
		// Matching a pattern costs its length times the value's.
		budget = 32 << 10
	}
	return &limitedEnv{EnvGetter: env, left: budget}, nil
}

var (
	// replaceForm begins every ${name//pattern/replacement}.
	replaceForm = regexp.MustCompile(`^\$\{(?:[\pL\pN_]*|[@*#?$!-])//`)
	// patternForm begins every substitution that matches a pattern.
	patternForm = regexp.MustCompile(`\$\{(?:[\pL\pN_]*|[@*#?$!-])[#%/]`)
)

// growth is how deep ${name//pattern/replacement} are nested in a word, or a
// bound above it: where quotes can hide a brace, every one of them counts as
// nested in the one before.
func growth(word string, escape rune, quotes bool) int {
	if !strings.Contains(word, "//") {
		return 0
	}
	hidden := quotes && strings.ContainsAny(word, `'"`)
	depth, deepest := 0, 0
	var open []bool // for each open "${": is it a replacement
	for rest := word; rest != ""; {
		switch {
		case strings.HasPrefix(rest, string(escape)):
			rest = rest[len(string(escape)):]
			if rest != "" {
				rest = rest[1:]
			}
		case strings.HasPrefix(rest, "${"):
			replace := replaceForm.MatchString(rest)
			open = append(open, replace)
			if replace {
				depth++
				deepest = max(deepest, depth)
			}
			rest = rest[2:]
		case rest[0] == '}' && len(open) > 0 && !hidden:
			if open[len(open)-1] {
				depth--
			}
			open = open[:len(open)-1]
			rest = rest[1:]
		default:
			rest = rest[1:]
		}
	}
	return deepest
}

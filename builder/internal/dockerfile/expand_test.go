// SPDX-License-Identifier: Apache-2.0

package dockerfile

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func testEnv() *Env {
	env := &Env{}
	env.Set("v", "a/b.c.d")
	env.Set("empty", "")
	env.Set("two", "x y")
	env.Set("big", strings.Repeat("x", 100<<10))
	return env
}

func TestWord(t *testing.T) {
	for _, tc := range []struct{ word, want string }{
		{"plain", "plain"},
		{"$v ${v}", "a/b.c.d a/b.c.d"},
		{"${none:-w}${none-w}${empty:-w}${empty-w}", "www"},
		{"${v:+w}${v+w}${empty:+w}${empty+w}${none:+w}", "www"},
		{"${v:?m}${empty?m}", "a/b.c.d"},
		{"${v#*.}", "c.d"},
		{"${v##*.}", "d"},
		{"${v%.*}", "a/b.c"},
		{"${v%%.*}", "a/b"},
		{"${v/./-}", "a/b-c.d"},
		{"${v//./-}", "a/b-c-d"},
		{`${v/\//-}`, "a-b.c.d"},
		{"${none:-${v}}", "a/b.c.d"},
		{`'$v' "$v" \$v`, "$v a/b.c.d $v"},
		{"$two", "x y"},
		{"$", "$"},
		{"$none-", "-"},
	} {
		got, err := NewExpander('\\').Word(tc.word, testEnv())
		if err != nil || got.Text != tc.want {
			t.Errorf("%s: got %q, %v; want %q", tc.word, got.Text, err, tc.want)
		}
	}
}

func TestWordReports(t *testing.T) {
	got, err := NewExpander('\\').Word("$v$b$a${empty}", testEnv())
	if err != nil {
		t.Fatal(err)
	}
	want := Expansion{Text: "a/b.c.d", Used: []string{"empty", "v"}, Undefined: []string{"a", "b"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestWordErrors(t *testing.T) {
	for _, tc := range []struct{ word, want string }{
		{"${v:?}${none?gone}", `failed to process "${v:?}${none?gone}": none: gone`},
		{"${none:?}", `failed to process "${none:?}": none: is not allowed to be unset`},
		{"${v:#x}", `failed to process "${v:#x}": unsupported modifier (:#) in substitution`},
		{"${v", `failed to process "${v": unsupported modifier (` + "\uFFFD" + `) in substitution`},
		{"${}", `failed to process "${}": syntax error: bad substitution`},
		{"'x", `failed to process "'x": unexpected end of statement while looking for matching single-quote`},
	} {
		_, err := NewExpander('\\').Word(tc.word, testEnv())
		if err == nil {
			t.Errorf("%s: no error", tc.word)
		} else if diff := cmp.Diff(tc.want, err.Error()); diff != "" {
			t.Errorf("%s: %s", tc.word, diff)
		}
	}
}

func TestOtherForms(t *testing.T) {
	x := NewExpander('`')
	if got, err := x.Word("C:\\$v `$v", testEnv()); err != nil || got.Text != `C:\a/b.c.d $v` {
		t.Errorf("backtick: %q, %v", got.Text, err)
	}
	// In a document quotes are content, and the escape is always a backslash.
	if got, err := x.Document("'$v' \"$two\" \\$v `$v it's", testEnv()); err != nil || got.Text != "'a/b.c.d' \"x y\" $v `a/b.c.d it's" {
		t.Errorf("document: %q, %v", got.Text, err)
	}
	words, err := x.Words(`$two "$two" z`, testEnv())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"x", "y", "x y", "z"}, words); diff != "" {
		t.Error(diff)
	}
}

// TestBombs tries what a small word can be made to grow to.
func TestBombs(t *testing.T) {
	for _, tc := range []struct{ name, word string }{
		{"repeated", strings.Repeat("$big", 11)},
		{"replaced", "${big//x/$big}"},
		{"replaced in quotes", `"${big//x/$big}"`},
		{"nested", "${v//a/${big//x/$big}}"},
		{"nested behind a quoted brace", `${two//x/'}'${big//x/$big}}`},
		{"pattern", "${big%$big}"},
		{"deep", strings.Repeat("${a:-", 20_000) + strings.Repeat("}", 20_000)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			began := time.Now()
			_, err := NewExpander('\\').Word(tc.word, testEnv())
			if err == nil {
				t.Error("Word: no error")
			}
			if _, err = NewExpander('\\').Document(tc.word, testEnv()); err == nil {
				t.Error("Document: no error")
			}
			if _, err = NewExpander('\\').Words(tc.word, testEnv()); err == nil {
				t.Error("Words: no error")
			}
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("took %s", took)
			}
		})
	}
}

// TestReplaceInDocuments keeps scripts with many replacements side by side
// working: only nesting multiplies.
func TestReplaceInDocuments(t *testing.T) {
	env := testEnv()
	env.Set("path", strings.Repeat("a:", 1000))
	text := strings.Repeat("x=${path//:/;} 'http://example.com' \"${v}\"\n", 4)
	got, err := NewExpander('\\').Document(text, env)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(got.Text, "a:") || strings.Count(got.Text, "a;") != 4000 {
		t.Errorf("got %d bytes", len(got.Text))
	}
}

func TestGrowth(t *testing.T) {
	for _, tc := range []struct {
		word   string
		quotes bool
		want   int
	}{
		{"${a}//${b}", true, 0},
		{"${a//x/y}", true, 1},
		{"${a//x/y}${a//x/y}", true, 1},
		{"${a//x/${b//y/z}}", true, 2},
		{"${a//x/${b:-${c//y/z}}}${d//}", true, 2},
		{`${a//x/'}'}${a//x/y}`, true, 2},
		{`${a//x/'}'}${a//x/y}`, false, 1},
		{`${a//\}/${b//y/z}}`, false, 2},
	} {
		if got := growth(tc.word, '\\', tc.quotes); got != tc.want {
			t.Errorf("growth(%q, %v) = %d, want %d", tc.word, tc.quotes, got, tc.want)
		}
	}
}

func TestEnv(t *testing.T) {
	env := &Env{}
	env.Set("a", "1")
	env.Set("b", "2")
	env.Set("a", "3=4")
	clone := env.Clone()
	clone.Set("c", "5")
	clone.Delete("b")
	if diff := cmp.Diff([]string{"b=2", "a=3=4"}, env.Slice()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"a=3=4", "c=5"}, clone.Slice()); diff != "" {
		t.Error(diff)
	}
	if env.Size() != len("b=2")+len("a=3=4")+2 || clone.Size() != len("a=3=4")+len("c=5")+2 {
		t.Errorf("sizes %d, %d", env.Size(), clone.Size())
	}
	if _, ok := clone.Get("b"); ok {
		t.Error("b was deleted")
	}
}

func FuzzWord(f *testing.F) {
	for _, seed := range []string{"${v//x/${big}}", "'$v\"", "${a:-${b%%*}}", `\${v}`, "${v/\\//x}", "<<E $v"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, word string) {
		if len(word) > 4096 {
			return
		}
		x := NewExpander('\\')
		got, err := x.Word(word, testEnv())
		if err == nil && len(got.Text) > MaxExpansion {
			t.Errorf("%d bytes", len(got.Text))
		}
		_, _ = x.Document(word, testEnv())
		_, _ = x.Words(word, testEnv())
	})
}

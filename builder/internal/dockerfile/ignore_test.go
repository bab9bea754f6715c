// SPDX-License-Identifier: Apache-2.0

package dockerfile

import (
	"path"
	"strings"
	"sync"
	"testing"
)

func TestMatcher(t *testing.T) {
	for _, tc := range []struct {
		name, file      string
		ignored, passed []string
	}{
		{"nothing", "# comment\n\n", nil, []string{"a", ".", "#"}},
		{"plain", "a\nb/c\n", []string{"a", "a/x/y", "b/c", "b/c/d"}, []string{"b", "c", "ab"}},
		{"leading slash and spaces", "  /a/./b  \n", []string{"a/b", "a/b/c"}, []string{"b", "a"}},
		{"byte order mark", "\ufeffa\n", []string{"a"}, []string{"b"}},
		{"comment only in the first column", " #x\n", []string{"#x"}, []string{"x"}},
		{"star stays in its directory", "*.o\n", []string{"x.o"}, []string{"d/x.o"}},
		{"double star", "**/*.o\nx/**\n", []string{"x.o", "d/e/x.o", "x/y", "x/y/z"}, []string{"x", "y"}},
		{"again", "*\n!keep\n!src/**/*.go\n", []string{"a", "src", "src/x.c"}, []string{".", "keep", "keep/all", "src/a.go", "src/d/a.go"}},
		{"last match wins", "!a\na\n!a/b\na/b/c\n", []string{"a", "a/x", "a/b/c"}, []string{"a/b", "a/b/d"}},
		{"ignored twice, again and not", "*\n!s/**/*.go\ns/**/gen\n!s/a/gen/k.go\n", []string{"s/a/gen/l.go", "s/gen/x.go", "s/b/t"}, []string{"s/a/gen/k.go", "s/m.go", "s/a/a.go"}},
		{"question and class", "?.[ch]\n", []string{"a.c", "b.h"}, []string{"ab.c", "a.o"}},
		{"escaped", `\!a` + "\n", []string{"!a"}, []string{"a"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, err := ReadIgnore(strings.NewReader(tc.file))
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range tc.ignored {
				check(t, m, name, true)
			}
			for _, name := range tc.passed {
				check(t, m, name, false)
			}
		})
	}
}

// check asks alone, and as a walk does with the answers for the parents.
func check(t *testing.T, m *Matcher, name string, want bool) {
	t.Helper()
	if got, _ := m.Match(name, Info{}); got != want {
		t.Errorf("%s: ignored %v, want %v", name, got, want)
	}
	var info Info
	var got bool
	var parent string
	for element := range strings.SplitSeq(name, "/") {
		parent = path.Join(parent, element)
		above := got
		got, info = m.Match(parent, info)
		// What a walk would leave out must really hold nothing.
		if above && !got && !m.MayReinclude(path.Dir(parent)) {
			t.Errorf("%s is included again, but MayReinclude(%s) is false", parent, path.Dir(parent))
		}
	}
	if got != want {
		t.Errorf("%s: ignored %v while walking, want %v", name, got, want)
	}
}

func TestMayReinclude(t *testing.T) {
	m, err := ReadIgnore(strings.NewReader("*\n!a/b/c\n!*/x\n!d/**/e\n!f\n"))
	if err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]bool{
		"a": true, "a/b": true, "a/b/c": false, "a/x": false, "a/x/y": false, "z": true, "z/y": false,
		"d": true, "d/g": true, "d/g/h/i": true, "f": true, "f/g": false,
	} {
		if got := m.MayReinclude(dir); got != want {
			t.Errorf("MayReinclude(%s) = %v, want %v", dir, got, want)
		}
	}
	if plain, err := NewMatcher([]string{"a"}); err != nil || plain.MayReinclude("a") {
		t.Errorf("without exceptions nothing comes back, %v", err)
	}
}

func TestBadIgnore(t *testing.T) {
	for _, tc := range []struct{ file, want string }{
		{"ok\n[a\n", `ignore pattern "[a": syntax error in pattern`},
		{"!\n", `ignore pattern "!": nothing after the exclamation mark`},
		{"[]-a]\n", `ignore pattern "[]-a]": syntax error in pattern`},
		{strings.Repeat("x\n", MaxSize), "ignore file is larger than 1048576 bytes"},
	} {
		_, err := ReadIgnore(strings.NewReader(tc.file))
		if err == nil || err.Error() != tc.want {
			t.Errorf("got %v, want %s", err, tc.want)
		}
	}
}

func TestNilMatcher(t *testing.T) {
	var m *Matcher
	if ignored, _ := m.Match("a", Info{}); ignored || m.MayReinclude("a") {
		t.Error("no ignore file hides nothing")
	}
}

// TestMatchInParallel is for the race detector.
func TestMatchInParallel(t *testing.T) {
	m, err := NewMatcher([]string{"*", "!**/*.go"})
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for range 100 {
				_, info := m.Match("d", Info{})
				if ignored, _ := m.Match("d/x.go", info); ignored {
					t.Error("d/x.go is included again")
				}
			}
		})
	}
	wait.Wait()
}

// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestGitLineEnds lets git check out the same commit.
func TestGitLineEnds(t *testing.T) {
	f := newForge(t)
	w := f.create(t, "r")
	long := strings.Repeat("long line ", 1000) + "\n" + strings.Repeat("y", 4095) + "\r\nend"
	contents := map[string]string{
		"text": "a\nb\n", "mixed": "a\r\nb\nc", "lone": "a\rb\n", "binary": "a\x00b\n", "long": long, "odd": strings.Repeat("\x01", 9) + "\n",
		"empty": "", "no": "no end", "z": "a\n\x1a", "cr": "\n\r\n\r", "full": strings.Repeat("x", 4095) + "\r" + "\n" + strings.Repeat("z", 4095) + "\n\n",
	}
	rules := []string{
		"*.bat text eol=crlf", "*.eol eol=crlf", "*.auto text=auto eol=crlf", "*.lf eol=lf", "*.no -text eol=crlf",
		"*.bin binary eol=crlf", "*.old crlf eol=crlf", "*.oldno -crlf eol=crlf", "*.was eol=crlf", "*.was !eol",
		"[attr]dos text eol=crlf", "*.dos dos", "/d/top.* eol=crlf", "d/**/deep.* eol=crlf", "**/any/* eol=crlf", `"a b.*" eol=crlf`,
		"x?[a-c]* eol=crlf", "y[!a] eol=crlf", "! eol=crlf", "!no eol=crlf", "dir/ eol=crlf", "# *.c eol=crlf", "*.c", "[ eol=crlf", "**.star eol=crlf",
		`q\* eol=crlf`, "e/** eol=crlf",
		"g[[:digit:]-]x eol=crlf", "h[]a]x eol=crlf", `k[\]b]x eol=crlf`, "m[^[:alpha:]]x eol=crlf", "\xe9* eol=crlf", "n[a eol=crlf",
	}
	files := map[string]string{".gitattributes": strings.Join(rules, "\n"), "d/.gitattributes": "*.bat eol=lf\n/own eol=crlf\n[attr]mine eol=crlf\n*.mine mine\n"}
	for name, text := range contents {
		for _, ext := range []string{"bat", "eol", "auto", "lf", "no", "bin", "old", "oldno", "was", "dos", "c", "star"} {
			files[name+"."+ext] = text
		}
	}
	for _, p := range []string{
		"d/x.bat", "d/top.x", "d/e/deep.x", "d/deep.x", "e/d/top.x", "any/x", "d/any/x", "a b.x", "x1b", "x1d", "ya", "yb", "no",
		"d/own", "own", "d/x.mine", "q*", "qx", "e/f/g", "dir/x", "d/e/x1a", "[",
		"g1x", "g-x", "gax", "h]x", "hax", "k]x", "kbx", "m1x", "max", "\xe9\xff", "n[a", "na",
	} {
		files[p] = "a\nb\n"
	}
	// The work tree is git's own checkout, not what was written into it.
	w.run("config", "core.autocrlf", "false")
	want := map[string]string{}
	for name, text := range files {
		h := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(h, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		w.run("update-index", "--add", "--cacheinfo", "100644,"+w.run("hash-object", "-w", "--no-filters", h)+","+name)
	}
	w.run("commit", "-q", "-m", "c")
	w.run("checkout", "-q", "-f", "HEAD")
	for name := range files {
		b, err := os.ReadFile(filepath.Join(w.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		want[name] = string(b)
	}
	if want["text.bat"] != "a\r\nb\r\n" {
		t.Fatalf("git itself does not convert: %q", want["text.bat"])
	}
	w.publish()
	tr, _, err := Git(t.Context(), newStore(t), f.URL+"/r.git", gitOptions())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for name := range files {
		ino, err := tr.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		got[name] = content(t, ino)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func FuzzAttributes(f *testing.F) {
	f.Add("*.bat text eol=crlf\n\"a b\" -text\n[attr]x eol=crlf", "a/b.bat")
	f.Add("[!a-]]* eol=crlf", "[")
	f.Add("**/x/**/[[:alpha:]] eol=crlf\n\\", "x/y")
	f.Fuzz(func(t *testing.T, text, p string) {
		a := &attributes{macros: map[string][]attribute{}}
		a.parse([]byte(text))
		a.lines(p)
		literal := strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(p)
		if re, err := regexp.Compile(globExpression(literal)); err != nil || !re.MatchString(bytewise(p)) {
			t.Errorf("%q does not match itself: %v", p, err)
		}
	})
}

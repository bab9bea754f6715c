// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// gitlink commits a .gitmodules and one submodule at path p.
func (w *work) gitlink(modules, p, sha string) string {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, ".gitmodules"), []byte(modules), 0o644); err != nil {
		w.t.Fatal(err)
	}
	w.run("add", ".gitmodules")
	w.run("update-index", "--add", "--cacheinfo", "160000,"+sha+","+p)
	w.run("commit", "-q", "-m", "submodule")
	return w.run("rev-parse", "HEAD")
}

func moduleText(p, url string) string {
	return fmt.Sprintf("[submodule \"m\"]\n\tpath = %s\n\turl = %s\n", p, url)
}

func TestSubmodules(t *testing.T) {
	f := newForge(t)
	inner := f.create(t, "group/inner")
	if err := os.Mkdir(filepath.Join(f.dir, "group"), 0o755); err != nil {
		t.Fatal(err)
	}
	old := inner.commit(map[string]string{"i": "old"})
	inner.commit(map[string]string{"i": "new"})
	inner.publish()
	middle := f.create(t, "group/middle")
	middle.commit(map[string]string{"m": "middle"})
	sha := middle.gitlink(moduleText("deep/inner", "./../inner.git"), "deep/inner", old)
	middle.publish()
	outer := f.create(t, "outer")
	outer.commit(map[string]string{"o": "outer"})
	text := moduleText("mod", "../group/middle.git")
	outer.gitlink(text, "mod", sha)
	outer.publish()
	inText := moduleText("deep/inner", "./../inner.git")
	with := map[string]string{
		".gitmodules": "file 644 " + text, "o": "file 644 outer", "mod": "dir 755", "mod/m": "file 644 middle",
		"mod/.gitmodules": "file 644 " + inText, "mod/deep": "dir 755", "mod/deep/inner": "dir 755", "mod/deep/inner/i": "file 644 old",
	}
	kept := map[string]string{".git": "repository", "mod/.git": "repository", "mod/deep/inner/.git": "repository"}
	for k, v := range with {
		kept[k] = v
	}
	without := map[string]string{".gitmodules": "file 644 " + text, "o": "file 644 outer", "mod": "dir 755"}
	for _, tt := range []struct {
		name, query string
		want        map[string]string
	}{
		{"with", "", with},
		{"without", "?submodules=false", without},
		{"kept", "?keep-git-dir=1", kept},
		{"directory of one", "?subdir=mod/deep/inner", map[string]string{"i": "file 644 old"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, _, err := Git(t.Context(), newStore(t), f.URL+"/outer.git"+tt.query, gitOptions())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, list(t, got)); diff != "" {
				t.Error(diff)
			}
			if tt.name != "kept" {
				return
			}
			dir := t.TempDir()
			write(t, got, dir)
			for _, sub := range []string{".", "mod", "mod/deep/inner"} {
				w := &work{t: t, dir: filepath.Join(dir, sub)}
				w.run("fsck", "--strict")
				if s := w.run("status", "--porcelain"); s != "" {
					t.Errorf("in %s git finds changes: %s", sub, s)
				}
			}
		})
	}
}

// TestSubmoduleCredentials gives the credential to the user's host only.
func TestSubmoduleCredentials(t *testing.T) {
	f, other := newForge(t), newForge(t)
	far := other.create(t, "far")
	farSHA := far.commit(map[string]string{"f": "far"})
	far.publish()
	near := f.create(t, "near")
	nearSHA := near.commit(map[string]string{"n": "near"})
	near.publish()
	host := strings.TrimPrefix(f.URL, "http://")
	for _, tt := range []struct{ name, url, sha string }{
		{"same", "../near.git", nearSHA},
		{"same by ssh", "git@127.0.0.1:near.git", nearSHA},
		{"other", other.URL + "/far.git", farSHA},
		{"other with password", strings.Replace(other.URL, "://", "://user:pass@", 1) + "/far.git", farSHA},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := f.create(t, "top")
			w.commit(map[string]string{"o": "x"})
			w.gitlink(moduleText("m", tt.url), "m", tt.sha)
			w.publish()
			other.seen, f.seen, f.auth = nil, nil, "Bearer T"
			o := gitOptions()
			o.Header = func(h string) string { return map[string]string{host: "Bearer T"}[h] }
			if _, _, err := Git(t.Context(), newStore(t), f.URL+"/top.git", o); err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(strings.Join(f.seen, ","), "Bearer T"); strings.HasPrefix(tt.name, "same") && n != 5 || n < 3 || n != len(f.seen) {
				t.Errorf("the user's server got %q", f.seen)
			}
			for _, auth := range other.seen {
				if auth != "" {
					t.Errorf("the other server got %q", auth)
				}
			}
		})
	}
}

func TestHostileSubmodules(t *testing.T) {
	f := newForge(t)
	sub := f.create(t, "sub")
	sha := sub.commit(map[string]string{"s": "x"})
	sub.publish()
	selfless := strings.Repeat("1", 40)
	for _, tt := range []struct {
		name, modules, path, sha string
		is                       error
		text                     string
		ok                       bool
	}{
		{name: "not updated", modules: moduleText("m", "../none.git") + "\tupdate = none\n", path: "m", sha: sha, ok: true},
		{name: "ext", modules: moduleText("m", "ext::sh -c true"), path: "m", sha: sha, text: "not a valid"},
		{name: "file", modules: moduleText("m", "file:///etc"), path: "m", sha: sha, text: "not a valid"},
		{name: "path", modules: moduleText("m", "/etc"), path: "m", sha: sha, text: "not a valid"},
		{name: "option", modules: moduleText("m", "-oProxyCommand=x"), path: "m", sha: sha, text: "not a valid"},
		{name: "ssh option", modules: moduleText("m", "ssh://-oProxyCommand=x/y"), path: "m", sha: sha, is: ErrForbidden},
		{name: "ssh elsewhere", modules: moduleText("m", "git@127.0.0.2:x/y.git"), path: "m", sha: sha, is: ErrForbidden},
		{name: "git elsewhere", modules: moduleText("m", "git://127.0.0.1/x"), path: "m", sha: sha, is: ErrForbidden},
		{name: "metadata", modules: moduleText("m", "http://169.254.169.254/x.git"), path: "m", sha: sha, is: ErrForbidden},
		{name: "out of the host", modules: moduleText("m", "../../../../x.git"), path: "m", sha: sha, is: ErrForbidden},
		{name: "dots inside", modules: moduleText("m", "./a/../../../x.git"), path: "m", sha: sha, is: ErrForbidden},
		{name: "line end in the address", modules: moduleText("m", `"../sub.git\nx"`), path: "m", sha: sha, is: ErrForbidden},
		{name: "line end in the path", modules: moduleText(`"m\n"`, "../sub.git"), path: "m\n", sha: sha, is: ErrForbidden},
		{name: "other path", modules: moduleText("other", "../sub.git"), path: "m", sha: sha, text: "no url found"},
		{name: "no such commit", modules: moduleText("m", "../sub.git"), path: "m", sha: selfless, text: "does not give out commit " + selfless},
		{name: "no such repository", modules: moduleText("m", "../none.git"), path: "m", sha: sha, text: "submodule m: "},
		{name: "malformed", modules: "[submodule", path: "m", sha: sha, is: ErrForbidden},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := f.create(t, "top")
			w.commit(map[string]string{"o": "x"})
			w.gitlink(tt.modules, tt.path, tt.sha)
			w.publish()
			_, _, err := Git(t.Context(), newStore(t), f.URL+"/top.git", gitOptions())
			if tt.ok != (err == nil) || tt.is != nil && !errors.Is(err, tt.is) {
				t.Fatalf("got %v", err)
			}
			if err != nil && !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestSubmoduleNesting has a repository that contains its own earlier commits, and those theirs: SHAs cannot be made
// to loop, so it is the depth that is tested.
func TestSubmoduleNesting(t *testing.T) {
	f := newForge(t)
	w := f.create(t, "r")
	sha := w.commit(map[string]string{"f": "x"})
	for range maxNesting + 1 {
		w.run("rm", "-q", "--cached", "--ignore-unmatch", "m")
		sha = w.gitlink(moduleText("m", "../r.git"), "m", sha)
		w.run("commit", "-q", "--allow-empty", "-m", "x")
	}
	w.publish()
	_, _, err := Git(t.Context(), newStore(t), f.URL+"/r.git", gitOptions())
	if !errors.Is(err, ErrLimit) {
		t.Errorf("got %v", err)
	}
}

// TestSubmoduleOfThisMachine has a repository elsewhere whose submodule is here.
func TestSubmoduleOfThisMachine(t *testing.T) {
	g, err := newGit("http://far.example/r.git", gitOptions())
	if err != nil {
		t.Fatal(err)
	}
	defer g.close()
	asked := false
	srv := serve(t, func(http.ResponseWriter, *http.Request) { asked = true })
	r, err := g.url.remote.sibling(srv.URL + "/x.git")
	if err != nil {
		t.Fatal(err)
	}
	g.store = newStore(t)
	if _, err := g.fetch(t.Context(), r, nil); !errors.Is(err, ErrForbidden) || asked {
		t.Errorf("got %v, asked %v", err, asked)
	}
}

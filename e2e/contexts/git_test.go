// SPDX-License-Identifier: Apache-2.0

package contexts

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// shell runs a script in the directory of the repositories and returns what it says.
func (w *world) shell(t *testing.T, script, stdin string) string {
	t.Helper()
	out, err := w.run(script, stdin)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (w *world) run(script, stdin string) (string, error) {
	cmd := exec.Command("sh", "-ec", script)
	var said strings.Builder
	cmd.Dir, cmd.Stderr, cmd.Stdin = w.repositories, &said, strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), gitEnv()...)
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", script, err, said.String())
	}
	return strings.TrimSpace(string(out)), err
}

// gitEnv keeps git to what a test says.
func gitEnv() []string {
	return []string{
		"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_ALLOW_PROTOCOL=file:http",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com",
		"GIT_AUTHOR_DATE=2020-01-01T00:00:00Z", "GIT_COMMITTER_DATE=2020-01-01T00:00:00Z",
	}
}

// module makes the repository NAME.git with a submodule m at an address: the commit of context.git, or the one that is given.
func (w *world) module(t *testing.T, name, url, commit string) {
	t.Helper()
	if commit == "" {
		commit = w.commit
	}
	format := "sha1"
	if len(commit) == 64 {
		format = "sha256"
	}
	w.shell(t, fmt.Sprintf(`git init -q -b main --object-format=%[3]s %[1]s; cd %[1]s; printf 'FROM scratch\nCOPY . /\n' > Dockerfile
cat > .gitmodules; git add -A
git update-index --add --cacheinfo 160000,%[2]s,m; git commit -qm 1
cd ..; git clone -q --bare %[1]s %[1]s.git`, name, commit, format), "[submodule \"m\"]\n\tpath = m\n\turl = "+url+"\n")
}

// protocols are the versions of git's protocol. What of the newer one a client wants it says in a header, which a server may not know.
func protocols() map[string]func(*http.Request) {
	return map[string]func(*http.Request){
		"v0": func(r *http.Request) { r.Header.Del("Git-Protocol") },
		"v2": func(*http.Request) {},
	}
}

// history is 10,000 commits for git fast-import; each changes one file.
func history() string {
	var b strings.Builder
	for i := 1; i <= 10_000; i++ {
		text := "FROM scratch\nCOPY n /\n"
		fmt.Fprintf(&b, "commit refs/heads/main\ncommitter a <a@example.com> %d +0000\ndata 1\nx\nM 644 inline Dockerfile\ndata %d\n%s\nM 644 inline n\ndata <<E\n%d\nE\n", 1_500_000_000+i, len(text), text, i)
	}
	return b.String()
}

// TestGitHistory builds from a repository with 10,000 commits, of which nothing older than what is built is fetched; and a commit
// that the server gives to nobody by its name, for which it has to be.
func TestGitHistory(t *testing.T) {
	w := newWorld(t)
	old := w.shell(t, `git init -q --bare -b main long.git; cd long.git; git fast-import --quiet; git config uploadpack.allowAnySHA1InWant false
git config uploadpack.allowReachableSHA1InWant false; git tag -a -m 1 v1 main; git rev-parse main~5000`, history())
	newest := w.shell(t, "git -C long.git rev-parse main", "")
	for name, see := range protocols() {
		t.Run(name, func(t *testing.T) {
			address := strings.Replace(w.gitBy(t, see), "context.git", "long.git", 1)
			images := map[string]bool{}
			for _, c := range []struct {
				ref, want string
				bytes     int64
			}{
				{"", newest, 50_000},
				{"#main", newest, 50_000},
				{"#v1", newest, 50_000},
				{"#" + newest, newest, 50_000},
				{"#" + old, old, 10_000_000},
			} {
				x, through := newWire(t, address, -1)
				o := build(t, through+c.ref, gitLogin(), "")
				images[digest(t, o)] = true
				if o.Results["SOURCE_COMMIT"] != c.want {
					t.Errorf("%s: built commit %s, not %s", c.ref, o.Results["SOURCE_COMMIT"], c.want)
				}
				t.Logf("%q: %d bytes", c.ref, x.count())
				if x.count() > c.bytes {
					t.Errorf("%q: %d bytes came for one commit", c.ref, x.count())
				}
			}
			if len(images) != 2 {
				t.Errorf("%d images of two commits", len(images))
			}
		})
	}
}

// TestGitDefaultBranchMoves builds what the default branch is today.
func TestGitDefaultBranchMoves(t *testing.T) {
	w := newWorld(t)
	git := w.git(t)
	before := build(t, git, gitLogin(), "")
	digest(t, before)
	other := w.shell(t, `cd work; git checkout -q -b next; echo 2 > a.txt; git commit -qam 2
git push -q ../context.git next; git -C ../context.git symbolic-ref HEAD refs/heads/next; git rev-parse next`, "")
	after := build(t, git, gitLogin(), "")
	if digest(t, after) == before.Results["IMAGE_DIGEST"] || after.Results["SOURCE_COMMIT"] != other || before.Results["SOURCE_COMMIT"] != w.commit {
		t.Errorf("before %v, after %v", before.Results, after.Results)
	}
}

// TestGitMovesMeanwhile moves the branch between the answer that says where it is and the request for that: forward, and to a history that
// knows nothing of it. One of the two commits is built, and it is the one that the result names.
func TestGitMovesMeanwhile(t *testing.T) {
	for name, see := range protocols() {
		for _, script := range []string{"git commit -qam 2", "git checkout -q --orphan other; git commit -qam 2"} {
			t.Run(name+", "+script, func(t *testing.T) {
				w := newWorld(t)
				before := digest(t, build(t, w.dir, nil, ""))
				next := w.shell(t, `cd work; echo 2 > a.txt; `+script+`; git push -q ../context.git HEAD:refs/heads/next; git rev-parse HEAD`, "")
				after := digest(t, build(t, w.git(t)+"#next", gitLogin(), ""))
				w.shell(t, "cd context.git; git update-ref -d refs/heads/next; git config gc.auto 0", "")
				var asked atomic.Int32
				git := w.gitBy(t, func(r *http.Request) {
					see(r)
					if r.Method == http.MethodPost && asked.Add(1) == postOfFetch(r) {
						if _, err := w.run("git -C context.git update-ref refs/heads/main "+next, ""); err != nil {
							t.Error(err)
						}
					}
				})
				o := build(t, git+"#main", gitLogin(), "")
				switch got, commit := digest(t, o), o.Results["SOURCE_COMMIT"]; {
				case got == before && commit == w.commit, got == after && commit == next:
				default:
					t.Errorf("commit %s is not what image %s is of", commit, got)
				}
			})
		}
	}
}

// postOfFetch is which of the requests with a body asks for the pack: with the newer protocol the refs are asked for before.
func postOfFetch(r *http.Request) int32 {
	if strings.Contains(r.Header.Get("Git-Protocol"), "version=2") {
		return 2
	}
	return 1
}

// TestGitSubmodules fetches submodules from the same server, also those of submodules, leaves them out where that is asked for, and refuses
// addresses that would start a program or read this machine's files.
func TestGitSubmodules(t *testing.T) {
	w := newWorld(t)
	git := w.git(t)
	want := digest(t, build(t, w.dir, nil, ""))
	at := func(name string) string { return strings.Replace(git, "context", name, 1) }
	w.module(t, "relative", "../context.git", "")
	w.module(t, "absolute", git, "")
	w.module(t, "nested", at("relative"), w.shell(t, "git -C relative rev-parse HEAD", ""))
	for _, place := range []string{at("relative") + "#main:m", at("absolute") + "#:m", at("nested") + "#main:m/m"} {
		if got := digest(t, build(t, place, gitLogin(), "")); got != want {
			t.Errorf("%s: another image", place)
		}
	}
	env := gitLogin()
	env["KANIKO_GIT"] = "branch=main,depth=1"
	if got := digest(t, build(t, git+"#no-such-branch", env, "")); got != want {
		t.Error("the branch of KANIKO_GIT is another image")
	}
	delete(env, "KANIKO_GIT")
	with := digest(t, build(t, at("relative"), env, ""))
	env["KANIKO_GIT"] = "recurse-submodules=false"
	if without := digest(t, build(t, at("relative"), env, "")); without == with {
		t.Error("the submodule makes no difference")
	}
	for i, url := range []string{"file://" + w.repositories + "/context.git", w.repositories + "/context.git", "ext::sh -c touch% /tmp/x", "ssh://-oProxyCommand=x/y", "--upload-pack=touch"} {
		name := fmt.Sprintf("bad%d", i)
		w.module(t, name, url, "")
		if o := build(t, at(name), gitLogin(), ""); o.Code != 2 || !strings.Contains(o.Cause, "submodule m") {
			t.Errorf("%s: exit %d: %s", url, o.Code, o.Cause)
		}
	}
}

// TestGitLFS refuses what is only a pointer, if it is asked for.
func TestGitLFS(t *testing.T) {
	w := newWorld(t)
	pointer := "version https://git-lfs.github.com/spec/v1\noid sha256:" + strings.Repeat("0", 64) + "\nsize 12345\n"
	mustWrite(t, filepath.Join(w.repositories, "work", "a.txt"), pointer)
	w.shell(t, `cd work; git commit -qam 2; git push -q ../context.git main`, "")
	if o := build(t, w.git(t), gitLogin(), ""); o.Code != 4 || !strings.Contains(o.Cause, "a.txt: the repository has only a pointer of Git LFS") {
		t.Errorf("exit %d: %s", o.Code, o.Cause)
	}
	env := gitLogin()
	env["KANIKO_CONTEXT_SUB_PATH"] = "sub"
	digest(t, build(t, w.git(t), env, ""))
}

// sha256 makes the repository sha256.git of the same files, with a tag, and returns its commit.
func (w *world) sha256(t *testing.T) string {
	t.Helper()
	return w.shell(t, `git init -q --object-format=sha256 -b main modern; cp -a work/* modern; cd modern; git add -A; git commit -qm 1; git tag -a -m 1 v1
git clone -q --bare . ../sha256.git; git rev-parse HEAD`, "")
}

// TestGitSHA256 builds from repositories whose names are SHA-256.
func TestGitSHA256(t *testing.T) {
	w := newWorld(t)
	want := digest(t, build(t, w.dir, nil, ""))
	commit := w.sha256(t)
	w.module(t, "outer", "../sha256.git", commit)
	s := newSSH(t)
	for name, see := range protocols() {
		t.Run(name, func(t *testing.T) {
			git := strings.Replace(w.gitBy(t, see), "context", "sha256", 1)
			for _, ref := range []string{"", "#main", "#v1", "#" + commit, "?ref=" + commit + "&checksum=" + commit, "?ref=main&checksum=" + commit[:12]} {
				o := build(t, git+ref, gitLogin(), "")
				if digest(t, o) != want || o.Results["SOURCE_COMMIT"] != commit {
					t.Errorf("%q: another image, or commit: %v", ref, o.Results)
				}
			}
			outer := strings.Replace(git, "sha256", "outer", 1)
			if got := digest(t, build(t, outer+"#main:m", gitLogin(), "")); got != want {
				t.Error("the directory of a submodule is another image")
			}
			if o := build(t, git+"#"+strings.Repeat("12", 32), gitLogin(), ""); o.Code != 2 {
				t.Errorf("a commit that is not there: exit %d: %s", o.Code, o.Cause)
			}
			if o := build(t, git+"#"+strings.Repeat("12", 20), gitLogin(), ""); o.Code != 2 {
				t.Errorf("a name that is SHA-1: exit %d: %s", o.Code, o.Cause)
			}
		})
	}
	t.Run("ssh", func(t *testing.T) {
		o := build(t, s.address+filepath.Join(w.repositories, "sha256.git"), s.env(), "")
		if digest(t, o) != want || o.Results["SOURCE_COMMIT"] != commit {
			t.Errorf("another image, or commit: %v", o.Results)
		}
	})
}

// TestGitDirectory keeps .git and asks git what it thinks of it.
func TestGitDirectory(t *testing.T) {
	w := newWorld(t)
	commit := w.sha256(t)
	for name, want := range map[string]string{"context": w.commit, "sha256": commit} {
		t.Run(name, func(t *testing.T) {
			dir := testenv.Dir(t)
			env := gitLogin()
			env["KANIKO_OCI_LAYOUT_PATH"], env["KANIKO_DOCKERFILE"] = filepath.Join(dir, "layout"), filepath.Join(dir, "all")
			mustWrite(t, env["KANIKO_DOCKERFILE"], "FROM scratch\nCOPY . /\n")
			digest(t, build(t, strings.Replace(w.git(t), "context", name, 1)+"?keep-git-dir=true&ref=main", env, ""))
			out := extract(t, env["KANIKO_OCI_LAYOUT_PATH"])
			cmd := exec.CommandContext(t.Context(), "sh", "-ec", "git fsck --full --strict; git status --porcelain; git rev-parse HEAD")
			cmd.Dir = out
			cmd.Env = append(os.Environ(), append(gitEnv(), "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*")...)
			said, err := cmd.CombinedOutput()
			if err != nil || strings.TrimSpace(string(said)) != want {
				t.Errorf("%v: %s", err, said)
			}
		})
	}
}

// extract unpacks the one image of a layout.
func extract(t *testing.T, path string) string {
	t.Helper()
	index, err := layout.ImageIndexFromPath(path)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	image, err := index.Image(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	dir := testenv.Dir(t)
	files := mutate.Extract(image)
	defer func() { _ = files.Close() }()
	tar := exec.CommandContext(t.Context(), "tar", "-x", "-C", dir)
	tar.Stdin = files
	if out, err := tar.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return dir
}

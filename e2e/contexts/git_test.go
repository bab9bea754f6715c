// SPDX-License-Identifier: Apache-2.0

package contexts

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// shell runs a script in the directory of the repositories and returns what it says.
func (w *world) shell(t *testing.T, script, stdin string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-ec", script)
	cmd.Dir, cmd.Stderr, cmd.Stdin = w.repositories, os.Stderr, strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_ALLOW_PROTOCOL=file:http")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
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

// TestGitHistory builds from a repository with 10,000 commits: the newest, of which nothing older is fetched, and one that
// the server gives to nobody by its name.
func TestGitHistory(t *testing.T) {
	w := newWorld(t)
	old := w.shell(t, `git init -q --bare -b main long.git; cd long.git; git fast-import --quiet; git config uploadpack.allowAnySHA1InWant false
git config uploadpack.allowReachableSHA1InWant false; git rev-parse main~5000`, history())
	newest := w.shell(t, "git -C long.git rev-parse main", "")
	address := strings.Replace(w.git(t), "context.git", "long.git", 1)
	images := map[string]bool{}
	for name, ref := range map[string]string{"newest": "", "branch": "#main", "by name": "#" + newest, "older": "#" + old} {
		want := newest
		if name == "older" {
			want = old
		}
		o := build(t, address+ref, gitLogin(), "")
		images[digest(t, o)] = true
		if o.Results["SOURCE_COMMIT"] != want {
			t.Errorf("%s: built commit %s, not %s", name, o.Results["SOURCE_COMMIT"], want)
		}
	}
	if len(images) != 2 {
		t.Errorf("%d images of two commits", len(images))
	}
	x, through := newWire(t, address, -1)
	digest(t, build(t, through, gitLogin(), ""))
	if x.passed > 50_000 {
		t.Errorf("%d bytes came for one commit", x.passed)
	}
}

// TestGitDefaultBranchMoves builds what the default branch is today.
func TestGitDefaultBranchMoves(t *testing.T) {
	w := newWorld(t)
	git := w.git(t)
	before := build(t, git, gitLogin(), "")
	digest(t, before)
	other := w.shell(t, `cd work; git checkout -q -b next; echo 2 > a.txt; git -c user.name=a -c user.email=a@example.com commit -qam 2
git push -q ../context.git next; git -C ../context.git symbolic-ref HEAD refs/heads/next; git rev-parse next`, "")
	after := build(t, git, gitLogin(), "")
	if digest(t, after) == before.Results["IMAGE_DIGEST"] || after.Results["SOURCE_COMMIT"] != other || before.Results["SOURCE_COMMIT"] != w.commit {
		t.Errorf("before %v, after %v", before.Results, after.Results)
	}
}

// TestGitSubmodules fetches a submodule from the same server, leaves it out where that is asked for, and refuses addresses that
// would start a program or read this machine's files.
func TestGitSubmodules(t *testing.T) {
	w := newWorld(t)
	git := w.git(t)
	module := func(name, url string) string {
		w.shell(t, fmt.Sprintf(`git init -q -b main %[1]s; cd %[1]s; printf 'FROM scratch\nCOPY . /\n' > Dockerfile
cat > .gitmodules; git add -A
git update-index --add --cacheinfo 160000,%[2]s,m; git -c user.name=a -c user.email=a@example.com commit -qm 1
cd ..; git clone -q --bare %[1]s %[1]s.git`, name, w.commit), "[submodule \"m\"]\n\tpath = m\n\turl = "+url+"\n")
		return strings.Replace(git, "context", name, 1)
	}
	good := module("good", "../context.git")
	env := gitLogin()
	with := digest(t, build(t, good, env, ""))
	env["KANIKO_GIT"] = "recurse-submodules=false"
	if without := digest(t, build(t, good, env, "")); without == with {
		t.Error("the submodule makes no difference")
	}
	for i, url := range []string{"file://" + w.repositories + "/context.git", w.repositories + "/context.git", "ext::sh -c touch% /tmp/x", "ssh://-oProxyCommand=x/y", "--upload-pack=touch"} {
		if o := build(t, module(fmt.Sprintf("bad%d", i), url), gitLogin(), ""); o.Code != 2 || !strings.Contains(o.Cause, "submodule m") {
			t.Errorf("%s: exit %d: %s", url, o.Code, o.Cause)
		}
	}
}

// TestGitLFS refuses what is only a pointer, if it is asked for.
func TestGitLFS(t *testing.T) {
	w := newWorld(t)
	pointer := "version https://git-lfs.github.com/spec/v1\noid sha256:" + strings.Repeat("0", 64) + "\nsize 12345\n"
	mustWrite(t, filepath.Join(w.repositories, "work", "a.txt"), pointer)
	w.shell(t, `cd work; git -c user.name=a -c user.email=a@example.com commit -qam 2; git push -q ../context.git main`, "")
	if o := build(t, w.git(t), gitLogin(), ""); o.Code != 4 || !strings.Contains(o.Cause, "a.txt: the repository has only a pointer of Git LFS") {
		t.Errorf("exit %d: %s", o.Code, o.Cause)
	}
	env := gitLogin()
	env["KANIKO_CONTEXT_SUB_PATH"] = "sub"
	digest(t, build(t, w.git(t), env, ""))
}

// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// forge is a git server with repositories made by the git program.
type forge struct {
	*httptest.Server
	dir  string
	kind forgeKind

	mu sync.Mutex
	// auth is what a request must have as its Authorization; "" means none is asked for.
	auth string
	seen []string
	// before handles a request if it returns true.
	before func(http.ResponseWriter, *http.Request) bool
}

// commitTime is when all commits of tests are made.
const commitTime = 1600000000

// forgeKind is what tells servers and repositories apart.
type forgeKind struct {
	// old is a server that knows the older protocol only.
	old bool
	// format is that of objects' names, "" is git's default.
	format string
}

func (k forgeKind) String() string {
	s := "protocol 2"
	if k.old {
		s = "protocol 0"
	}
	return s + ", " + cmp.Or(k.format, "sha1")
}

// eachForge runs a test with all kinds of servers.
func eachForge(t *testing.T, test func(*testing.T, *forge)) {
	t.Helper()
	for _, k := range []forgeKind{{}, {old: true}, {format: "sha256"}, {true, "sha256"}} {
		t.Run(k.String(), func(t *testing.T) {
			f := newForge(t)
			f.kind = k
			test(t, f)
		})
	}
}

func newForge(t *testing.T) *forge {
	t.Helper()
	program, err := exec.LookPath("git")
	if err != nil {
		t.Skip("there is no git program to serve repositories with")
	}
	f := &forge{dir: t.TempDir()}
	backend := &cgi.Handler{
		Path: program, Args: []string{"http-backend"},
		Stderr: io.Discard,
		Env:    []string{"GIT_PROJECT_ROOT=" + f.dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "HOME=" + f.dir},
	}
	f.Server = serve(t, func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.seen = append(f.seen, r.Header.Get("Authorization"))
		want, before := f.auth, f.before
		f.mu.Unlock()
		if before != nil && before(w, r) {
			return
		}
		if want != "" && r.Header.Get("Authorization") != want {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if f.kind.old {
			r.Header.Del("Git-Protocol")
		}
		backend.ServeHTTP(w, r)
	})
	return f
}

// work is a repository being made; its bare copy is what the forge serves.
type work struct {
	t    *testing.T
	dir  string
	bare string
}

func (f *forge) create(t *testing.T, name string) *work {
	t.Helper()
	w := &work{t: t, dir: filepath.Join(t.TempDir(), "work"), bare: filepath.Join(f.dir, name+".git")}
	w.run("init", "-q", "-b", "main", "--object-format="+cmp.Or(f.kind.format, "sha1"), w.dir)
	return w
}

// run runs git in the work tree and returns what it prints.
func (w *work) run(args ...string) string {
	w.t.Helper()
	cmd := exec.CommandContext(w.t.Context(), "git", args...)
	if _, err := os.Stat(w.dir); err == nil {
		cmd.Dir = w.dir
	}
	date := fmt.Sprintf("%d +0000", commitTime)
	cmd.Env = append(os.Environ(), "GIT_AUTHOR_NAME=A", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=A", "GIT_COMMITTER_EMAIL=a@b",
		"GIT_AUTHOR_DATE="+date, "GIT_COMMITTER_DATE="+date, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_ALLOW_PROTOCOL=file:http")
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.t.Fatalf("git %v: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// commit writes files (content, or "-> target" for a link, or "x:content" for a program) and commits them.
func (w *work) commit(files map[string]string) string {
	w.t.Helper()
	for name, text := range files {
		p := filepath.Join(w.dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			w.t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(text, "-> "); ok {
			err = os.Symlink(target, p)
		} else if script, ok := strings.CutPrefix(text, "x:"); ok {
			err = os.WriteFile(p, []byte(script), 0o755)
		} else {
			err = os.WriteFile(p, []byte(text), 0o644)
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
	w.run("add", "-A")
	w.run("commit", "-q", "-m", "c")
	return w.run("rev-parse", "HEAD")
}

// raw is an entry of a tree object.
func raw(mode, name, hash string) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s\x00", mode, name)
	for i := 0; i < len(hash); i += 2 {
		var c byte
		_, _ = fmt.Sscanf(hash[i:i+2], "%02x", &c)
		b.WriteByte(c)
	}
	return b.String()
}

// publish makes the bare copy anew.
func (w *work) publish() {
	w.t.Helper()
	if err := os.RemoveAll(w.bare); err != nil {
		w.t.Fatal(err)
	}
	w.run("clone", "-q", "--bare", "file://"+w.dir, w.bare)
}

func list(t *testing.T, tr *tree.Tree) map[string]string {
	t.Helper()
	got := map[string]string{}
	err := tr.Walk(func(p string, ino *tree.Inode) error {
		if ino.Type == tree.Dir && (p == ".git" || strings.HasSuffix(p, "/.git")) {
			got[p] = "repository"
			return fs.SkipDir
		}
		switch ino.Type {
		case tree.Dir:
			got[p] = fmt.Sprintf("dir %o", ino.Mode)
		case tree.Symlink:
			got[p] = fmt.Sprintf("link %o %s", ino.Mode, ino.Link())
		default:
			got[p] = fmt.Sprintf("file %o %s", ino.Mode, content(t, ino))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// gitOptions have time: the server starts a program for every request.
func gitOptions() GitOptions {
	n := network()
	n.Timing.ResponseHeader, n.Timing.NoProgress = 10*time.Second, 10*time.Second
	return GitOptions{Network: n, Now: time.Unix(1700000000, 0)}
}

// past is a repository with branches, tags and a change in each commit.
type past struct {
	*work
	first, middle, second, tag, other string
}

func history(t *testing.T, f *forge) past {
	t.Helper()
	w := f.create(t, "r")
	first := w.commit(map[string]string{"f": "one", "sub/dir/g": "x:program", "link": "-> sub/dir", "empty": ""})
	w.run("tag", "light")
	w.run("tag", "-a", "-m", "t", "v1")
	tag := w.run("rev-parse", "refs/tags/v1")
	middle := w.commit(map[string]string{"f": "middle"})
	second := w.commit(map[string]string{"f": "two"})
	w.run("checkout", "-q", "-b", "feature/x")
	other := w.commit(map[string]string{"f": "three"})
	w.run("tag", "main-tag")
	w.run("update-ref", "refs/pull/1/head", other)
	w.run("checkout", "-q", "main")
	w.publish()
	w.run("push", "-q", w.bare, "refs/pull/1/head:refs/pull/1/head")
	return past{w, first, middle, second, tag, other}
}

func TestGit(t *testing.T) { eachForge(t, testGit) }

func testGit(t *testing.T, f *forge) {
	t.Helper()
	h := history(t, f)
	first, second, tag, other := h.first, h.second, h.tag, h.other
	base := f.URL + "/r.git"
	all := func(text string) map[string]string {
		return map[string]string{
			"f": "file 644 " + text, "sub": "dir 755", "sub/dir": "dir 755", "sub/dir/g": "file 755 program",
			"link": "link 777 sub/dir", "empty": "file 644 ",
		}
	}
	at := time.Unix(commitTime, 0)
	for _, tt := range []struct {
		name, url string
		opts      GitOptions
		want      map[string]string
		commit    Commit
	}{
		{name: "default branch", url: "", want: all("two"), commit: Commit{Hash: second, Ref: "refs/heads/main"}},
		{name: "branch", url: "#feature/x", want: all("three"), commit: Commit{Hash: other, Ref: "refs/heads/feature/x"}},
		{name: "branch by option", url: "", opts: GitOptions{Branch: "feature/x"}, want: all("three"), commit: Commit{Hash: other, Ref: "refs/heads/feature/x"}},
		{name: "branch by option and by URL", url: "#main", opts: GitOptions{Branch: "feature/x"}, want: all("three"), commit: Commit{Hash: other, Ref: "refs/heads/feature/x"}},
		{name: "branch by option, and a directory", url: "?submodules=false#:sub", opts: GitOptions{Branch: "feature/x"}, want: map[string]string{"dir": "dir 755", "dir/g": "file 755 program"}, commit: Commit{Hash: other, Ref: "refs/heads/feature/x"}},
		{name: "branch by option and a commit", url: "#" + first, opts: GitOptions{Branch: "feature/x"}, want: all("one"), commit: Commit{Hash: first}},
		{name: "branch by query", url: "?branch=feature/x", want: all("three"), commit: Commit{Hash: other, Ref: "refs/heads/feature/x"}},
		{name: "lightweight tag", url: "#light", want: all("one"), commit: Commit{Hash: first, Ref: "refs/tags/light"}},
		{name: "annotated tag", url: "#v1", want: all("one"), commit: Commit{Hash: first, Tag: tag, Ref: "refs/tags/v1"}},
		{name: "tag by query", url: "?tag=v1", want: all("one"), commit: Commit{Hash: first, Tag: tag, Ref: "refs/tags/v1"}},
		{name: "full ref", url: "#refs/pull/1/head", want: all("three"), commit: Commit{Hash: other, Ref: "refs/pull/1/head"}},
		{name: "SHA at a tip", url: "#" + other, want: all("three"), commit: Commit{Hash: other}},
		{name: "SHA at a light tag", url: "#" + first, want: all("one"), commit: Commit{Hash: first}},
		{name: "SHA in the history", url: "#" + h.middle, want: all("middle"), commit: Commit{Hash: h.middle}},
		{name: "SHA behind a tag", url: "#" + tag, want: all("one"), commit: Commit{Hash: first, Tag: tag}},
		{name: "subdirectory", url: "#main:sub/../sub/dir", want: map[string]string{"g": "file 755 program"}, commit: Commit{Hash: second, Ref: "refs/heads/main"}},
		{name: "subdirectory by query", url: "?subdir=sub", want: map[string]string{"dir": "dir 755", "dir/g": "file 755 program"}, commit: Commit{Hash: second, Ref: "refs/heads/main"}},
		{name: "checksum", url: "?checksum=" + second, want: all("two"), commit: Commit{Hash: second, Ref: "refs/heads/main"}},
		{name: "short checksum", url: "?commit=" + second[:7], want: all("two"), commit: Commit{Hash: second, Ref: "refs/heads/main"}},
		{name: "checksum of the tag", url: "?tag=v1&checksum=" + tag, want: all("one"), commit: Commit{Hash: first, Tag: tag, Ref: "refs/tags/v1"}},
		{name: "checksum of the tag's commit", url: "?tag=v1", opts: GitOptions{Checksum: first[:10]}, want: all("one"), commit: Commit{Hash: first, Tag: tag, Ref: "refs/tags/v1"}},
		{name: "by commit", url: "?ref=main&fetch-by-commit&checksum=" + first, want: all("one"), commit: Commit{Hash: first, Ref: "refs/heads/main"}},
		{name: "keep with a subdirectory", url: "?keep-git-dir=true&subdir=sub", want: map[string]string{"dir": "dir 755", "dir/g": "file 755 program"}, commit: Commit{Hash: second, Ref: "refs/heads/main"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := gitOptions()
			o.Checksum, o.Branch = tt.opts.Checksum, tt.opts.Branch
			got, c, err := Git(t.Context(), newStore(t), base+tt.url, o)
			if err != nil {
				t.Fatal(err)
			}
			if diff := gocmp.Diff(tt.want, list(t, got)); diff != "" {
				t.Error(diff)
			}
			tt.commit.Time = at
			if diff := gocmp.Diff(tt.commit, c); diff != "" {
				t.Error(diff)
			}
			if ino, err := got.Stat("/"); err != nil || ino.MTime != 1700000000 || ino.Mode != 0o755 {
				t.Errorf("root is %+v, %v", ino, err)
			}
			r, err := ResolveGit(t.Context(), base+tt.url, o)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(tt.name, "SHA behind") && (r.Hash != c.Hash || r.Ref != c.Ref) {
				t.Errorf("resolved to %+v", r)
			}
		})
	}
}

// TestGitShallow looks at what is downloaded: one commit where the server permits, for SHAs too.
func TestGitShallow(t *testing.T) { eachForge(t, testGitShallow) }

func testGitShallow(t *testing.T, f *forge) {
	t.Helper()
	h := history(t, f)
	commits := func(ref string) int {
		g, err := newGit(f.URL+"/r.git#"+ref, gitOptions())
		if err != nil {
			t.Fatal(err)
		}
		defer g.close()
		if _, _, err := g.get(t.Context(), newStore(t)); err != nil {
			t.Fatal(err)
		}
		n := 0
		for h := range g.objects.byHash {
			if _, err := g.objects.commit(h); err == nil {
				n++
			}
		}
		return n
	}
	if f.kind == (forgeKind{true, "sha256"}) {
		if n := commits("feature/x"); n != 4 { // see mayBeShallow
			t.Errorf("a branch brought %d commits", n)
		}
		return
	}
	if n := commits("feature/x"); n != 1 {
		t.Errorf("a branch brought %d commits", n)
	}
	if n := commits(h.first); n != 1 {
		t.Errorf("a SHA at a tag brought %d commits", n)
	}
	if n := commits(h.middle); f.kind.old && n != 4 || !f.kind.old && n != 1 {
		t.Errorf("a SHA that only a server of protocol 2 gives out brought %d commits", n)
	}
	h.run("-C", h.bare, "config", "uploadpack.allowReachableSHA1InWant", "true")
	if n := commits(h.middle); n != 1 {
		t.Errorf("a SHA brought %d commits", n)
	}
}

func TestGitTimes(t *testing.T) {
	f := newForge(t)
	history(t, f)
	for _, tt := range []struct {
		query, opt string
		want       int64
	}{
		{"", "", 1700000000},
		{"?mtime=commit", "", commitTime},
		{"?mtime=commit", "checkout", 1700000000},
		{"", "commit", commitTime},
	} {
		o := gitOptions()
		o.MTime = tt.opt
		got, _, err := Git(t.Context(), newStore(t), f.URL+"/r.git"+tt.query, o)
		if err != nil {
			t.Fatal(err)
		}
		ino, err := got.Lookup("sub/dir/g")
		if err != nil || ino.MTime != tt.want {
			t.Errorf("%q, %q: %+v, %v", tt.query, tt.opt, ino, err)
		}
	}
}

// TestGitKeepsGitDir writes the result to a disk and lets git judge it.
func TestGitKeepsGitDir(t *testing.T) { eachForge(t, testGitKeepsGitDir) }

func testGitKeepsGitDir(t *testing.T, f *forge) {
	t.Helper()
	h := history(t, f)
	first, second := h.first, h.second
	for _, tt := range []struct{ name, ref, head string }{
		{"branch", "main", second}, {"tag", "v1", first}, {"SHA", first, first}, {"pull request", "refs/pull/1/head", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := gitOptions()
			keep := true
			o.KeepGitDir = &keep
			user := strings.Replace(f.URL, "://", "://user:secret@", 1)
			got, c, err := Git(t.Context(), newStore(t), user+"/r.git#"+tt.ref, o)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			write(t, got, dir)
			in := &work{t: t, dir: dir}
			if head := in.run("rev-parse", "HEAD"); head != c.Hash || tt.head != "" && head != tt.head {
				t.Errorf("HEAD is %s", head)
			}
			if s := in.run("status", "--porcelain"); s != "" {
				t.Errorf("git finds changes: %s", s)
			}
			in.run("fsck", "--strict")
			if u := in.run("remote", "get-url", "origin"); u != f.URL+"/r.git" {
				t.Errorf("origin is %s", u)
			}
			if c.Ref != "" {
				in.run("rev-parse", c.Ref)
			}
			// And git can go on from there.
			if _, err := got.Lookup(".git/shallow"); err == nil {
				in.run("fetch", "-q", "--unshallow", h.bare)
			}
		})
	}
}

// write puts a Tree on a disk.
func write(t *testing.T, tr *tree.Tree, dir string) {
	t.Helper()
	err := tr.Walk(func(p string, ino *tree.Inode) error {
		p = filepath.Join(dir, p)
		switch ino.Type {
		case tree.Dir:
			return os.Mkdir(p, os.FileMode(ino.Mode))
		case tree.Symlink:
			return os.Symlink(ino.Link(), p)
		default:
			return os.WriteFile(p, []byte(content(t, ino)), os.FileMode(ino.Mode))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestGitFails(t *testing.T) {
	f := newForge(t)
	second := history(t, f).second
	e := f.create(t, "empty")
	e.run("clone", "-q", "--bare", "file://"+e.dir, e.bare)
	base := f.URL + "/r.git"
	none := strings.Repeat("1", 40)
	no := false
	for _, tt := range []struct {
		name, url string
		change    func(*GitOptions)
		is        error
		text      string
	}{
		{name: "no ref", url: base + "#nothing", text: "repository does not contain ref nothing"},
		{name: "no repository", url: f.URL + "/absent.git", text: "no such repository"},
		{name: "empty repository", url: f.URL + "/empty.git", text: "empty"},
		{name: "no commit", url: base + "#" + none, text: "none of its branches and tags"},
		{name: "checksum", url: base + "?checksum=" + none[:8], is: ErrChecksum, text: "expected checksum to match 11111111, got " + second},
		{name: "checksum of a SHA", url: base + "?ref=" + second + "&checksum=" + none, is: ErrChecksum},
		{name: "checksum no hash", url: base + "?checksum=xyz", text: "expected hex commit hash"},
		{name: "checksums", url: base + "?checksum=" + second, change: func(o *GitOptions) { o.Checksum = none }, text: "checksum mismatch"},
		{name: "keep twice", url: base + "?keep-git-dir=true", change: func(o *GitOptions) { o.KeepGitDir = &no }, text: "inconsistent keep-git-dir"},
		{name: "by commit", url: base + "?fetch-by-commit&checksum=" + second[:8], text: "requires a full commit SHA"},
		{name: "SHA-256", url: base + "#" + strings.Repeat("1", 64), text: "no name of an object in a repository of sha1"},
		{name: "no subdirectory", url: base + "#main:nowhere", is: os.ErrNotExist},
		{name: "subdirectory by a link", url: base + "#main:link", text: "non-directory"},
		{name: "subdirectory is a file", url: base + "#main:f", text: "non-directory"},
		{name: "pack too large", url: base, change: func(o *GitOptions) { o.MaxPack = 100 }, is: ErrLimit},
		{name: "tree too large", url: base, change: func(o *GitOptions) { o.MaxTree = 20 }, is: ErrLimit},
		{name: "too many entries", url: base, change: func(o *GitOptions) { o.MaxEntries = 3 }, is: ErrLimit},
		{name: "ssh without agent", url: "git@127.0.0.1:x/y.git", text: "needs an ssh agent or key"},
		{name: "ssh without known hosts", url: "ssh://127.0.0.1/y.git", change: func(o *GitOptions) { o.SSH = &SSH{Agent: "/none"} }, text: "known_hosts"},
		{name: "unreachable", url: "http://u:secret@127.0.0.1:1/r.git", text: "connection refused"},
		{name: "daemon unreachable", url: "git://127.0.0.1:1/r.git", text: "connection refused"},
		{name: "metadata", url: "http://169.254.169.254/r.git", is: ErrForbidden},
		{name: "metadata by git", url: "git://169.254.169.254/r.git", is: ErrForbidden},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := gitOptions()
			if tt.change != nil {
				tt.change(&o)
			}
			_, _, err := Git(t.Context(), newStore(t), tt.url, o)
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("got %v, want an *Error", err)
			}
			if tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.text) || strings.Contains(err.Error(), "secret") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestGitCredentials(t *testing.T) {
	f := newForge(t)
	history(t, f)
	const token = "basic eC1hY2Nlc3MtdG9rZW46VA=="
	host := strings.TrimPrefix(f.URL, "http://")
	give := func(v string) func(string) string {
		return func(h string) string { return map[string]string{host: v}[h] }
	}
	for _, tt := range []struct {
		name, user, want string
		change           func(*GitOptions)
		fails            string
	}{
		{name: "token", want: token, change: func(o *GitOptions) { o.Token = give("T") }},
		{name: "header", want: "Bearer x", change: func(o *GitOptions) { o.Token, o.Header = give("T"), give("Bearer x") }},
		{name: "in the URL", user: "u:p@", want: "Basic dTpw", change: func(*GitOptions) {}},
		{name: "none", want: token, change: func(*GitOptions) {}, fails: "401 Unauthorized: no credential was given for " + host},
		{name: "wrong", want: token, change: func(o *GitOptions) { o.Token = give("secret") }, fails: "was not accepted"},
		{name: "line break", want: token, change: func(o *GitOptions) { o.Header = give("a\nb") }, fails: "line break"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f.mu.Lock()
			f.auth = tt.want
			f.mu.Unlock()
			o := gitOptions()
			tt.change(&o)
			_, _, err := Git(t.Context(), newStore(t), "http://"+tt.user+host+"/r.git", o)
			if tt.fails == "" && err != nil {
				t.Fatal(err)
			}
			if tt.fails != "" && (err == nil || !strings.Contains(err.Error(), tt.fails) || strings.Contains(err.Error(), "secret")) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestGitRedirect sends the client to another server, where the credential must not follow.
func TestGitRedirect(t *testing.T) {
	f := newForge(t)
	history(t, f)
	var first []string
	for _, tt := range []struct {
		name, to string
		is       error
		ok       bool
	}{
		{name: "other server", to: f.URL, ok: true},
		{name: "metadata", to: "http://169.254.169.254", is: ErrForbidden},
		{name: "file", to: "file://", is: nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			front := serve(t, func(w http.ResponseWriter, r *http.Request) {
				first = append(first, r.Header.Get("Authorization"))
				http.Redirect(w, r, tt.to+r.URL.Path+"?"+r.URL.RawQuery, http.StatusFound)
			})
			f.mu.Lock()
			f.seen = nil
			f.mu.Unlock()
			o := gitOptions()
			o.Token = func(string) string { return "T" }
			_, _, err := Git(t.Context(), newStore(t), front.URL+"/r.git", o)
			if tt.ok != (err == nil) || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("got %v", err)
			}
			for _, auth := range f.seen {
				if auth != "" {
					t.Errorf("the other server got %q", auth)
				}
			}
		})
	}
	if len(first) == 0 || first[0] == "" {
		t.Errorf("the user's server got no credential: %q", first)
	}
}

func TestGitStalls(t *testing.T) {
	f := newForge(t)
	history(t, f)
	for _, tt := range []struct{ name, path string }{{"refs", "/info/refs"}, {"pack", "/git-upload-pack"}} {
		t.Run(tt.name, func(t *testing.T) {
			f.mu.Lock()
			f.before = func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, tt.path) {
					return false
				}
				w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
				_, _ = w.Write([]byte("001e# service=git-upload-pack\n"))
				w.(http.Flusher).Flush()
				<-r.Context().Done()
				return true
			}
			f.mu.Unlock()
			start := time.Now()
			_, _, err := Git(t.Context(), newStore(t), f.URL+"/r.git", GitOptions{Network: network()})
			var e *Error
			if !errors.As(err, &e) || !e.Temporary || !errors.Is(err, errStalled) {
				t.Errorf("got %v", err)
			}
			if d := time.Since(start); d > 30*time.Second {
				t.Errorf("it took %s", d)
			}
		})
	}
}

func TestGitRetriesAndCancels(t *testing.T) {
	f := newForge(t)
	history(t, f)
	n := 0
	f.before = func(w http.ResponseWriter, _ *http.Request) bool {
		if n++; n > 2 {
			return false
		}
		w.WriteHeader(http.StatusBadGateway)
		return true
	}
	if _, _, err := Git(t.Context(), newStore(t), f.URL+"/r.git", gitOptions()); err != nil || n != 5 {
		t.Errorf("got %v after %d requests", err, n)
	}
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	f.before = func(_ http.ResponseWriter, r *http.Request) bool {
		cancel(cause)
		<-r.Context().Done()
		return true
	}
	if _, _, err := Git(ctx, newStore(t), f.URL+"/r.git", gitOptions()); !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
}

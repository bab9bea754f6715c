// SPDX-License-Identifier: Apache-2.0

package contexts

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// world has the same files as a directory, as archives and as a repository.
type world struct {
	dir, objects, repositories string
	commit                     string
}

// place is somewhere to build from.
type place struct {
	name, location, stdin, commit, skip string
	env                                 map[string]string
}

const (
	user     = "alice"
	password = "open sesame"
)

// gitLogin is what the git server asks for.
func gitLogin() map[string]string {
	return map[string]string{"GIT_USERNAME": user, "GIT_PASSWORD": password, "GIT_PULL_METHOD": "http"}
}

const dockerfile = "FROM scratch\nCOPY d/ /d/\nCOPY *.txt l* /\n"

func newWorld(t *testing.T) *world {
	t.Helper()
	testenv.Need(t, "git", "tar", "xz", "zstd", "bzip2")
	top := testenv.Dir(t)
	w := &world{dir: filepath.Join(top, "source"), objects: filepath.Join(top, "objects"), repositories: filepath.Join(top, "repositories")}
	mustWrite(t, filepath.Join(w.dir, "Dockerfile"), dockerfile)
	mustWrite(t, filepath.Join(w.dir, "d", "Other"), dockerfile)
	mustWrite(t, filepath.Join(w.dir, "d", "noise"), noise(300_000))
	mustWrite(t, filepath.Join(w.dir, "a.txt"), "a\n")
	mustWrite(t, filepath.Join(w.dir, "unused"), noise(100_000))
	mustWrite(t, filepath.Join(w.dir, "sub", "Dockerfile"), "FROM scratch\nCOPY . /\n")
	mustWrite(t, filepath.Join(w.dir, "sub", "b"), "b\n")
	if err := os.Symlink("d/Other", filepath.Join(w.dir, "link")); err != nil {
		t.Fatal(err)
	}
	script := `set -e
mkdir "$1" "$2"
tar -C "$0" -cf "$1/context.tar" .
for z in gzip:gz zstd:zst xz:xz bzip2:bz2; do ${z%:*} -c < "$1/context.tar" > "$1/context.tar.${z#*:}"; done
cp "$0/Dockerfile" "$1/Dockerfile"
cp -a "$0" "$2/work"
cd "$2/work"
git init -q -b main .
git add -A
git -c user.name=a -c user.email=a@example.com commit -qm 1
git clone -q --bare . ../context.git
git rev-parse HEAD
`
	cmd := exec.Command("sh", "-c", script, w.dir, w.objects, w.repositories)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_DATE=2020-01-01T00:00:00Z", "GIT_COMMITTER_DATE=2020-01-01T00:00:00Z")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	w.commit = strings.TrimSpace(string(out))
	return w
}

// noise is text that does not compress, the same each time.
func noise(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		sum := sha256.Sum256(fmt.Append(nil, i))
		b.WriteString(base64.StdEncoding.EncodeToString(sum[:]))
	}
	return b.String()[:n]
}

// places are all kinds of contexts.
func (w *world) places(t *testing.T) []place {
	t.Helper()
	web, git := w.web(t, "", true), w.git(t)
	private := w.web(t, "Bearer secret", true)
	token := filepath.Join(testenv.Dir(t), "token")
	mustWrite(t, token, "secret\n")
	list := []place{
		{name: "dir", location: "dir://" + w.dir},
		{name: "http, without versions", location: w.web(t, "", false) + "/context.tar.gz"},
		{name: "http, with a token", location: private + "/context.tar.gz", env: map[string]string{"KANIKO_SECRET": "id=HTTP_AUTH_TOKEN_127.0.0.1,src=" + token}},
		{name: "git, branch", location: git + "#main", env: gitLogin(), commit: w.commit},
		{name: "git, default branch", location: git, env: gitLogin(), commit: w.commit},
		{name: "git, commit", location: git + "#" + w.commit, env: gitLogin(), commit: w.commit},
		{name: "git, query", location: git + "?ref=main", env: gitLogin(), commit: w.commit},
		{name: "git, as kaniko writes it", location: "git" + strings.TrimPrefix(git, "http") + "#refs/heads/main#" + w.commit, env: gitLogin(), commit: w.commit},
	}
	for _, kind := range []string{"", ".gz", ".zst", ".xz", ".bz2"} {
		name := "context.tar" + kind
		list = append(list, place{name: "file" + kind, location: "tar://" + filepath.Join(w.objects, name)},
			place{name: "stdin" + kind, location: "tar://stdin", stdin: filepath.Join(w.objects, name)},
			place{name: "http" + kind, location: web + "/" + name})
	}
	list = append(list, w.sshPlaces(t)...)
	s3, google := w.stores(t)
	return append(list,
		place{name: "s3", location: "s3://bucket/context.tar.gz", env: awsEnv(s3), skip: noStores},
		place{name: "gs", location: "gs://bucket", env: map[string]string{"STORAGE_EMULATOR_HOST": google}, skip: noStores},
		place{name: "bucket", location: "", env: map[string]string{"KANIKO_BUCKET": "bucket/context.tar.gz", "STORAGE_EMULATOR_HOST": google}, skip: noStores})
}

// web serves the archives. authorization is what it asks for; versions says that it has entity tags.
func (w *world) web(t *testing.T, authorization string, versions bool) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if authorization != "" && r.Header.Get("Authorization") != authorization {
			http.Error(rw, "who are you?", http.StatusUnauthorized)
			return
		}
		name := filepath.Join(w.objects, filepath.Base(r.URL.Path))
		data, err := os.ReadFile(name)
		if err != nil {
			http.NotFound(rw, r)
			return
		}
		if !versions {
			_, _ = rw.Write(data)
			return
		}
		sum := sha256.Sum256(data)
		rw.Header().Set("ETag", `"`+hex.EncodeToString(sum[:8])+`"`)
		http.ServeFile(rw, r, name)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// git serves the repositories by git's own program, to who has the password, and returns the address of one.
func (w *world) git(t *testing.T) string {
	t.Helper()
	return w.gitBy(t, func(*http.Request) {})
}

// gitBy is git with something that sees every request first.
func (w *world) gitBy(t *testing.T, see func(*http.Request)) string {
	t.Helper()
	out, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	backend := filepath.Join(strings.TrimSpace(string(out)), "git-http-backend")
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if u, p, ok := r.BasicAuth(); !ok || u != user || p != password {
			rw.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			http.Error(rw, "who are you?", http.StatusUnauthorized)
			return
		}
		see(r)
		(&cgi.Handler{Path: backend, Env: []string{
			"GIT_PROJECT_ROOT=" + w.repositories, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_GLOBAL=/dev/null",
			"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
		}}).ServeHTTP(rw, r)
	}))
	t.Cleanup(s.Close)
	return s.URL + "/context.git"
}

// buildStores compiles the object stores; where their module cannot be had it says why.
func buildStores(ctx context.Context, dir string) (program, reason string) {
	program = filepath.Join(dir, "stores")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", program, ".")
	cmd.Dir = "stores"
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Sprintf("the object stores cannot be compiled: %v: %s", err, out)
	}
	return program, ""
}

// stores serves the archives as objects of Amazon's store and Google's, in the buckets "bucket" and "public".
func (w *world) stores(t *testing.T) (s3, google string) {
	t.Helper()
	if stores == "" {
		return "", ""
	}
	cmd := exec.CommandContext(t.Context(), stores, w.objects, testenv.Dir(t), startKeys(t))
	var said strings.Builder
	cmd.Stderr = &said
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(out)
	for _, to := range []*string{&s3, &google} {
		if !lines.Scan() {
			_ = in.Close()
			_ = cmd.Wait()
			t.Fatalf("the object stores did not start: %s", said.String())
		}
		*to = lines.Text()
	}
	if err := w.fillS3(t.Context(), s3); err != nil {
		t.Fatal(err)
	}
	return s3, google
}

// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"context"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/crypto/ssh/agent"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// world is what both builders meet: a registry with the bases, a web server with the files and repositories of the cases.
type world struct {
	registry *testenv.Registry
	binary   string
	// args are build arguments that every build gets: the bases' references and the web server's address.
	args map[string]string
	// layers are the diffIDs of all bases.
	layers map[v1.Hash]bool
	// debian is the diffID of the Debian base, "" as long as no case needs it.
	debian string
	root   string // of the web server, one directory a case
	host   string // of the web server
	// agent is the socket of an ssh agent that holds no keys.
	agent string
}

// served is the time of what the web server gives.
var served = time.Unix(1690000000, 0)

func newWorld(t *testing.T, binary string, debian bool) *world {
	t.Helper()
	testenv.NeedRoot(t)
	testenv.Need(t, "busybox", "docker-registry", "git", "setcap", "tar", "bzip2", "xz", "zstd")
	w := &world{registry: testenv.NewRegistry(t, testenv.RegistryOptions{}), binary: binary, args: map[string]string{}, layers: map[v1.Hash]bool{}, root: testenv.Dir(t)}
	images, err := bases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if debian {
		image, err := testenv.Debian(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		images["DEBIAN"] = image
		config, err := image.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		w.debian = config.RootFS.DiffIDs[0].String()
	}
	for name, image := range images {
		reference := w.registry.Host + "/base/" + strings.ToLower(name) + ":1"
		if err := testenv.Push(t.Context(), image, reference); err != nil {
			t.Fatal(err)
		}
		w.args[name] = reference
		config, err := image.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range config.RootFS.DiffIDs {
			w.layers[id] = true
		}
	}
	server := httptest.NewServer(w.web())
	t.Cleanup(server.Close)
	w.host = strings.TrimPrefix(server.URL, "http://")
	w.args["HTTP"] = w.host
	w.agent = filepath.Join(testenv.Dir(t), "agent")
	serveAgent(t, w.agent)
	return w
}

// serveAgent answers as an ssh agent until the test ends.
func serveAgent(t *testing.T, socket string) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_ = agent.ServeAgent(agent.NewKeyring(), conn) // ends with the connection
				_ = conn.Close()
			}()
		}
	}()
}

// hide are the texts that differ from run to run, for strings.NewReplacer.
func (w *world) hide() []string { return []string{w.host, "HTTP", w.registry.Host, "REGISTRY"} }

// web serves files as they are, and git repositories by git's own program.
func (w *world) web() http.Handler {
	git := &cgi.Handler{Path: "/usr/lib/git-core/git-http-backend", Env: []string{"GIT_PROJECT_ROOT=" + w.root, "GIT_HTTP_EXPORT_ALL=1"}}
	files := http.FileServer(http.Dir(w.root))
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, ".git/") {
			git.ServeHTTP(rw, r)
			return
		}
		if strings.HasSuffix(r.URL.Path, ".undated") {
			b, err := os.ReadFile(filepath.Join(w.root, filepath.Clean(r.URL.Path)))
			if err != nil {
				http.NotFound(rw, r)
				return
			}
			_, _ = rw.Write(b)
			return
		}
		files.ServeHTTP(rw, r)
	})
}

// publish puts a case's !http files and !git repositories where the web server finds them.
func (w *world) publish(t *testing.T, c testCase) {
	t.Helper()
	repositories := map[string]string{}
	for _, m := range c.members {
		if rest, ok := strings.CutPrefix(m.Name, "!http/"); ok {
			writeFile(t, filepath.Join(w.root, c.name, rest), m.Data)
			if err := lutimes(filepath.Join(w.root, c.name, rest), served); err != nil {
				t.Fatal(err)
			}
		}
		if rest, ok := strings.CutPrefix(m.Name, "!git/"); ok {
			repository, path, _ := strings.Cut(rest, "/")
			repositories[repository] = filepath.Join(w.root, c.name, repository+".git")
			writeFile(t, filepath.Join(repositories[repository], path), m.Data)
		}
	}
	for _, dir := range repositories {
		script := "git init -q -b main . && git add -A && git commit -q -m one && git tag v1 && git branch side && mkdir -p deep && echo two > deep/two && git add -A && git commit -q -m two && git config http.uploadpack true && git config uploadpack.allowAnySHA1InWant true"
		cmd := exec.CommandContext(context.Background(), "/bin/sh", "-e", "-c", script)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b", "GIT_AUTHOR_DATE=1680000000 +0000", "GIT_COMMITTER_DATE=1680000000 +0000")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git: %v\n%s", err, out)
		}
	}
}

func writeFile(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"flag"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

var (
	full = flag.Bool("full", false, "everything, which takes most of an hour; else a sample of it")
	seed = flag.Uint64("seed", 6, "of everything random")
)

// binary is the program under test.
var binary string

func TestMain(m *testing.M) {
	testenv.Main(m, func(_ context.Context, path, _ string) error {
		binary = path
		return nil
	})
}

// epoch is older than what the builds make and newer than the contexts.
const epoch = "1712345678"

// contextTime is the time of everything in a context that says nothing else.
var contextTime = time.Unix(1700000000, 0)

// world is a real registry behind a proxy that counts, and that a test can make misbehave.
type world struct {
	host string // of the proxy
	base string // reference of the busybox base
	dir  string

	mu       sync.Mutex
	requests []string
	fault    func(http.ResponseWriter, *http.Request) bool

	// images and hits are counted by TestProperty.
	images, hits atomic.Int64
}

func newWorld(t *testing.T) *world {
	t.Helper()
	testenv.NeedRoot(t)
	testenv.Need(t, "busybox", "docker-registry")
	w := &world{dir: testenv.Dir(t)}
	back := testenv.NewRegistry(t, testenv.RegistryOptions{})
	target := &url.URL{Scheme: "http", Host: back.Host}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = r.In.Host
	}}
	front := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		w.requests = append(w.requests, r.Method+" "+r.URL.RequestURI())
		fault := w.fault
		w.mu.Unlock()
		if fault == nil || !fault(rw, r) {
			proxy.ServeHTTP(rw, r)
		}
	}))
	t.Cleanup(front.Close)
	w.host = strings.TrimPrefix(front.URL, "http://")
	base, err := testenv.Busybox(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.base = w.host + "/base/busybox:1"
	if err := testenv.Push(t.Context(), base, w.base); err != nil {
		t.Fatal(err)
	}
	return w
}

// count starts the count of requests anew, and gives the requests so far.
func (w *world) count() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.requests
	w.requests = nil
	return out
}

// misbehave makes the registry answer by f where that says so; nil heals it.
func (w *world) misbehave(f func(http.ResponseWriter, *http.Request) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault = f
}

// files is a build context: path -> content. A name that ends in .sh is executable.
type files map[string]string

func (f files) write(t *testing.T, dir string) {
	t.Helper()
	for name, content := range f {
		full := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o644)
		if strings.HasSuffix(name, ".sh") {
			mode = 0o755
		}
		if err := os.WriteFile(full, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	settle(t, dir)
}

// settle gives everything below dir one time.
func settle(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.Type()&os.ModeSymlink != 0 {
			return err
		}
		return os.Chtimes(path, contextTime, contextTime)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// built is what a build left.
type built struct {
	testenv.Outcome
	digest string
	// made and cached are the instructions, by their text, that the final table says were carried out and taken from the cache;
	// FROM is in neither.
	made, cached []string
}

// tableLine is a line of the table at the end of a log.
var tableLine = regexp.MustCompile(`(?m)^(?:\S+ )?\d+/\d+ +\S+ +(yes|no) +\S+(?: [kMG]?B)? +(.*)$`)

// build runs the binary; more is added to the environment. An empty value takes a variable away.
func (w *world) build(t *testing.T, context, destination string, more map[string]string) built {
	t.Helper()
	env := map[string]string{"KANIKO_CONTEXT": context, "KANIKO_DESTINATION": destination, "KANIKO_BUILD_ARG": "BASE=" + w.base}
	for k, v := range more {
		env[k] = v
		if v == "" {
			delete(env, k)
		}
	}
	o := testenv.Build{Binary: binary, Situation: testenv.PrivilegedRoot(), Env: env}.Run(t)
	if len(o.Left) > 0 {
		t.Errorf("left behind: %q", o.Left)
	}
	b := built{Outcome: o, digest: o.Results["IMAGE_DIGEST"]}
	for _, m := range tableLine.FindAllStringSubmatch(o.Log, -1) {
		switch {
		case strings.HasPrefix(m[2], "FROM "):
		case m[1] == "yes":
			b.cached = append(b.cached, m[2])
		default:
			b.made = append(b.made, m[2])
		}
	}
	return b
}

// mustBuild is build that must succeed.
func (w *world) mustBuild(t *testing.T, context, destination string, more map[string]string) built {
	t.Helper()
	b := w.build(t, context, destination, more)
	if b.Code != 0 {
		t.Fatalf("exit code %d\n%s", b.Code, b.Log)
	}
	return b
}

// with adds variables to an environment.
func with(env map[string]string, pairs ...string) map[string]string {
	out := map[string]string{}
	for k, v := range env {
		out[k] = v
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		out[pairs[i]] = pairs[i+1]
	}
	return out
}

// cached is the environment of a build with a cache.
func cached(repo string) map[string]string {
	return map[string]string{"KANIKO_CACHE": "true", "KANIKO_CACHE_REPO": repo, "SOURCE_DATE_EPOCH": epoch}
}

// pull reads an image back whole.
func pull(t *testing.T, reference string) v1.Image {
	t.Helper()
	image, err := testenv.Pull(t.Context(), reference)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(image); err != nil {
		t.Errorf("%s is not valid: %v", reference, err)
	}
	return image
}

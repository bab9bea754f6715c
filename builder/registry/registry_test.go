// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	ggcrregistry "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// fakeRegistry is an in-process registry behind a chain of faults.
type fakeRegistry struct {
	*httptest.Server
	Host string

	mu       sync.Mutex
	requests []string // "METHOD path"
	faults   []fault
}

// fault looks at a request first; true means that it answered.
type fault func(w http.ResponseWriter, r *http.Request) bool

func newFake(t *testing.T, faults ...fault) *fakeRegistry {
	t.Helper()
	f := &fakeRegistry{faults: faults}
	f.Server = httptest.NewUnstartedServer(f.handler())
	f.Config.ErrorLog = quiet()
	f.Start()
	t.Cleanup(f.Close)
	f.Host = strings.TrimPrefix(f.URL, "http://")
	return f
}

func (f *fakeRegistry) handler() http.Handler {
	inner := ggcrregistry.New(ggcrregistry.Logger(log.New(io.Discard, "", 0)))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.requests = append(f.requests, r.Method+" "+r.URL.RequestURI())
		faults := f.faults
		f.mu.Unlock()
		for _, fault := range faults {
			if fault(w, r) {
				return
			}
		}
		inner.ServeHTTP(w, r)
	})
}

func (f *fakeRegistry) add(faults ...fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = append(f.faults, faults...)
}

func (f *fakeRegistry) heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = nil
}

// count returns how many requests began with a prefix and contained a part.
func (f *fakeRegistry) count(prefix, part string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, r := range f.requests {
		if strings.HasPrefix(r, prefix) && strings.Contains(r, part) {
			n++
		}
	}
	return n
}

func (f *fakeRegistry) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = nil
}

// times answers the first n requests that match with a status.
func times(n int, method, part string, status int, header ...string) fault {
	var mu sync.Mutex
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != method || !strings.Contains(r.URL.Path, part) {
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		if n == 0 {
			return false
		}
		n--
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(status)
		return true
	}
}

const always = -1

// fast keeps the waits of tests short.
var fast = Timing{
	RetryBudget: 3 * time.Second, ConnectBudget: 300 * time.Millisecond, MirrorBudget: 100 * time.Millisecond,
	FirstDelay: 5 * time.Millisecond, RetryAfterCap: 2 * time.Second, ReadBack: 400 * time.Millisecond,
}

func newClient(t *testing.T, o Options) *Client {
	t.Helper()
	if o.Timing == (Timing{}) {
		o.Timing = fast
	}
	o.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func observed() (*zap.Logger, *observer.ObservedLogs) {
	core, logs := observer.New(zapcore.DebugLevel)
	return zap.New(core), logs
}

func randomImage(t *testing.T, size int64, layers int64) v1.Image {
	t.Helper()
	img, err := random.Image(size, layers)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// imageFor makes a one-layer image of a platform.
func imageFor(t *testing.T, p v1.Platform) v1.Image {
	t.Helper()
	img, err := mutate.AppendLayers(empty.Image, textLayer(t, p.String()))
	if err != nil {
		t.Fatal(err)
	}
	conf, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	conf = conf.DeepCopy()
	conf.OS, conf.Architecture, conf.Variant = p.OS, p.Architecture, p.Variant
	img, err = mutate.ConfigFile(img, conf)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func textLayer(t *testing.T, text string) v1.Layer {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.WriteHeader(&tar.Header{Name: "file", Mode: 0o644, Size: int64(len(text))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func digestOf(t *testing.T, x interface{ Digest() (v1.Hash, error) }) v1.Hash {
	t.Helper()
	d, err := x.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// wantError checks class and wording of an error.
func wantError(t *testing.T, err error, class Class, parts ...string) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error = %v (%T), want *Error", err, err)
	}
	if e.Class != class {
		t.Errorf("class = %s, want %s: %v", e.Class, class, err)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("error %q does not contain %q", err, p)
		}
	}
	if strings.ContainsAny(err.Error(), "\n\r\x1b") {
		t.Errorf("error %q is not one clean line", err)
	}
	return e
}

// publish pushes with a fresh client, as an earlier build would have.
func publish(t *testing.T, ref string, img interface{ RawManifest() ([]byte, error) }) {
	t.Helper()
	if _, err := newClient(t, Options{}).Publish(context.Background(), []string{ref}, img); err != nil {
		t.Fatal(err)
	}
}

func readLayer(l v1.Layer) ([]byte, error) {
	rc, err := l.Compressed()
	if err != nil {
		return nil, err
	}
	defer func() { _ = rc.Close() }()
	return io.ReadAll(rc)
}

func manifestPath(repo, id string) string { return fmt.Sprintf("/v2/%s/manifests/%s", repo, id) }

// quiet is for servers that are expected to complain.
func quiet() *log.Logger { return log.New(io.Discard, "", 0) }

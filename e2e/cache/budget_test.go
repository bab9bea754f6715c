// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// maxBeyondLayers is what a fully cached build may cost in requests, besides one a layer.
const maxBeyondLayers = 15

// several is a project of n instructions that make layers, RUNs among them.
func several(n int) files {
	f := files{}
	d := &strings.Builder{}
	d.WriteString("ARG BASE\nFROM ${BASE}\n")
	for i := range n {
		if i%3 == 2 {
			fmt.Fprintf(d, "RUN cat /data/f* >/sum%d\n", i)
			continue
		}
		f[fmt.Sprintf("f%d", i)] = fmt.Sprintf("content %d\n", i)
		fmt.Fprintf(d, "COPY f%d /data/\n", i)
	}
	f["Dockerfile"] = d.String()
	return f
}

// TestRequests: nothing but requests of a few bytes, one a layer and a fixed number beyond, and no blob of a layer.
func TestRequests(t *testing.T) {
	w := newWorld(t)
	dir := testenv.Dir(t)
	const n = 12
	several(n).write(t, dir)
	env := cached(w.host + "/cache")
	first := w.mustBuild(t, dir, w.host+"/first:1", env)
	base := pull(t, w.base)
	baseConfig, err := base.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, destination string
	}{{"a destination that has nothing", "/second:1"}, {"again", "/second:1"}, {"another tag", "/second:2"}} {
		t.Run(tt.name, func(t *testing.T) {
			w.count()
			b := w.mustBuild(t, dir, w.host+tt.destination, env)
			requests := w.count()
			if b.digest != first.digest || len(b.made) > 0 || len(b.cached) != n {
				t.Errorf("digest %s, want %s; made %q", b.digest, first.digest, b.made)
			}
			image := pull(t, w.host+tt.destination)
			manifest, err := image.Manifest()
			if err != nil {
				t.Fatal(err)
			}
			config := manifest.Config.Digest.String()
			if most := len(manifest.Layers) + maxBeyondLayers; len(requests) > most {
				t.Errorf("%d requests for %d layers, at most %d:\n%s", len(requests), len(manifest.Layers), most, strings.Join(requests, "\n"))
			}
			t.Logf("%d requests for %d layers", len(requests), len(manifest.Layers))
			for _, r := range requests {
				if strings.HasPrefix(r, "GET ") && strings.Contains(r, "/blobs/") && !strings.Contains(r, config) && !strings.Contains(r, baseConfig.String()) {
					t.Errorf("a blob was read: %s", r)
				}
			}
		})
	}
}

// TestLateMiss: a COPY that changed at the end of a Dockerfile reads no layer below it, of the base or of the cache.
func TestLateMiss(t *testing.T) {
	w := newWorld(t)
	dir := testenv.Dir(t)
	project := files{
		"Dockerfile": "ARG BASE\nFROM ${BASE}\nRUN mkdir /app && head -c 300000 /dev/urandom >/app/big && chown -R 5:6 /app\nCOPY early /app/\nENV X=1\nCOPY --chown=5:6 late /app/\nUSER 5\n",
		"early":      "early\n", "late": "late\n",
	}
	project.write(t, dir)
	env := cached(w.host + "/cache")
	w.mustBuild(t, dir, w.host+"/first:1", env)
	project["late"] = "changed\n"
	project.write(t, dir)
	w.count()
	b := w.mustBuild(t, dir, w.host+"/second:1", env)
	requests := w.count()
	if d := cmp.Diff([]string{"COPY --chown=5:6 late /app/"}, b.made); d != "" {
		t.Errorf("made (-want +got):\n%s", d)
	}
	image := pull(t, w.host+"/second:1")
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers[:len(layers)-1] {
		d, err := l.Digest()
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(requests, func(r string) bool {
			return strings.HasPrefix(r, "GET ") && strings.Contains(r, d.String())
		}) {
			t.Errorf("layer %s was read", d)
		}
	}
}

// TestTrouble: a cache that cannot be used costs one warning and little time, and the image is the same.
func TestTrouble(t *testing.T) {
	w := newWorld(t)
	dir := testenv.Dir(t)
	several(4).write(t, dir)
	want := w.mustBuild(t, dir, w.host+"/want:1", map[string]string{"SOURCE_DATE_EPOCH": epoch})
	env := cached(w.host + "/cache")
	toCache := func(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/v2/cache/") }
	status := func(n int, match func(*http.Request) bool) func(http.ResponseWriter, *http.Request) bool {
		return func(rw http.ResponseWriter, r *http.Request) bool {
			if !match(r) {
				return false
			}
			rw.WriteHeader(n)
			return true
		}
	}
	hang := func(match func(*http.Request) bool) func(http.ResponseWriter, *http.Request) bool {
		return func(_ http.ResponseWriter, r *http.Request) bool {
			if !match(r) {
				return false
			}
			select {
			case <-r.Context().Done():
			case <-time.After(time.Minute):
			}
			return true
		}
	}
	writes := func(r *http.Request) bool {
		return toCache(r) && r.Method != http.MethodGet && r.Method != http.MethodHead
	}
	tests := []struct {
		name  string
		fault func(http.ResponseWriter, *http.Request) bool
		repo  string
	}{
		{"nobody listens", nil, "127.0.0.1:9/cache"},
		{"401", status(401, toCache), ""},
		{"403", status(403, toCache), ""},
		{"500", status(500, toCache), ""},
		{"429", status(429, toCache), ""},
		{"hangs", hang(toCache), ""},
		{"may be read only", status(403, writes), ""},
		{"405 for writing", status(405, writes), ""},
		{"hangs when written", hang(writes), ""},
		{"garbage", func(rw http.ResponseWriter, r *http.Request) bool {
			if toCache(r) && r.Method == http.MethodGet {
				_, _ = rw.Write([]byte("<html>"))
				return true
			}
			return false
		}, ""},
		{"a directory that cannot be made", nil, "oci:/proc/cache"},
		{"a file instead of a directory", nil, "oci:" + filepath.Join(dir, "Dockerfile")},
	}
	plain := want.Wall
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w.misbehave(tt.fault)
			defer w.misbehave(nil)
			env := env
			if tt.repo != "" {
				env = with(env, "KANIKO_CACHE_REPO", tt.repo)
			}
			b := w.mustBuild(t, dir, fmt.Sprintf("%s/trouble%d:1", w.host, i), env)
			if b.digest != want.digest {
				t.Errorf("digest %s, want %s", b.digest, want.digest)
			}
			if added := b.Wall - plain; added > 5*time.Second {
				t.Errorf("the build took %v longer than without a cache:\n%s", added, b.Log)
			}
			if n := strings.Count(b.Log, "going on without it"); n != 1 {
				t.Errorf("%d warnings, want one:\n%s", n, b.Log)
			}
		})
	}
}

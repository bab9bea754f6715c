// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"encoding/json"
	"io"
	"net/http"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// A registry is greeted once for all repositories.
func TestOneGreeting(t *testing.T) {
	f := newFake(t)
	img := randomImage(t, 100, 1)
	for _, repo := range []string{"a", "b", "c"} {
		publish(t, f.Host+"/"+repo+":1", img)
	}
	f.forget()
	c := newClient(t, Options{})
	for _, repo := range []string{"a", "b", "c"} {
		if _, err := c.Resolve(t.Context(), f.Host+"/"+repo+":1", amd64); err != nil {
			t.Fatal(err)
		}
		if err := c.CheckPush(t.Context(), f.Host+"/"+repo+":1"); err != nil {
			t.Fatal(err)
		}
	}
	if n := f.count("GET /v2/", "") - f.count("GET /v2/", "manifests") - f.count("GET /v2/", "blobs"); n != 1 {
		t.Errorf("%d greetings", n)
	}
}

// A greeting that failed is not remembered.
func TestGreetingAgainAfterFailure(t *testing.T) {
	f := newFake(t, times(1, "GET", "/v2/", 403))
	c := newClient(t, Options{})
	if err := c.CheckPush(t.Context(), f.Host+"/a:1"); err == nil {
		t.Error("no error")
	}
	if err := c.CheckPush(t.Context(), f.Host+"/a:1"); err != nil {
		t.Error(err)
	}
}

// A small blob goes with the PUT that ends its upload; a registry that wants PATCH gets that, and next time at once.
func TestSmallBlobs(t *testing.T) {
	tests := []struct {
		name      string
		status    int // for a PUT with bytes
		patches   int
		beginning int // uploads that were begun
	}{
		{"taken", 0, 0, 2},
		{"400", 400, 2, 3},
		{"404", 404, 2, 3},
		{"405", 405, 2, 3},
		{"415", 415, 2, 3},
		{"501", 501, 2, 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t, func(w http.ResponseWriter, r *http.Request) bool {
				if tt.status == 0 || r.Method != http.MethodPut || r.ContentLength <= 0 || !r.URL.Query().Has("digest") {
					return false
				}
				_, _ = io.Copy(io.Discard, r.Body)
				w.WriteHeader(tt.status)
				return true
			})
			c := newClient(t, Options{})
			for range 2 {
				if err := c.Upload(t.Context(), f.Host+"/a:1", randomLayer(t, 1000)); err != nil {
					t.Fatal(err)
				}
			}
			if got := f.count("PATCH", ""); got != tt.patches {
				t.Errorf("%d PATCH, want %d", got, tt.patches)
			}
			if got := f.count("POST", ""); got != tt.beginning {
				t.Errorf("%d uploads begun, want %d", got, tt.beginning)
			}
			if ended := f.count("PUT", "") + f.count("DELETE", ""); ended < tt.beginning {
				t.Errorf("%d of %d uploads ended", ended, tt.beginning)
			}
		})
	}
}

// The first push of an image asks for layers, which may be there, and neither for config nor manifest.
func TestPublishAsksForNoConfig(t *testing.T) {
	f := newFake(t)
	img := randomImage(t, 100, 2)
	publish(t, f.Host+"/a:1", img)
	config, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	if n := f.count("HEAD", config.String()); n != 0 {
		t.Error("asked for a config that nobody can have")
	}
	if n := f.count("HEAD", "/manifests/sha256:"); n != 0 {
		t.Errorf("asked for the manifest %d times", n)
	}
}

// A config that the manifest has in itself is not fetched; one that is wrong there is.
func TestArtifactWithData(t *testing.T) {
	blob := []byte("the records")
	tests := []struct {
		name string
		data []byte
		gets int
	}{
		{"as it is", blob, 0},
		{"another", []byte("the recordz"), 1},
		{"longer", append([]byte("x"), blob...), 1},
		{"none", nil, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			config := static.NewLayer(blob, "application/x-records")
			d, err := partial.Descriptor(config)
			if err != nil {
				t.Fatal(err)
			}
			d.Data = tt.data
			manifest, err := json.Marshal(v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: *d, Layers: []v1.Descriptor{}})
			if err != nil {
				t.Fatal(err)
			}
			if err := newClient(t, Options{}).PushArtifact(t.Context(), f.Host+"/cache:x", config, manifest); err != nil {
				t.Fatal(err)
			}
			a, err := newClient(t, Options{}).Artifact(t.Context(), f.Host+"/cache:x")
			if err != nil {
				t.Fatal(err)
			}
			if string(a.Config) != string(blob) {
				t.Errorf("read %q", a.Config)
			}
			if n := f.count("GET", "/blobs/"); n != tt.gets {
				t.Errorf("%d GET of the blob, want %d", n, tt.gets)
			}
		})
	}
}

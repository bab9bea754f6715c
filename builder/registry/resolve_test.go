// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

var amd64 = v1.Platform{OS: "linux", Architecture: "amd64"}

func TestResolve(t *testing.T) {
	f := newFake(t)
	img := randomImage(t, 300_000, 3)
	publish(t, f.Host+"/base:1", img)
	f.forget()
	var events atomic.Int32
	c := newClient(t, Options{Progress: func(e Event) {
		if e.Op == "pull" && e.Finished && e.Done == e.Total {
			events.Add(1)
		}
	}})
	got, err := c.Resolve(context.Background(), f.Host+"/base:1", amd64)
	if err != nil {
		t.Fatal(err)
	}
	if got.Digest != digestOf(t, img) || got.Ref.Name() != f.Host+"/base:1" {
		t.Errorf("resolved to %s %s", got.Ref, got.Digest)
	}
	if n := f.count("GET", "/blobs/"); n != 1 {
		t.Errorf("%d blobs fetched before any layer was read, want the config alone", n)
	}
	if err := validate.Image(got.Image); err != nil {
		t.Error(err)
	}
	if events.Load() < 3 {
		t.Errorf("%d layers reported as finished, want 3", events.Load())
	}
}

// A moving tag means one image for the life of a client, for every platform.
func TestResolveOnce(t *testing.T) {
	f := newFake(t)
	arm := v1.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}
	publish(t, f.Host+"/base:1", index(t, imageFor(t, amd64), imageFor(t, arm)))
	f.forget()
	c := newClient(t, Options{})
	var wg sync.WaitGroup
	var images [8]*Image
	for i := range images {
		wg.Go(func() {
			img, err := c.Resolve(context.Background(), f.Host+"/base:1", amd64)
			if err != nil {
				t.Error(err)
			}
			images[i] = img
		})
	}
	wg.Wait()
	if n := f.count("GET", "/manifests/1"); n != 1 {
		t.Errorf("the tag was read %d times", n)
	}
	publish(t, f.Host+"/base:1", randomImage(t, 10, 1))
	again, err := c.Resolve(context.Background(), f.Host+"/base:1", amd64)
	if err != nil {
		t.Fatal(err)
	}
	for i, img := range images {
		if img != again {
			t.Errorf("answer %d is another image", i)
		}
	}
	if _, err := c.Resolve(context.Background(), f.Host+"/base:1", arm); err != nil {
		t.Errorf("the other platform of the index first seen: %v", err)
	}
}

func index(t *testing.T, images ...v1.Image) v1.ImageIndex {
	t.Helper()
	var idx v1.ImageIndex = empty.Index
	for _, img := range images {
		conf, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		idx = mutate.AppendManifests(idx, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{
			Platform: &v1.Platform{OS: conf.OS, Architecture: conf.Architecture, Variant: conf.Variant},
		}})
	}
	return idx
}

func TestChoose(t *testing.T) {
	tests := []struct {
		name, want string
		have       []string
		picked     int
		says       string
	}{
		{name: "exact", want: "linux/amd64", have: []string{"linux/arm64", "linux/amd64"}, picked: 1},
		{name: "first of equals", want: "linux/amd64", have: []string{"linux/amd64", "linux/amd64"}, picked: 0},
		{name: "arm64 with and without v8", want: "linux/arm64", have: []string{"linux/arm/v7", "linux/arm64/v8"}, picked: 1},
		{name: "older variant", want: "linux/arm/v7", have: []string{"linux/arm/v5", "linux/arm/v6"}, picked: 1},
		{name: "no newer variant", want: "linux/arm/v6", have: []string{"linux/arm/v7"}, says: "no manifest for platform linux/arm/v6; there are: linux/arm/v7"},
		{name: "amd64 level", want: "linux/amd64/v3", have: []string{"linux/amd64/v2", "linux/amd64"}, picked: 0},
		{name: "level too high", want: "linux/amd64", have: []string{"linux/amd64/v3", "linux/s390x"}, says: "there are: linux/amd64/v3, linux/s390x"},
		{name: "only image without platform", want: "linux/amd64", have: []string{""}, picked: 0},
		{name: "attestations are no images", want: "linux/amd64", have: []string{"unknown/unknown"}, says: "no image"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var entries []v1.Descriptor
			for i, p := range tt.have {
				d := v1.Descriptor{MediaType: types.OCIManifestSchema1, Size: int64(i)}
				if p != "" {
					parsed, err := v1.ParsePlatform(p)
					if err != nil {
						t.Fatal(err)
					}
					d.Platform = parsed
				}
				entries = append(entries, d)
			}
			want, err := v1.ParsePlatform(tt.want)
			if err != nil {
				t.Fatal(err)
			}
			got, err := choose(entries, normalise(*want))
			if tt.says != "" {
				if err == nil || !strings.Contains(err.Error(), tt.says) || classOf(err) != Unsupported {
					t.Fatalf("error = %v, want %q", err, tt.says)
				}
				return
			}
			if err != nil || got.Size != int64(tt.picked) {
				t.Errorf("picked %d, %v, want %d", got.Size, err, tt.picked)
			}
		})
	}
}

// bareManifest serves one document under every tag.
func bareManifest(body, contentType string) fault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/manifests/") {
			return false
		}
		w.Header().Set("Content-Type", contentType)
		_, _ = io.WriteString(w, body)
		return true
	}
}

func TestResolveRefuses(t *testing.T) {
	const oci = "application/vnd.oci.image.manifest.v1+json"
	zero := `"digest":"sha256:` + strings.Repeat("0", 64) + `","size":2`
	config := `"config":{"mediaType":"application/vnd.oci.image.config.v1+json",` + zero + `}`
	manifest := func(layer string) string {
		return `{"schemaVersion":2,"mediaType":"` + oci + `",` + config + `,"layers":[{` + zero + `,` + layer + `}]}`
	}
	tests := []struct {
		name  string
		fault fault
		class Class
		says  string
	}{
		{"not found", nil, Refused, "404 Not Found"},
		{"foreign layer", bareManifest(manifest(`"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"`), oci), Unsupported, "foreign"},
		{"layer with urls", bareManifest(manifest(`"mediaType":"application/vnd.oci.image.layer.v1.tar","urls":["https://example.com/x"]`), oci), Unsupported, "foreign"},
		{"encrypted", bareManifest(manifest(`"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip+encrypted"`), oci), Unsupported, "encrypted"},
		{"unknown layer", bareManifest(manifest(`"mediaType":"text/x\u001b[2J"`), oci), Unsupported, `media type`},
		{"schema 1", bareManifest(`{"schemaVersion":1,"fsLayers":[]}`, string(types.DockerManifestSchema1Signed)), Unsupported, "schema 1"},
		{"artifact", bareManifest(`{"schemaVersion":2,"config":{"mediaType":"application/vnd.cncf.helm.config.v1+json",`+zero+`},"layers":[]}`, oci), Unsupported, "artifact"},
		{"manifest and index at once", bareManifest(`{"schemaVersion":2,"manifests":[],"layers":[]}`, oci), Unsupported, "index too"},
		{"not JSON", bareManifest(`<html>`, oci), Unsupported, "not valid JSON"},
		{"empty index", bareManifest(`{"schemaVersion":2,"manifests":[]}`, string(types.OCIImageIndex)), Unsupported, "no image"},
		{"huge manifest", bareManifest(`"`+strings.Repeat("x", maxManifest)+`"`, oci), Unsupported, "larger than 4 MiB"},
		{"too many layers", bareManifest(`{"schemaVersion":2,`+config+`,"layers":[{}`+strings.Repeat(",{}", maxLayers)+`]}`, oci), Unsupported, "512 layers"},
		{"huge config", bareManifest(`{"schemaVersion":2,"config":{"mediaType":"`+string(types.OCIConfigJSON)+`","digest":"sha256:`+strings.Repeat("0", 64)+`","size":99999999},"layers":[]}`, oci), Unsupported, "larger than 8 MiB"},
		{"login page", func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/login" {
				w.Header().Set("Content-Type", "text/html")
				w.WriteHeader(http.StatusForbidden)
				_, _ = io.WriteString(w, "<html>Please log in")
			} else {
				http.Redirect(w, r, "/login", http.StatusFound)
			}
			return true
		}, Refused, "HTML page"},
		{"redirect loop", func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/v2/" {
				return false
			}
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
			return true
		}, Refused, "redirect"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			if tt.fault != nil {
				f.add(tt.fault)
			}
			_, err := newClient(t, Options{}).Resolve(context.Background(), f.Host+"/base:1", amd64)
			wantError(t, err, tt.class, tt.says)
		})
	}
}

func TestResolveWindows(t *testing.T) {
	f := newFake(t)
	publish(t, f.Host+"/win:1", imageFor(t, v1.Platform{OS: "windows", Architecture: "amd64"}))
	_, err := newClient(t, Options{}).Resolve(context.Background(), f.Host+"/win:1", amd64)
	wantError(t, err, Unsupported, "Windows")
}

// Content under a digest that is not that digest is never handed out.
func TestResolveVerifies(t *testing.T) {
	img := randomImage(t, 5000, 1)
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := img.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	data, err := readLayer(layers[0])
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(data)
	flipped[len(flipped)-1] ^= 1
	ldigest := digestOf(t, layers[0]).String()
	tests := []struct {
		name, path string
		body       []byte
		ref        string
	}{
		{"config", config.String(), append([]byte(" "), raw[1:]...), ":1"},
		{"config too long", config.String(), append(bytes.Clone(raw), ' '), ":1"},
		{"layer, last bit", ldigest, flipped, ":1"},
		{"layer too long", ldigest, append(bytes.Clone(data), 0), ":1"},
		{"layer too short", ldigest, data[:len(data)-1], ":1"},
		{"manifest by digest", digestOf(t, img).String(), []byte("{}"), "@" + digestOf(t, img).String()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			publish(t, f.Host+"/base:1", img)
			f.add(answerGet(tt.path, 200, tt.body))
			got, err := newClient(t, Options{}).Resolve(context.Background(), f.Host+"/base"+tt.ref, amd64)
			if err != nil {
				wantError(t, err, Integrity)
				return
			}
			ls, err := got.Layers()
			if err != nil {
				t.Fatal(err)
			}
			read, err := readLayer(ls[0])
			wantError(t, err, Integrity, ldigest)
			if len(read) >= len(data) {
				t.Errorf("%d bytes of %d were handed out", len(read), len(data))
			}
		})
	}
}

func TestMirrors(t *testing.T) {
	img := randomImage(t, 100, 1)
	empty, full, broken := newFake(t), newFake(t), newFake(t, times(always, "GET", "/manifests/", 500))
	publish(t, full.Host+"/cache/library/debian:12", img)
	publish(t, full.Host+"/other:1", img)
	dead := newFake(t)
	dead.Close()
	tests := []struct {
		name string
		o    Options
		ref  string
		err  Class
	}{
		{"Docker Hub, the third has it", Options{Mirrors: []string{dead.Host, broken.Host, empty.Host, "http://" + full.Host + "/cache/"}}, "debian:12", 0},
		{"mapped host", Options{Maps: map[string][]string{"registry.invalid": {full.Host}}}, "registry.invalid/other:1", 0},
		{"docker.io in the map", Options{Maps: map[string][]string{"docker.io": {full.Host + "/cache"}}}, "docker.io/library/debian:12", 0},
		{"no fallback", Options{Mirrors: []string{empty.Host}, SkipDefaultFallback: true}, "debian:12", Refused},
		{"mirrors are not for other hosts", Options{Mirrors: []string{full.Host}}, empty.Host + "/other:1", Refused},
		{"bad mirror", Options{Mirrors: []string{"not a host"}}, "debian:12", Invalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := newClient(t, tt.o).Resolve(context.Background(), tt.ref, amd64)
			if tt.err != 0 {
				wantError(t, err, tt.err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := validate.Image(got.Image); err != nil {
				t.Error(err)
			}
		})
	}
}

// A layer is read under the context that its reader chose, and ends with it.
func TestReadUnderContext(t *testing.T) {
	f := newFake(t)
	publish(t, f.Host+"/base:1", randomImage(t, 100_000, 1))
	c := newClient(t, Options{})
	ctx, cancel := context.WithCancel(context.Background())
	img, err := c.Resolve(ctx, f.Host+"/base:1", amd64)
	if err != nil {
		t.Fatal(err)
	}
	bound, err := img.WithContext(ctx)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	layers, err := bound.Layers()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := readLayer(layers[0]); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v, want canceled", err)
	}
	free, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := readLayer(free[0]); err != nil {
		t.Errorf("the client still lives: %v", err)
	}
	c.Close()
	if _, err := readLayer(free[0]); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v, want canceled", err)
	}
}

func TestNewNamesTheFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	tests := []struct {
		name string
		o    Options
		says []string
	}{
		{"JSON", Options{DockerConfig: write("a.json", `{"auths":{"h":{"auth":"aHVudGVyMg"`)}, []string{"a.json", "not valid JSON"}},
		{"auth", Options{DockerConfig: write("b.json", `{"auths":{"h":{"auth":"aHVudGVyMg=="}}}`)}, []string{"b.json", `auths["h"]`}},
		{"type", Options{AuthJSON: []byte(`{"auths":"hunter2"}`)}, []string{"DOCKER_AUTH_CONFIG", "auths"}},
		{"no CA", Options{ExtraCAs: []string{filepath.Join(dir, "none.pem")}}, []string{"none.pem"}},
		{"not a CA", Options{Certificates: map[string]string{"h": write("c.pem", "hello")}}, []string{"c.pem", "h", "no PEM"}},
		{"client certificate", Options{ClientCerts: map[string]ClientCert{"h": {CertFile: "x.pem", KeyFile: "y.pem"}}}, []string{"x.pem", "y.pem"}},
	}
	for _, tt := range tests {
		_, err := New(tt.o)
		if err == nil {
			t.Errorf("%s: no error", tt.name)
			continue
		}
		for _, s := range tt.says {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%s: %q does not contain %q", tt.name, err, s)
			}
		}
		if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "aHVudGVyMg") {
			t.Errorf("%s: %q contains the secret", tt.name, err)
		}
	}
	if diff := cmp.Diff(Class(0), classOf(nil)); diff != "" {
		t.Error(diff)
	}
}

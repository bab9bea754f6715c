// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	ggcrremote "github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"

	"github.com/kaniko-go/kaniko-go/builder/registry"
)

// liar is a registry that serves other bytes for some blobs and manifests than it was given.
type liar struct {
	host string
	mu   sync.Mutex
	// lies are served in place of what has the digest.
	lies map[string][]byte
	// short has the bodies end before their Content-Length.
	short bool
	put   []string
}

func newLiar(t *testing.T) *liar {
	t.Helper()
	l := &liar{}
	inner := ggcr.New(ggcr.Logger(stdlog.New(io.Discard, "", 0)))
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.mu.Lock()
		lie, ok := l.lies[r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]]
		short := l.short
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/") {
			l.put = append(l.put, r.URL.Path)
		}
		l.mu.Unlock()
		if !ok || r.Method != http.MethodGet {
			inner.ServeHTTP(w, r)
			return
		}
		if strings.Contains(r.URL.Path, "/manifests/") {
			w.Header().Set("Content-Type", string(types.OCIManifestSchema1))
		}
		if short {
			w.Header().Set("Content-Length", fmt.Sprint(len(lie)+1))
		}
		_, _ = w.Write(lie)
	}))
	srv.Config.ErrorLog = stdlog.New(io.Discard, "", 0)
	srv.Start()
	t.Cleanup(srv.Close)
	l.host = strings.TrimPrefix(srv.URL, "http://")
	return l
}

func (l *liar) lie(lies map[string][]byte, short bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lies, l.short, l.put = lies, short, nil
}

// threeLayers is an image for this machine with one layer of each compression, below an index.
func threeLayers(t *testing.T) (v1.ImageIndex, v1.Image) {
	t.Helper()
	var layers []v1.Layer
	for i, media := range []types.MediaType{types.OCIUncompressedLayer, types.OCILayer, types.OCILayerZStd} {
		var plain, packed bytes.Buffer
		w := tar.NewWriter(&plain)
		body := strings.Repeat(fmt.Sprintf("content %d ", i), 30)
		if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("f%d", i), Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(body))}); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(w, body)
		_ = w.Close()
		switch media {
		case types.OCILayer:
			z := gzip.NewWriter(&packed)
			_, _ = z.Write(plain.Bytes())
			_ = z.Close()
		case types.OCILayerZStd:
			z, err := zstd.NewWriter(&packed)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = z.Write(plain.Bytes())
			_ = z.Close()
		default:
			packed.Write(plain.Bytes())
		}
		diffID, _, err := v1.SHA256(&plain)
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, layerWithDiffID{static.NewLayer(packed.Bytes(), media), diffID})
	}
	img, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), layers...)
	if err != nil {
		t.Fatal(err)
	}
	platform := registryPlatform(localPlatform())
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = platform.OS, platform.Architecture
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	return mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &platform}}), img
}

type layerWithDiffID struct {
	v1.Layer
	diffID v1.Hash
}

func (l layerWithDiffID) DiffID() (v1.Hash, error) { return l.diffID, nil }

// blobs are all the blobs of the image, its manifest and the index: what is called by which digest.
func blobsOf(t *testing.T, idx v1.ImageIndex, img v1.Image) map[string][]byte {
	t.Helper()
	raw := func(b []byte, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	out := map[string][]byte{
		"index": raw(idx.RawManifest()), "manifest": raw(img.RawManifest()), "config": raw(img.RawConfigFile()),
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range layers {
		r, err := l.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		out[fmt.Sprintf("layer %d", i)] = raw(io.ReadAll(r))
	}
	return out
}

// corruptions are the blob with one bit turned at every position class, cut short and made longer.
func corruptions(b []byte, step int) map[string][]byte {
	out := map[string][]byte{}
	for at := range b {
		if at >= 12 && at < len(b)-12 && at%step != 0 {
			continue
		}
		flipped := slices.Clone(b)
		flipped[at] ^= 1 << (at % 8)
		out[fmt.Sprintf("bit of byte %d", at)] = flipped
	}
	for _, n := range []int{0, 1, len(b) / 2, len(b) - 1} {
		out[fmt.Sprintf("only %d bytes", n)] = slices.Clone(b[:n])
	}
	for name, more := range map[string][]byte{"a byte": {0}, "a space": {' '}, "itself": b, "zeros": make([]byte, 1024)} {
		out["and "+name] = append(slices.Clone(b), more...)
	}
	return out
}

// TestCorruption has a base with one wrong blob, in every way and every place, from a registry and from an OCI layout. It is
// always refused, and nothing was made of it: no manifest is pushed.
func TestCorruption(t *testing.T) {
	l := newLiar(t)
	idx, img := threeLayers(t)
	ref, err := name.ParseReference(l.host+"/base:1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := ggcrremote.WriteIndex(ref, idx, ggcrremote.WithContext(t.Context())); err != nil {
		t.Fatal(err)
	}
	digest, err := idx.Digest()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p, err := layout.Write(filepath.Join(dir, "layout"), empty.Index)
	if err == nil {
		err = p.AppendIndex(idx)
	}
	if err != nil {
		t.Fatal(err)
	}
	fromRegistry := map[string]string{"base": "docker-image://" + l.host + "/base@" + digest.String()}
	fromLayout := map[string]string{"base": "oci-layout://" + string(p) + "@" + digest.String()}
	for _, contexts := range []map[string]string{fromRegistry, fromLayout} {
		if err := l.build(t, contexts); err != nil {
			t.Fatalf("without a lie: %v", err)
		}
	}
	tried := 0
	for what, b := range blobsOf(t, idx, img) {
		h, _, err := v1.SHA256(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		for how, lie := range corruptions(b, 1+len(b)/24) {
			tried++
			l.lie(map[string][]byte{h.Hex: lie, h.String(): lie}, false)
			l.refuses(t, what+", "+how, fromRegistry, ExitIntegrity)
			l.lie(nil, false)
			file := filepath.Join(string(p), "blobs", "sha256", h.Hex)
			if err := os.WriteFile(file, lie, 0o600); err != nil {
				t.Fatal(err)
			}
			l.refuses(t, "layout, "+what+", "+how, fromLayout, ExitIntegrity)
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		l.lie(map[string][]byte{h.Hex: b[:len(b)/2], h.String(): b[:len(b)/2]}, true)
		l.refuses(t, what+", connection lost", fromRegistry, ExitNetwork, ExitIntegrity)
	}
	t.Logf("%d corruptions, each from a registry and from a layout", tried)
}

func (l *liar) refuses(t *testing.T, name string, contexts map[string]string, codes ...int) {
	t.Helper()
	err := l.build(t, contexts)
	if err == nil {
		t.Errorf("%s: it was used", name)
		return
	}
	if got := ExitCode(err); !slices.Contains(codes, got) {
		t.Errorf("%s: exit code %d, %v", name, got, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.put) > 0 {
		t.Errorf("%s: a manifest was pushed", name)
	}
}

// build makes an image of the base's files and its configuration.
func (l *liar) build(t *testing.T, contexts map[string]string) error {
	t.Helper()
	h := newHouse(t)
	client, err := registry.New(registry.Options{
		PullRetries: -1,
		Timing:      registry.Timing{RetryBudget: 50 * time.Millisecond, FirstDelay: time.Millisecond, ReadBack: time.Second},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	h.Registry = client
	r := h.request(t, map[string]string{"Dockerfile": "FROM base\nCOPY --from=base / /copied/\n"})
	r.Contexts = contexts
	r.Output.Destinations = []string{l.host + "/out:1"}
	_, err = h.Build(t.Context(), r)
	return err
}

// TestCauseIsPrintable: causes hold names that hostile images and contexts have chosen.
func TestCauseIsPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"a \x1b[2J b": `a \x1b[2J b`, "one\ntwo": "one; two", "\xff ü \ufffd \u202e": "\\xff ü \ufffd \\u202e", `C:\"q"`: `C:\"q"`,
		"\r\a\x00": `\r\a\x00`,
	} {
		if got := Cause(errors.New(text)); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"

	"github.com/kaniko-go/kaniko-go/builder/registry"
)

// scenario is a build as the registry sees it: a base is pulled, layers are added, and the image is pushed to one or two
// repositories, over an older image where there is one.
type scenario struct {
	base, old v1.Image
	layers    []v1.Layer
	repos     []string // of the destinations
	replaces  bool     // an older image has the tag
	large     bool     // a layer that goes with a PATCH
}

var platform = v1.Platform{OS: "linux", Architecture: "amd64"}

func newScenario(t *testing.T, seed int) *scenario {
	t.Helper()
	rnd := rand.New(rand.NewPCG(uint64(seed), 7))
	layer := func(size int) v1.Layer {
		b := make([]byte, size)
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		return static.NewLayer(b, types.OCILayer)
	}
	image := func(layers ...v1.Layer) v1.Image {
		img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
		img, err := mutate.AppendLayers(mutate.ConfigMediaType(img, types.OCIConfigJSON), layers...)
		if err == nil {
			var file *v1.ConfigFile
			if file, err = img.ConfigFile(); err == nil {
				file = file.DeepCopy()
				file.OS, file.Architecture = platform.OS, platform.Architecture
				img, err = mutate.ConfigFile(img, file)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	s := &scenario{
		base: image(layer(1000+seed), layer(3000)), old: image(layer(500)),
		repos: []string{"team/app", "mirror/app"}[:1+seed%2], replaces: seed%3 > 0, large: seed%4 == 0,
	}
	s.layers = []v1.Layer{layer(200), layer(40_000 + seed)}
	if s.large {
		s.layers = append(s.layers, layer(1<<20+100_000))
	}
	return s
}

// store puts an image into the registry without its doing.
func (r *Registry) store(t *testing.T, repo, tag string, image v1.Image) {
	t.Helper()
	push := func(media types.MediaType, content []byte) {
		d := ociregistry.Descriptor{MediaType: string(media), Digest: digest.FromBytes(content), Size: int64(len(content))}
		if _, err := r.Backend.PushBlob(t.Context(), repo, d, bytes.NewReader(content)); err != nil {
			t.Fatal(err)
		}
	}
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		push(types.OCILayer, content(t, l))
	}
	config, err := image.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	push(types.OCIConfigJSON, config)
	manifest, err := image.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Backend.PushManifest(t.Context(), repo, tag, manifest, string(types.OCIManifestSchema1)); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, l v1.Layer) []byte {
	t.Helper()
	rc, err := l.Compressed()
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(rc)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// clock passes when somebody waits.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	return context.Cause(ctx)
}

// outcome is what a build made of it.
type outcome struct {
	digest v1.Hash
	err    error
	moved  []string // by its own account, or all destinations
}

// build is the part of a build that talks to a registry.
func (s *scenario) build(t *testing.T, r *Registry, timing registry.Timing) outcome {
	t.Helper()
	c := &clock{now: time.Unix(1_700_000_000, 0)}
	client, err := registry.New(registry.Options{
		AuthJSON: fmt.Appendf(nil, `{"auths":{%q:{"username":%q,"password":%q}}}`, r.Host, User, Password),
		Timing:   timing, Clock: registry.Clock{Now: c.Now, Sleep: c.Sleep},
		Proxy: func(*http.Request) (*url.URL, error) { return nil, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx := t.Context()
	base, err := client.Resolve(ctx, r.Host+"/base:1", platform)
	if err != nil {
		return outcome{err: err}
	}
	layers, err := base.Layers()
	if err != nil {
		return outcome{err: err}
	}
	want, err := s.base.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range layers {
		got, err := read(l)
		if err != nil {
			return outcome{err: err}
		}
		if !bytes.Equal(got, content(t, want[i])) {
			t.Errorf("layer %d of the base was read wrongly and without an error", i)
		}
	}
	image, err := mutate.AppendLayers(base.Image, s.layers...)
	if err != nil {
		return outcome{err: err}
	}
	dests := make([]string, len(s.repos))
	for i, repo := range s.repos {
		dests[i] = r.Host + "/" + repo + ":1"
	}
	for _, l := range s.layers {
		if err := client.Upload(ctx, dests[0], l); err != nil {
			return outcome{err: err}
		}
	}
	result, err := client.Publish(ctx, dests, image)
	o := outcome{digest: result.Digest, err: err}
	var failed *registry.Error
	if errors.As(err, &failed) {
		o.moved = failed.Moved
	}
	return o
}

func read(l v1.Layer) ([]byte, error) {
	rc, err := l.Compressed()
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(rc)
	return b, errors.Join(err, rc.Close())
}

// complete looks at what is stored, past the registry: everything that the tag means, byte for byte.
func (r *Registry) complete(ctx context.Context, repo string, want v1.Hash) error {
	got, err := r.Backend.ResolveTag(ctx, repo, "1")
	if err != nil {
		return err
	}
	if string(got.Digest) != want.String() {
		return fmt.Errorf("the tag has %s", got.Digest)
	}
	blob := func(open func(context.Context, string, ociregistry.Digest) (ociregistry.BlobReader, error), d string) ([]byte, error) {
		rc, err := open(ctx, repo, ociregistry.Digest(d))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", d, err)
		}
		b, err := io.ReadAll(rc)
		if err == nil && digest.FromBytes(b).String() != d {
			err = errors.New("it is something else")
		}
		return b, errors.Join(err, rc.Close())
	}
	raw, err := blob(r.Backend.GetManifest, want.String())
	if err != nil {
		return err
	}
	manifest, err := v1.ParseManifest(bytes.NewReader(raw))
	if err != nil {
		return err
	}
	for _, d := range append(slices.Clone(manifest.Layers), manifest.Config) {
		if _, err := blob(r.Backend.GetBlob, d.Digest.String()); err != nil {
			return err
		}
	}
	return nil
}

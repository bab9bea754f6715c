// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"go.uber.org/zap"
)

// Image is one platform's image in a registry. Its layers are fetched when they
// are read, verified to true EOF, until the client is closed; use
// [Image.WithContext] to tie reading to a context.
type Image struct {
	v1.Image
	Ref    name.Reference // as asked for, also when a mirror answered
	Digest v1.Hash        // of the platform's manifest

	core   imageCore
	layers []layer
}

// WithContext returns the same image with layers that are read under ctx.
func (i *Image) WithContext(ctx context.Context) (v1.Image, error) {
	core := i.core
	core.ctx = ctx
	return partial.CompressedToImage(core)
}

// imageCore is what ggcr needs to make a v1.Image.
type imageCore struct {
	ctx       context.Context //nolint:containedctx // v1.Layer knows no context
	raw       []byte
	config    []byte
	mediaType types.MediaType
	layers    []layer
}

func (c imageCore) RawManifest() ([]byte, error)        { return c.raw, nil }
func (c imageCore) RawConfigFile() ([]byte, error)      { return c.config, nil }
func (c imageCore) MediaType() (types.MediaType, error) { return c.mediaType, nil }

// LayerByDigest returns the layer with a digest.
func (c imageCore) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	for _, l := range c.layers {
		if l.desc.Digest == h {
			l.ctx = c.ctx
			return l, nil
		}
	}
	return nil, fmt.Errorf("no layer %s in the image", h)
}

// layer is one layer in a registry.
type layer struct {
	client *Client
	ctx    context.Context //nolint:containedctx // v1.Layer knows no context
	at     *session
	ref    string
	desc   v1.Descriptor
	diffID v1.Hash
}

func (l layer) Digest() (v1.Hash, error)            { return l.desc.Digest, nil }
func (l layer) DiffID() (v1.Hash, error)            { return l.diffID, nil }
func (l layer) Size() (int64, error)                { return l.desc.Size, nil }
func (l layer) MediaType() (types.MediaType, error) { return l.desc.MediaType, nil }
func (l layer) Descriptor() (*v1.Descriptor, error) { d := l.desc; return &d, nil }
func (l layer) Compressed() (io.ReadCloser, error) {
	return l.client.openBlob(l.ctx, l.at, l.ref, l.desc)
}

// AnyPlatform is what an image is resolved for whose platform is not known before; it cannot choose from an index.
//
//nolint:gochecknoglobals // a constant, if structs could be
var AnyPlatform = v1.Platform{OS: "any"}

// newImage checks a manifest and fetches its config.
func (c *Client) newImage(ctx context.Context, written string, ref name.Reference, m *fetched, want v1.Platform) (*Image, error) {
	manifest, config, raw, err := checkImage(m.raw, m.mediaType, func(d v1.Descriptor) ([]byte, error) {
		return c.fetchConfig(ctx, m.session, d)
	})
	if err != nil {
		return nil, err
	}
	other := (config.OS != "" && config.OS != want.OS) || (config.Architecture != "" && config.Architecture != want.Architecture)
	if other && want.OS != AnyPlatform.OS {
		// Like docker build: whoever names a single-platform image by tag or digest gets it.
		c.log.Warn(fmt.Sprintf("%s is for %s/%s, not for %s/%s", written, escape(config.OS), escape(config.Architecture), want.OS, want.Architecture))
	}
	img := &Image{Ref: ref, Digest: m.digest}
	for i, d := range manifest.Layers {
		img.layers = append(img.layers, layer{client: c, ctx: c.ctx, at: m.session, ref: written, desc: d, diffID: config.RootFS.DiffIDs[i]})
	}
	img.core = imageCore{ctx: c.ctx, raw: m.raw, config: raw, mediaType: m.mediaType, layers: img.layers}
	img.Image, err = partial.CompressedToImage(img.core)
	if err != nil {
		return nil, err
	}
	c.log.Debug("resolved", zap.String("ref", written), zap.Stringer("digest", m.digest), zap.String("from", m.session.repo.Name()))
	return img, nil
}

// checkImage reads a manifest and the config that it names, and refuses what we could not build on.
func checkImage(raw []byte, mediaType types.MediaType, fetchConfig func(v1.Descriptor) ([]byte, error)) (*v1.Manifest, *v1.ConfigFile, []byte, error) {
	if err := refuseType(mediaType); err != nil {
		return nil, nil, nil, err
	}
	manifest, err := v1.ParseManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, nil, nil, unsupported("the manifest is not valid JSON")
	}
	if err := checkManifest(manifest); err != nil {
		return nil, nil, nil, err
	}
	rawConfig, err := fetchConfig(manifest.Config)
	if err != nil {
		return nil, nil, nil, err
	}
	config, err := v1.ParseConfigFile(bytes.NewReader(rawConfig))
	if err != nil {
		return nil, nil, nil, unsupported("the image config is not valid JSON")
	}
	if config.OS == "windows" {
		return nil, nil, nil, unsupported("a Windows image")
	}
	if len(config.RootFS.DiffIDs) != len(manifest.Layers) {
		return nil, nil, nil, integrity("the manifest has %d layers, the config %d diffIDs", len(manifest.Layers), len(config.RootFS.DiffIDs))
	}
	return manifest, config, rawConfig, nil
}

// refuseType refuses what is not an image manifest of version 2.
func refuseType(t types.MediaType) error {
	switch {
	case t.IsImage():
		return nil
	case t.IsSchema1():
		return unsupported("a schema 1 manifest, deprecated since 2017; push the image again with a newer tool")
	case t.IsIndex():
		return unsupported("an index inside an index")
	}
	return unsupported("the media type %q is not an image's", escape(string(t)))
}

// dockerLayerZstd is written by some tools and read by containerd; ggcr has no name for it.
const dockerLayerZstd = "application/vnd.docker.image.rootfs.diff.tar.zstd"

// checkManifest refuses what we could not build on, by name.
func checkManifest(m *v1.Manifest) error {
	if !m.Config.MediaType.IsConfig() {
		return unsupported("an artifact of type %q, not an image", escape(string(m.Config.MediaType)))
	}
	if len(m.Layers) > maxLayers {
		return unsupported("more than %d layers", maxLayers)
	}
	for i, d := range m.Layers {
		if why := unusable(d); why != "" {
			return unsupported("layer %d of %d (%s) %s", i+1, len(m.Layers), d.Digest, why)
		}
	}
	return nil
}

// unusable says why a layer cannot be built on, and nothing of others.
func unusable(d v1.Descriptor) string {
	mt := string(d.MediaType)
	switch {
	case len(d.URLs) > 0:
		return fmt.Sprintf("is foreign: its content is not in the registry but at %s", escape(d.URLs[0]))
	case !d.MediaType.IsDistributable():
		return "is foreign: it must not be distributed, so an image on it could not be pushed"
	case strings.HasSuffix(mt, "+encrypted"):
		return "is encrypted: it cannot be read without its key"
	case !d.MediaType.IsLayer() && mt != dockerLayerZstd:
		return fmt.Sprintf("has the media type %q, which is not one of a layer", escape(mt))
	case d.Size < 0:
		return "has a negative size"
	}
	return ""
}

// fetchConfig reads the image config and verifies size and digest.
func (c *Client) fetchConfig(ctx context.Context, s *session, d v1.Descriptor) ([]byte, error) {
	if d.Size > maxConfig || d.Size < 0 {
		return nil, unsupported("the image config is larger than %d MiB", maxConfig>>20)
	}
	// The manifest may have the bytes itself.
	if got, err := hashBytes(d.Digest.Algorithm, d.Data); err == nil && d.Size > 0 && got == d.Digest && int64(len(d.Data)) == d.Size {
		return d.Data, nil
	}
	raw, _, err := s.read(ctx, s.url("blobs", d.Digest.String()), nil, maxConfig, "image config", nil)
	if err != nil {
		return nil, err
	}
	return raw, checkBytes("image config", raw, d)
}

// checkBytes holds what was read to its descriptor.
func checkBytes(what string, raw []byte, d v1.Descriptor) error {
	got, err := hashBytes(d.Digest.Algorithm, raw)
	if err != nil {
		return err
	}
	if got != d.Digest || int64(len(raw)) != d.Size {
		return integrity("the %s is %s (%d bytes) instead of %s (%d bytes)", what, got, len(raw), d.Digest, d.Size)
	}
	return nil
}

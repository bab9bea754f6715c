// SPDX-License-Identifier: Apache-2.0

// Package image puts an image together: configuration, history and manifest, out of
// what the plan says and the layers that were made. It knows nothing of
// registries or of how a layer came to be.
package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// historyComment marks entries as BuildKit marks its own, which tools look for.
const historyComment = "buildkit.dockerfile.v0"

// Step is an instruction's part in the history.
type Step struct {
	CreatedBy string
	// Layer is nil for an instruction that made none.
	Layer v1.Layer
	// Created is when the layer was made.
	Created time.Time
}

// Spec is what an image is made of.
type Spec struct {
	// Config is the configuration after the last instruction; its history and layers are the base's.
	Config dockerspec.DockerOCIImage
	// Base are the base's layers, in order.
	Base  []v1.Layer
	Steps []Step
	// Epoch, if set, is every new time.
	Epoch *time.Time
	// Docker asks for Docker's media types instead of OCI's.
	Docker bool
	// Annotations of the manifest.
	Annotations map[string]string
}

// New makes the image. It is complete: every digest is known and nothing is computed later.
func New(s Spec) (v1.Image, error) {
	layers, err := s.layers()
	if err != nil {
		return nil, err
	}
	config, err := s.config(layers)
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("image configuration: %w", err)
	}
	img := &built{config: raw, layers: layers, docker: s.Docker, annotations: s.Annotations}
	if err := img.makeManifest(); err != nil {
		return nil, err
	}
	return partial.CompressedToImage(img)
}

func (s Spec) layers() ([]v1.Layer, error) {
	layers := append([]v1.Layer(nil), s.Base...)
	if base := len(s.Config.RootFS.DiffIDs); base != len(s.Base) {
		return nil, fmt.Errorf("base image: %d layers, but its configuration lists %d", len(s.Base), base)
	}
	for _, st := range s.Steps {
		if st.Layer != nil {
			layers = append(layers, st.Layer)
		}
	}
	return layers, nil
}

func (s Spec) config(layers []v1.Layer) (*dockerspec.DockerOCIImage, error) {
	config := s.Config
	config.RootFS = ocispec.RootFS{Type: "layers"}
	for _, l := range layers {
		id, err := l.DiffID()
		if err != nil {
			return nil, err
		}
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.Digest(id.String()))
	}
	config.History = s.history()
	config.Created = nil
	for _, h := range config.History {
		if h.Created != nil {
			config.Created = h.Created
		}
	}
	return &config, nil
}

// history is the base's and our own. An entry without a time of its own has that of the layer before it, or of the first
// new one if there is none before; where no layer has a time, none has.
func (s Spec) history() []ocispec.History {
	out := append([]ocispec.History(nil), s.Config.History...)
	for _, st := range s.Steps {
		if st.CreatedBy == "" {
			continue
		}
		h := ocispec.History{CreatedBy: st.CreatedBy, Comment: historyComment, EmptyLayer: st.Layer == nil}
		switch {
		case s.Epoch != nil:
			h.Created = utc(*s.Epoch)
		case st.Layer != nil:
			h.Created = utc(st.Created)
		}
		out = append(out, h)
	}
	// The time before the first entry that lacks one, or else after it.
	var at *time.Time
	lacking := false
	for _, h := range out {
		if h.Created == nil {
			lacking = true
			continue
		}
		at = h.Created
		if lacking {
			break
		}
	}
	lacking = false
	for i, h := range out {
		switch {
		case h.Created == nil:
			lacking = true
			out[i].Created = at
		case lacking:
			at = h.Created
		}
	}
	return out
}

func utc(t time.Time) *time.Time {
	t = t.UTC()
	return &t
}

// built implements partial.CompressedImageCore.
type built struct {
	config, manifest []byte
	layers           []v1.Layer
	docker           bool
	annotations      map[string]string
}

func (b *built) makeManifest() error {
	configHash, configSize, err := v1.SHA256(bytes.NewReader(b.config))
	if err != nil {
		return err
	}
	m := v1.Manifest{
		SchemaVersion: 2,
		MediaType:     types.OCIManifestSchema1,
		Config:        v1.Descriptor{MediaType: types.OCIConfigJSON, Digest: configHash, Size: configSize},
		Layers:        []v1.Descriptor{},
		Annotations:   b.annotations,
	}
	if b.docker {
		m.MediaType, m.Config.MediaType = types.DockerManifestSchema2, types.DockerConfigJSON
	}
	for _, l := range b.layers {
		d, err := partial.Descriptor(l)
		if err != nil {
			return err
		}
		mediaType, err := convert(d.MediaType, b.docker)
		if err != nil {
			return err
		}
		m.Layers = append(m.Layers, v1.Descriptor{MediaType: mediaType, Digest: d.Digest, Size: d.Size})
	}
	b.manifest, err = json.Marshal(m)
	return err
}

// convert gives a layer's media type the family of the image, so that one manifest never mixes two. The bytes are the same.
func convert(t types.MediaType, docker bool) (types.MediaType, error) {
	pairs := []struct{ oci, docker types.MediaType }{
		{types.OCILayer, types.DockerLayer},
		{types.OCIUncompressedLayer, types.DockerUncompressedLayer},
	}
	for _, p := range pairs {
		if t == p.oci || t == p.docker {
			if docker {
				return p.docker, nil
			}
			return p.oci, nil
		}
	}
	if t == types.OCILayerZStd {
		if docker {
			return "", errors.New("a layer is compressed with zstd, for which Docker's media types have no name: set KANIKO_IMAGE_FORMAT=oci")
		}
		return t, nil
	}
	return "", fmt.Errorf("layers of type %s are not supported", t)
}

// RawConfigFile implements partial.CompressedImageCore.
func (b *built) RawConfigFile() ([]byte, error) { return b.config, nil }

// RawManifest implements partial.CompressedImageCore.
func (b *built) RawManifest() ([]byte, error) { return b.manifest, nil }

// MediaType implements partial.CompressedImageCore.
func (b *built) MediaType() (types.MediaType, error) {
	if b.docker {
		return types.DockerManifestSchema2, nil
	}
	return types.OCIManifestSchema1, nil
}

// LayerByDigest implements partial.CompressedImageCore.
func (b *built) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	for _, l := range b.layers {
		d, err := l.Digest()
		if err != nil {
			return nil, err
		}
		if d == h {
			return l, nil
		}
	}
	return nil, fmt.Errorf("no layer has digest %s", h)
}

// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/types"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/containerd/platforms"

	"github.com/kaniko-go/kaniko-go/builder/internal/layer"
	"github.com/kaniko-go/kaniko-go/builder/internal/plan"
)

// resolveLayout finds an image in an OCI image layout: at is DIR@DIGEST, or DIR:TAG for one that the layout's index names so. An
// index leads to the platform's image. What is not layers is checked against its digest here, layers when they are read.
func (m *images) resolveLayout(_ context.Context, at string, platform ocispec.Platform) (*plan.Image, error) {
	p, h, err := findInLayout(at)
	if err != nil {
		return nil, &setupError{fmt.Errorf("oci-layout://%s: %w", at, err)}
	}
	img, err := imageInLayout(p, h, platform)
	if err != nil {
		return nil, fmt.Errorf("oci-layout://%s: %w", at, err)
	}
	return m.add(origin{img, "oci-layout://" + at, func(context.Context) (v1.Image, error) { return img, nil }})
}

func findInLayout(at string) (layout.Path, v1.Hash, error) {
	if dir, digest, ok := strings.Cut(at, "@"); ok {
		h, err := v1.NewHash(digest)
		if err != nil {
			return "", v1.Hash{}, err
		}
		p, err := layout.FromPath(dir)
		return p, h, err
	}
	colon := strings.LastIndexByte(at, ':')
	if colon < 0 {
		return "", v1.Hash{}, errors.New("needs a digest or a tag: oci-layout://DIR@sha256:... or oci-layout://DIR:TAG")
	}
	dir, tag := at[:colon], at[colon+1:]
	p, err := layout.FromPath(dir)
	if err != nil {
		return "", v1.Hash{}, err
	}
	idx, err := p.ImageIndex()
	if err != nil {
		return "", v1.Hash{}, err
	}
	m, err := idx.IndexManifest()
	if err != nil {
		return "", v1.Hash{}, err
	}
	for _, d := range m.Manifests {
		// Some tools write the tag alone, others, this one too, the whole reference.
		name := d.Annotations["org.opencontainers.image.ref.name"]
		if name == tag || strings.HasSuffix(name, ":"+tag) {
			return p, d.Digest, nil
		}
	}
	return "", v1.Hash{}, fmt.Errorf("no image has the tag %s", tag)
}

func imageInLayout(p layout.Path, h v1.Hash, platform ocispec.Platform) (v1.Image, error) {
	raw, err := p.Bytes(h)
	if err != nil {
		return nil, &setupError{err}
	}
	if err := verify(raw, h); err != nil {
		return nil, err
	}
	m, err := v1.ParseIndexManifest(bytes.NewReader(raw))
	if err == nil && (m.MediaType.IsIndex() || len(m.Manifests) > 0) {
		return imageOfIndex(p, m, platform)
	}
	man, err := v1.ParseManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", layer.ErrIntegrity, err)
	}
	config, err := p.Bytes(man.Config.Digest)
	if err != nil {
		return nil, &setupError{err}
	}
	if err := verify(config, man.Config.Digest); err != nil {
		return nil, err
	}
	for _, l := range man.Layers {
		if l.MediaType != types.OCILayer && l.MediaType != types.DockerLayer && l.MediaType != types.OCILayerZStd && l.MediaType != types.OCIUncompressedLayer && l.MediaType != types.DockerUncompressedLayer {
			return nil, fmt.Errorf("layers of type %s are not supported", l.MediaType)
		}
	}
	return p.Image(h)
}

func imageOfIndex(p layout.Path, m *v1.IndexManifest, platform ocispec.Platform) (v1.Image, error) {
	match := platforms.Only(platform)
	var best *v1.Descriptor
	var have []string
	of := func(d v1.Descriptor) ocispec.Platform {
		return ocispec.Platform{OS: d.Platform.OS, Architecture: d.Platform.Architecture, Variant: d.Platform.Variant}
	}
	for _, d := range m.Manifests {
		if d.Platform == nil || !d.MediaType.IsImage() {
			continue
		}
		have = append(have, platforms.Format(of(d)))
		if match.Match(of(d)) && (best == nil || match.Less(of(d), of(*best))) {
			best = &d
		}
	}
	if best == nil {
		return nil, fmt.Errorf("no image for %s, only for %s", platforms.Format(platform), strings.Join(have, ", "))
	}
	return imageInLayout(p, best.Digest, platform)
}

func verify(b []byte, want v1.Hash) error {
	got, _, err := v1.SHA256(bytes.NewReader(b))
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("%w: %s has digest %s", layer.ErrIntegrity, want, got)
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kaniko-go/kaniko-go/builder/internal/plan"
	"github.com/kaniko-go/kaniko-go/builder/registry"
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
		return nil, err
	}
	return m.add(origin{img, "oci-layout://" + at, func(context.Context) (v1.Image, error) { return img, nil }})
}

// openLayout opens an OCI image layout. Whoever made it may have put something else where files belong, such as a pipe, which
// would keep its reader for ever.
func openLayout(dir string) (layout.Path, error) {
	blobs, err := filepath.Glob(filepath.Join(dir, "blobs", "*", "*"))
	if err != nil {
		return "", err
	}
	for _, name := range append(blobs, filepath.Join(dir, "index.json"), filepath.Join(dir, "oci-layout")) {
		if fi, err := os.Stat(name); err == nil && !fi.Mode().IsRegular() {
			return "", fmt.Errorf("%s is no regular file", name)
		}
	}
	return layout.FromPath(dir)
}

func findInLayout(at string) (layout.Path, v1.Hash, error) {
	if dir, digest, ok := strings.Cut(at, "@"); ok {
		h, err := v1.NewHash(digest)
		if err != nil {
			return "", v1.Hash{}, err
		}
		p, err := openLayout(dir)
		return p, h, err
	}
	colon := strings.LastIndexByte(at, ':')
	if colon < 0 {
		return "", v1.Hash{}, errors.New("needs a digest or a tag: oci-layout://DIR@sha256:... or oci-layout://DIR:TAG")
	}
	dir, tag := at[:colon], at[colon+1:]
	p, err := openLayout(dir)
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

// imageInLayout is the image of a manifest or index in a layout. What is not layers is checked against its digest here, layers
// when they are read.
func imageInLayout(p layout.Path, h v1.Hash, platform ocispec.Platform) (v1.Image, error) {
	ref := fmt.Sprintf("oci-layout://%s@%s", p, h)
	return registry.Elsewhere(ref, h, registryPlatform(platform), func(h v1.Hash) (io.ReadCloser, error) {
		f, err := p.Blob(h)
		if err != nil {
			return nil, &setupError{fmt.Errorf("%s: %w", ref, err)}
		}
		return f, nil
	})
}

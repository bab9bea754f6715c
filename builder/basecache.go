// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/containerd/platforms"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kaniko-go/kaniko-go/builder/internal/layer"
	"github.com/kaniko-go/kaniko-go/builder/internal/progress"
	"github.com/kaniko-go/kaniko-go/builder/internal/store"
	"github.com/kaniko-go/kaniko-go/builder/registry"
)

// Annotations of the images in the base cache.
const (
	refNameAnnotation = "org.opencontainers.image.ref.name"
	// warmedAnnotation says when an image was asked for by name, and so may be used where its registry cannot be.
	warmedAnnotation = "io.kaniko-go.warmed"
)

// baseCache keeps layers of base images beyond the build, with their indexes. nil is none. Trouble with it is a warning.
type baseCache struct {
	*store.Shared
	log *progress.Log
}

// openBaseCache opens the directory of the base cache; nil for "".
func (b *Builder) openBaseCache(dir string) (*baseCache, error) {
	if dir == "" {
		return nil, nil //nolint:nilnil // as a baseCache says
	}
	s, err := store.OpenShared(dir)
	if err != nil {
		return nil, &environmentError{fmt.Errorf("KANIKO_CACHE_DIR: %w", err)}
	}
	return &baseCache{s, b.Log}, nil
}

// ingest is layer.Ingest with the base cache before it and after it.
func (c *baseCache) ingest(ctx context.Context, disk *store.Store, l v1.Layer, spool bool) (*layer.Ingested, error) {
	if c == nil {
		return layer.Ingest(ctx, disk, l, spool)
	}
	d, err := partial.Descriptor(l)
	if err != nil {
		return nil, err
	}
	if c.Has(*d) {
		in, err := layer.Ingest(ctx, disk, &keptLayer{l, c.Shared, d.Digest}, spool)
		if err == nil || ctx.Err() != nil {
			return in, err
		}
		c.log.Warn(fmt.Sprintf("the base cache has a damaged layer, downloading it again: %v", err))
		if !c.ReadOnly() {
			_ = c.Remove(d.Digest)
		}
	}
	in, err := layer.Ingest(ctx, disk, l, spool)
	if err == nil {
		c.keep(disk, in)
	}
	return in, err
}

// keep takes over a layer that was downloaded.
func (c *baseCache) keep(disk *store.Store, in *layer.Ingested) {
	if c.ReadOnly() {
		return
	}
	digest, err := in.Digest()
	if err == nil {
		err = c.Adopt(digest, disk.BlobPath(digest))
	}
	if index := in.IndexBlob(); err == nil && index != nil {
		var diffID v1.Hash
		if diffID, err = in.DiffID(); err == nil {
			err = c.AdoptLayerIndex(diffID, index.Digest, disk.BlobPath(index.Digest))
		}
	}
	if err != nil {
		c.log.Warn(fmt.Sprintf("base cache %s: a layer is not kept: %v", c.Dir(), err))
	}
}

// index opens a layer index, to be verified by whoever reads it; nil if there is none.
func (c *baseCache) index(diffID v1.Hash) (io.ReadCloser, v1.Hash, error) {
	if c == nil {
		return nil, v1.Hash{}, nil
	}
	f, d, err := c.LayerIndex(diffID)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, v1.Hash{}, nil
	}
	return f, d.Digest, err
}

func (c *baseCache) hasIndex(diffID v1.Hash) bool { return c != nil && c.HasLayerIndex(diffID) }

// forgetIndex removes a layer index that is damaged.
func (c *baseCache) forgetIndex(diffID v1.Hash, err error) {
	c.log.Warn(fmt.Sprintf("the base cache has a damaged layer index, reading the layer instead: %v", err))
	if !c.ReadOnly() {
		_ = c.RemoveLayerIndex(diffID)
	}
}

// keptLayer is a layer whose bytes are in the base cache.
type keptLayer struct {
	v1.Layer
	in     *store.Shared
	digest v1.Hash
}

// Compressed implements v1.Layer.
func (l *keptLayer) Compressed() (io.ReadCloser, error) { return l.in.Open(l.digest) }

// warmed finds an image that mode warm has fetched by that name.
func (c *baseCache) warmed(ref string, platform ocispec.Platform) (*origin, time.Time, error) {
	if c == nil {
		return nil, time.Time{}, nil
	}
	r, err := name.ParseReference(ref)
	if err != nil {
		return nil, time.Time{}, nil //nolint:nilerr // whoever resolves it says so
	}
	idx, err := c.Index()
	if err != nil {
		return nil, time.Time{}, err
	}
	for _, d := range idx.Manifests {
		if d.Annotations[refNameAnnotation] != r.Name() || d.Platform == nil {
			continue
		}
		at, err := time.Parse(time.RFC3339, d.Annotations[warmedAnnotation])
		if err != nil || !platforms.OnlyStrict(platform).Match(ocispec.Platform{OS: d.Platform.OS, Architecture: d.Platform.Architecture, Variant: d.Platform.Variant}) {
			continue
		}
		img, err := registry.Elsewhere(ref, d.Digest, registryPlatform(platform), func(h v1.Hash) (io.ReadCloser, error) { return c.Open(h) })
		if err != nil {
			return nil, at, err
		}
		full := r.Context().Digest(d.Digest.String()).String()
		return &origin{img, full, func(context.Context) (v1.Image, error) { return img, nil }}, at, nil
	}
	return nil, time.Time{}, nil
}

// keepImage makes a name lead to an image whose layers are here.
func (c *baseCache) keepImage(ref string, platform v1.Platform, img v1.Image) error {
	d, err := putDocuments(c.Shared, img)
	if err != nil {
		return err
	}
	d.Platform = &platform
	d.Annotations = map[string]string{refNameAnnotation: ref, warmedAnnotation: time.Now().UTC().Format(time.RFC3339)}
	return c.Update(func(idx *v1.IndexManifest) error {
		kept := idx.Manifests[:0:0]
		for _, old := range idx.Manifests {
			if old.Annotations[refNameAnnotation] != ref || old.Platform == nil || !old.Platform.Equals(platform) {
				kept = append(kept, old)
			}
		}
		idx.Manifests = append(kept, d)
		return nil
	})
}

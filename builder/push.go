// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sync/errgroup"

	"github.com/kaniko-go/kaniko-go/builder/internal/cache"
	"github.com/kaniko-go/kaniko-go/builder/internal/layer"
	"github.com/kaniko-go/kaniko-go/builder/internal/store"
)

// Push pushes what another build left in an OCI layout or a tarball, after every byte of it was checked against its digest: whoever made it
// is not trusted. Of several images in a layout it is the one that has the first destination's name.
func (b *Builder) Push(ctx context.Context, o Output, c CacheOptions) (*Result, error) {
	it, err := b.handedOver(o)
	if err != nil {
		return nil, err
	}
	if err := b.checkPush(ctx, o); err != nil {
		return nil, err
	}
	images, err := imagesOf(it)
	if err != nil {
		return nil, &setupError{err}
	}
	for _, img := range images {
		if err := verifyImage(ctx, img); err != nil {
			return nil, err
		}
	}
	digest, err := it.Digest()
	if err != nil {
		return nil, err
	}
	b.Log.Info(fmt.Sprintf("verified %s", digest))
	if _, err := b.Registry.Publish(ctx, o.Destinations, it); err != nil {
		return nil, err
	}
	for _, d := range o.Destinations {
		b.Log.Info("pushed " + d)
	}
	b.pushRecords(ctx, c)
	return &Result{Digest: digest, Destinations: o.Destinations}, nil
}

// pushRecords copies what the build has put into the layer cache's directories to its registries. Trouble is a warning.
func (b *Builder) pushRecords(ctx context.Context, c CacheOptions) {
	oldest := time.Time{}
	if c.TTL > 0 {
		oldest = time.Now().Add(-c.TTL)
	}
	for _, from := range c.Repos {
		dir, local := cache.Directory(from)
		if !local || c.ReadOnly {
			continue
		}
		shared, err := store.OpenShared(dir)
		if err != nil {
			b.Log.Warn(fmt.Sprintf("cache %s: %v", from, err))
			continue
		}
		for _, to := range c.Repos {
			if _, local := cache.Directory(to); local {
				continue
			}
			n, err := cache.Export(ctx, shared, b.Registry, to, oldest)
			if err != nil && ctx.Err() == nil {
				b.Log.Warn(fmt.Sprintf("cache %s cannot be written: %v", to, err))
				continue
			}
			b.Log.Info(fmt.Sprintf("layer cache: %d layers from %s to %s", n, dir, to))
		}
	}
}

// handedOver opens the image or index that is to be pushed.
func (b *Builder) handedOver(o Output) (artifact, error) {
	if o.Layout == "" {
		img, err := tarball.ImageFromPath(o.Tarball, nil)
		if err != nil {
			return nil, &setupError{fmt.Errorf("tarball %s: %w", o.Tarball, err)}
		}
		return img, nil
	}
	it, err := fromLayout(o.Layout, o.Destinations[0])
	if err != nil {
		return nil, &setupError{fmt.Errorf("OCI layout %s: %w", o.Layout, err)}
	}
	return it, nil
}

func fromLayout(dir, dest string) (artifact, error) {
	p, err := openLayout(dir)
	if err != nil {
		return nil, err
	}
	idx, err := p.ImageIndex()
	if err != nil {
		return nil, err
	}
	m, err := idx.IndexManifest()
	if err != nil {
		return nil, err
	}
	var found []v1.Descriptor
	for _, d := range m.Manifests {
		if d.Annotations[refNameAnnotation] == dest {
			found = []v1.Descriptor{d}
			break
		}
		found = append(found, d)
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("it has %d images, and none is called %s", len(found), dest)
	}
	if found[0].MediaType.IsIndex() {
		return idx.ImageIndex(found[0].Digest)
	}
	return idx.Image(found[0].Digest)
}

// imagesOf are the images of an index, or the one.
func imagesOf(it artifact) ([]v1.Image, error) {
	if img, ok := it.(v1.Image); ok {
		return []v1.Image{img}, nil
	}
	idx, ok := it.(v1.ImageIndex)
	if !ok {
		return nil, errors.New("neither an image nor an index")
	}
	if err := verifyRaw(idx); err != nil {
		return nil, err
	}
	m, err := idx.IndexManifest()
	if err != nil {
		return nil, err
	}
	var out []v1.Image
	for _, d := range m.Manifests {
		if !d.MediaType.IsImage() {
			return nil, fmt.Errorf("the index has an entry of type %s", d.MediaType)
		}
		img, err := idx.Image(d.Digest)
		if err != nil {
			return nil, err
		}
		if got, err := img.Digest(); err != nil || got != d.Digest {
			return nil, fmt.Errorf("%w: manifest %s has digest %s", layer.ErrIntegrity, d.Digest, got)
		}
		out = append(out, img)
	}
	return out, nil
}

func verifyRaw(it artifact) error {
	raw, err := it.RawManifest()
	if err != nil {
		return err
	}
	digest, err := it.Digest()
	if err != nil {
		return err
	}
	return verifyBytes(raw, digest)
}

// verifyImage checks everything of an image to its true end.
func verifyImage(ctx context.Context, img v1.Image) error {
	if err := verifyRaw(img); err != nil {
		return err
	}
	m, err := img.Manifest()
	if err != nil {
		return &setupError{err}
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return &setupError{err}
	}
	if err := verifyBytes(config, m.Config.Digest); err != nil {
		return err
	}
	parsed, err := img.ConfigFile()
	if err != nil {
		return &setupError{err}
	}
	if len(parsed.RootFS.DiffIDs) != len(m.Layers) {
		return fmt.Errorf("%w: %d layers, and %d in the configuration", layer.ErrIntegrity, len(m.Layers), len(parsed.RootFS.DiffIDs))
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(pullsAtOnce)
	for i, d := range m.Layers {
		g.Go(func() error {
			l, err := img.LayerByDigest(d.Digest)
			if err != nil {
				return &setupError{err}
			}
			err = layer.Verify(ctx, l, d, parsed.RootFS.DiffIDs[i])
			if err != nil && !errors.Is(err, layer.ErrIntegrity) && ctx.Err() == nil {
				return &setupError{err}
			}
			return err
		})
	}
	return g.Wait()
}

// verifyBytes compares a small blob with its digest.
func verifyBytes(b []byte, want v1.Hash) error {
	got, _, err := v1.SHA256(bytes.NewReader(b))
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("%w: %s has digest %s", layer.ErrIntegrity, want, got)
	}
	return nil
}

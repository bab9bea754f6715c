// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"fmt"

	"github.com/containerd/platforms"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/kaniko-go/kaniko-go/builder/registry"
)

// Index puts images of several platforms, which other builds have pushed, under one digest and pushes that to every destination. The images
// are named by digest, for a tag may have moved since. Two of one platform are refused, as is what is no image. What a destination's
// repository lacks of them is mounted or copied.
func (b *Builder) Index(ctx context.Context, o Output, refs []string) (*Result, error) {
	if err := b.checkPush(ctx, o); err != nil {
		return nil, err
	}
	images := make([]platformImage, len(refs))
	g, pulling := errgroup.WithContext(ctx)
	for i, ref := range refs {
		g.Go(func() (err error) {
			images[i], err = b.platformImage(pulling, ctx, ref)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	seen := map[string]string{}
	for i, img := range images {
		p := platforms.FormatAll(img.platform)
		if other, twice := seen[p]; twice {
			return nil, &setupError{fmt.Errorf("KANIKO_IMAGE: %s and %s are both for %s", other, refs[i], p)}
		}
		seen[p] = refs[i]
		if err := sameFamily(images[0], img); err != nil {
			return nil, &setupError{fmt.Errorf("KANIKO_IMAGE: %s and %s: %w", refs[0], refs[i], err)}
		}
	}
	mediaType, err := images[0].MediaType()
	if err != nil {
		return nil, err
	}
	o.Docker = mediaType == types.DockerManifestSchema2
	return b.publish(ctx, o, images, true)
}

// platformImage finds one image; it is read under whole.
func (b *Builder) platformImage(ctx, whole context.Context, ref string) (platformImage, error) {
	if _, err := name.NewDigest(ref); err != nil {
		return platformImage{}, &setupError{fmt.Errorf("KANIKO_IMAGE=%s: not an image by digest, REPOSITORY@sha256:...: a tag may have moved since the image was built", ref)}
	}
	found, err := b.Registry.Resolve(ctx, ref, registry.AnyPlatform)
	if err != nil {
		return platformImage{}, err
	}
	img, err := found.WithContext(whole)
	if err != nil {
		return platformImage{}, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return platformImage{}, err
	}
	if config.OS == "" || config.Architecture == "" {
		return platformImage{}, &setupError{fmt.Errorf("KANIKO_IMAGE=%s: the image does not say what platform it is for", ref)}
	}
	return platformImage{img, platforms.Normalize(ocispec.Platform{
		OS: config.OS, Architecture: config.Architecture, Variant: config.Variant, OSVersion: config.OSVersion,
	})}, nil
}

// sameFamily refuses to mix Docker's and OCI's media types in one index, which some clients cannot read.
func sameFamily(a, b v1.Image) error {
	of := func(i v1.Image) (types.MediaType, error) { return i.MediaType() }
	x, err := of(a)
	if err != nil {
		return err
	}
	y, err := of(b)
	if err != nil {
		return err
	}
	if x != y {
		return fmt.Errorf("one is of type %s, the other of type %s: build both with the same KANIKO_IMAGE_FORMAT", x, y)
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/platforms"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/kaniko-go/kaniko-go/builder/internal/progress"
	"github.com/kaniko-go/kaniko-go/builder/internal/store"
)

// platformImage is an image and what it runs on.
type platformImage struct {
	v1.Image
	platform ocispec.Platform
}

// artifact is what is published: an image, or an index of several.
type artifact interface {
	partial.Describable
	RawManifest() ([]byte, error)
}

// publish hands the image, or an index, to all outputs: files first, since a failed build must not have moved a tag.
func (b *Builder) publish(ctx context.Context, o Output, images []platformImage, indexed bool) (*Result, error) {
	var it artifact = images[0].Image
	if indexed {
		it = index(images, o.Docker)
	}
	digest, err := it.Digest()
	if err != nil {
		return nil, err
	}
	if o.Layout != "" {
		if err := writeLayout(ctx, o, images, it); err != nil {
			return nil, &outputError{"KANIKO_OCI_LAYOUT_PATH", fmt.Errorf("OCI layout %s: %w", o.Layout, err)}
		}
		b.Log.Info(fmt.Sprintf("wrote OCI layout %s", o.Layout))
	}
	if o.Tarball != "" {
		if err := writeTarball(o, images[0].Image); err != nil {
			return nil, &outputError{"KANIKO_TAR_PATH", fmt.Errorf("tarball %s: %w", o.Tarball, err)}
		}
		b.Log.Info(fmt.Sprintf("wrote tarball %s", o.Tarball))
	}
	res := &Result{Digest: digest}
	if dests := o.pushes(); len(dests) > 0 {
		if _, err := b.Registry.Publish(ctx, dests, it); err != nil {
			return nil, err
		}
		res.Destinations = dests
	}
	return res, b.announce(images, indexed, res)
}

// probeFiles finds out by writing, before anything is built, whether the layout and the tarball can be written. It makes missing directories.
func (o Output) probeFiles() error {
	if o.Layout != "" {
		if err := probeDirectory(o.Layout); err != nil {
			return &outputError{"KANIKO_OCI_LAYOUT_PATH", fmt.Errorf("OCI layout %s cannot be written: %w", o.Layout, err)}
		}
	}
	if o.Tarball == "" {
		return nil
	}
	err := probeDirectory(filepath.Dir(o.Tarball))
	if info, statErr := os.Stat(o.Tarball); err == nil && statErr == nil && info.IsDir() {
		err = errors.New("it is a directory; give the name of a file")
	}
	if err != nil {
		return &outputError{"KANIKO_TAR_PATH", fmt.Errorf("tarball %s cannot be written: %w", o.Tarball, err)}
	}
	return nil
}

// probeDirectory makes a directory where there is none, and writes into it.
func probeDirectory(dir string) error {
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return fmt.Errorf("%s is not a directory", dir)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".kaniko-go-probe-")
	if err != nil {
		var at *os.PathError // with the name of a file that the reader has never heard of
		if errors.As(err, &at) {
			err = fmt.Errorf("directory %s: %w", dir, at.Err)
		}
		return err
	}
	// A full disk takes an empty file and no byte of content.
	_, err = f.WriteString("probe")
	return errors.Join(err, f.Close(), os.Remove(f.Name()))
}

// index puts the images of several platforms under one digest.
func index(images []platformImage, docker bool) v1.ImageIndex {
	mediaType := types.OCIImageIndex
	if docker {
		mediaType = types.DockerManifestList
	}
	idx := mutate.IndexMediaType(empty.Index, mediaType)
	for _, i := range images {
		p := registryPlatform(i.platform)
		p.OSFeatures = i.platform.OSFeatures
		idx = mutate.AppendManifests(idx, mutate.IndexAddendum{Add: i.Image, Descriptor: v1.Descriptor{Platform: &p}})
	}
	return idx
}

// announce says what was built.
func (b *Builder) announce(images []platformImage, indexed bool, res *Result) error {
	for _, i := range images {
		m, err := i.Manifest()
		if err != nil {
			return err
		}
		digest, err := i.Digest()
		if err != nil {
			return err
		}
		var size int64
		for _, l := range m.Layers {
			size += l.Size
		}
		of := ""
		if indexed {
			of = " for " + platforms.Format(i.platform)
		}
		b.Log.Info(fmt.Sprintf("image %s%s: %d layers, %s", digest, of, len(m.Layers), progress.Bytes(size)))
	}
	if indexed {
		b.Log.Info(fmt.Sprintf("index %s: %d platforms", res.Digest, len(images)))
	}
	for _, d := range res.Destinations {
		b.Log.Info("pushed " + d)
	}
	return nil
}

// writeLayout puts the image, or an index of the images, into an OCI layout, beside what is there already. An image of the same
// name is replaced. Whatever goes wrong on the way, what the layout had before is as it was.
func writeLayout(ctx context.Context, o Output, images []platformImage, it artifact) error {
	s, err := store.OpenShared(o.Layout)
	if err != nil {
		return err
	}
	if _, err := s.Index(); err != nil {
		return err // An Update would begin a new one.
	}
	for _, i := range images {
		if err := putImage(ctx, s, i); err != nil {
			return err
		}
	}
	d, err := putManifest(s, it)
	if err != nil {
		return err
	}
	if len(o.Destinations) > 0 {
		d.Annotations = map[string]string{refNameAnnotation: o.Destinations[0]}
	}
	return s.Update(func(idx *v1.IndexManifest) error {
		idx.Manifests = append(slices.DeleteFunc(idx.Manifests, func(old v1.Descriptor) bool {
			return old.Digest == d.Digest || len(o.Destinations) > 0 && old.Annotations[refNameAnnotation] == o.Destinations[0]
		}), d)
		return nil
	})
}

// putImage stores all that an image consists of.
func putImage(ctx context.Context, s *store.Shared, img v1.Image) error {
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(pullsAtOnce)
	for _, l := range layers {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return putLayer(s, l)
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	_, err = putDocuments(s, img)
	return err
}

// putDocuments stores what an image consists of besides its layers, and returns what leads to it.
func putDocuments(s *store.Shared, img v1.Image) (v1.Descriptor, error) {
	m, err := img.Manifest()
	if err != nil {
		return v1.Descriptor{}, err
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return v1.Descriptor{}, err
	}
	if err := s.Put(m.Config, bytes.NewReader(config)); err != nil {
		return v1.Descriptor{}, err
	}
	return putManifest(s, img)
}

func putLayer(s *store.Shared, l v1.Layer) error {
	d, err := partial.Descriptor(l)
	if err != nil {
		return err
	}
	if s.Has(*d) {
		return nil
	}
	r, err := l.Compressed()
	if err != nil {
		return err
	}
	return errors.Join(s.Put(*d, r), r.Close())
}

func putManifest(s *store.Shared, it artifact) (v1.Descriptor, error) {
	raw, err := it.RawManifest()
	if err != nil {
		return v1.Descriptor{}, err
	}
	d, err := partial.Descriptor(it)
	if err != nil {
		return v1.Descriptor{}, err
	}
	return *d, s.Put(*d, bytes.NewReader(raw))
}

// writeTarball writes the format of docker save, complete or not at all.
func writeTarball(o Output, img v1.Image) error {
	images := map[name.Tag]v1.Image{}
	for _, d := range o.Destinations {
		tag, err := name.NewTag(d)
		if err != nil {
			return err
		}
		images[tag] = img
	}
	if len(images) == 0 {
		tag, err := name.NewTag("image:latest")
		if err != nil {
			return err
		}
		images[tag] = img
	}
	f, err := os.CreateTemp(filepath.Dir(o.Tarball), "."+filepath.Base(o.Tarball)+"-")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	if err := tarball.MultiWrite(images, f); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := errors.Join(f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), o.Tarball)
}

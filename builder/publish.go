// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/platforms"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/match"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kaniko-go/kaniko-go/builder/internal/progress"
)

// platformImage is an image and what it runs on.
type platformImage struct {
	v1.Image
	platform ocispec.Platform
}

// artifact is what is published: an image, or an index of several.
type artifact interface {
	RawManifest() ([]byte, error)
	Digest() (v1.Hash, error)
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
		if err := writeLayout(o, it, digest); err != nil {
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

// writeLayout puts the image into an OCI layout, beside what is there already. An image of the same name is replaced.
func writeLayout(o Output, it artifact, digest v1.Hash) error {
	p, err := openLayout(o.Layout)
	if errors.Is(err, os.ErrNotExist) {
		p, err = layout.Write(o.Layout, empty.Index)
	}
	if err != nil {
		return err
	}
	annotations := map[string]string{}
	if len(o.Destinations) > 0 {
		annotations["org.opencontainers.image.ref.name"] = o.Destinations[0]
	}
	same := func(d v1.Descriptor) bool {
		return match.Digests(digest)(d) || len(annotations) > 0 && match.Annotation("org.opencontainers.image.ref.name", o.Destinations[0])(d)
	}
	if idx, ok := it.(v1.ImageIndex); ok {
		err = p.ReplaceIndex(idx, same, layout.WithAnnotations(annotations))
	} else if img, ok := it.(v1.Image); ok {
		err = p.ReplaceImage(img, same, layout.WithAnnotations(annotations))
	} else {
		err = fmt.Errorf("neither image nor index: %T", it)
	}
	return errors.Join(err, readable(o.Layout))
}

// readable lets the next step, which may be another user's, read the blobs of a layout.
func readable(dir string) error {
	blobs, err := filepath.Glob(filepath.Join(dir, "blobs", "*", "*"))
	if err != nil {
		return err
	}
	for _, name := range blobs {
		fi, err := os.Lstat(name)
		if err != nil || !fi.Mode().IsRegular() || fi.Mode()&0o444 == 0o444 {
			continue
		}
		// Those of an earlier image may be somebody else's, and are as they were.
		if err := os.Chmod(name, 0o644); err != nil && !errors.Is(err, os.ErrPermission) {
			return err
		}
	}
	return nil
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

// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"

	"github.com/kaniko-go/kaniko-go/builder/internal/store"
	"github.com/kaniko-go/kaniko-go/builder/registry"
)

// tagPrefix begins the tags of Sets.
const tagPrefix = "records-"

// Export copies the records of a directory that a registry does not have, with their layers, and returns how many there were. Records older than
// oldest stay where they are. It is for a build that itself may not write to the registry.
func Export(ctx context.Context, from *store.Shared, client *registry.Client, to string, oldest time.Time) (int, error) {
	local, remote := &layoutRepository{from}, &registryRepository{client, to}
	idx, err := from.Index()
	if err != nil {
		return 0, err
	}
	copied := 0
	for _, d := range idx.Manifests {
		tag := d.Annotations[refAnnotation]
		if !strings.HasPrefix(tag, tagPrefix) {
			continue
		}
		l, err := local.Load(ctx, tag)
		if err != nil || l == nil {
			return copied, err
		}
		n, err := export(ctx, l, remote, tag, oldest)
		copied += n
		if err != nil {
			return copied, err
		}
	}
	return copied, nil
}

func export(ctx context.Context, l *Loaded, to *registryRepository, tag string, oldest time.Time) (int, error) {
	have := map[string]bool{}
	there, err := to.Load(ctx, tag)
	if err != nil {
		return 0, err
	}
	if there != nil {
		for _, r := range there.Records {
			have[r.identity()] = true
		}
		for _, b := range there.Bases {
			have[b.DiffID.String()] = true
		}
	}
	add := &Set{About: l.About}
	for _, r := range l.Records {
		if have[r.identity()] || r.Created.Before(oldest) {
			continue
		}
		if err := copyRecord(ctx, l, to, r); err != nil {
			return 0, err
		}
		add.Records = append(add.Records, r)
	}
	for _, b := range l.Bases {
		if have[b.DiffID.String()] {
			continue
		}
		if err := copyBlob(ctx, l, to, b.Index); err != nil {
			return 0, err
		}
		add.Bases = append(add.Bases, b)
	}
	if len(add.Records)+len(add.Bases) == 0 {
		return 0, nil
	}
	return len(add.Records), to.Merge(ctx, tag, add, oldest)
}

func copyRecord(ctx context.Context, l *Loaded, to *registryRepository, r Record) error {
	if err := l.Sound(ctx, r.Layer); err != nil {
		return err
	}
	layer, err := l.Layer(ctx, r.Layer, r.DiffID)
	if err != nil {
		return err
	}
	if err := to.Put(ctx, layer, ""); err != nil || r.Index == nil {
		return err
	}
	return copyBlob(ctx, l, to, *r.Index)
}

// maxIndexCopy bounds a layer index that is copied, which is held in memory.
const maxIndexCopy = 256 << 20

func copyBlob(ctx context.Context, l *Loaded, to *registryRepository, d v1.Descriptor) error {
	if d.Size > maxIndexCopy {
		return errors.New("a layer index is too large to be copied")
	}
	r, err := openIndex(ctx, l, d)
	if err != nil {
		return err
	}
	b, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		return err
	}
	return to.Put(ctx, static.NewLayer(b, d.MediaType), "")
}

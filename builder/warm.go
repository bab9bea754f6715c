// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/kaniko-go/kaniko-go/builder/internal/cache"
	"github.com/kaniko-go/kaniko-go/builder/internal/layer"
	"github.com/kaniko-go/kaniko-go/builder/internal/plan"
	"github.com/kaniko-go/kaniko-go/builder/internal/progress"
	"github.com/kaniko-go/kaniko-go/builder/internal/store"
)

// Warm fetches images into the base cache: those named, or those that the Dockerfile needs. A build that then has no
// credentials for their registries finds them there. With a Dockerfile, layers that the layer cache has in a registry for this build are
// copied into its directories too.
func (b *Builder) Warm(ctx context.Context, r Request, images []string) (err error) {
	into, err := b.openBaseCache(r.Cache.Dir)
	if err != nil {
		return err
	}
	if into.ReadOnly() {
		return &environmentError{fmt.Errorf("KANIKO_CACHE_DIR: %s: %w", into.Dir(), store.ErrReadOnly)}
	}
	defer b.tidy(r.Cache, nil)
	if len(images) == 0 {
		return b.warmDockerfile(ctx, r, into)
	}
	disk, err := openStore(r)
	if err != nil {
		return &environmentError{err}
	}
	defer func() { err = errors.Join(err, disk.Close()) }()
	disk.Indexes = true
	w := &warmer{Builder: b, disk: disk, into: into}
	return w.images(ctx, images, r.Platforms)
}

// warmer is one Warm under way.
type warmer struct {
	*Builder
	disk *store.Store
	into *baseCache
}

func (w *warmer) images(ctx context.Context, refs []string, wanted []ocispec.Platform) error {
	if len(wanted) == 0 {
		wanted = []ocispec.Platform{localPlatform()}
	}
	for _, ref := range refs {
		for _, p := range wanted {
			if err := w.image(ctx, ref, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// image fetches one image.
func (w *warmer) image(ctx context.Context, ref string, platform ocispec.Platform) error {
	parsed, err := name.ParseReference(ref)
	if err != nil {
		return &setupError{fmt.Errorf("image %q: %w", ref, err)}
	}
	found, err := w.Registry.Resolve(ctx, ref, registryPlatform(platform))
	if err != nil {
		return err
	}
	img, err := found.WithContext(ctx)
	if err != nil {
		return err
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(pullsAtOnce)
	var size int64
	for _, l := range layers {
		n, err := l.Size()
		if err != nil {
			return err
		}
		size += n
		g.Go(func() error { return w.layer(ctx, l) })
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("image %s: %w", ref, err)
	}
	if err := w.into.keepImage(parsed.Name(), registryPlatform(platform), img); err != nil {
		return &environmentError{fmt.Errorf("KANIKO_CACHE_DIR: image %s: %w", ref, err)}
	}
	w.Log.Info(fmt.Sprintf("image %s, %s: %d layers, %s in %s", ref, found.Digest, len(layers), progress.Bytes(size), w.into.Dir()))
	return nil
}

// layer fetches one layer, unless all of it is there, and sound.
func (w *warmer) layer(ctx context.Context, l v1.Layer) error {
	in, err := w.into.ingest(ctx, w.disk, l, false)
	if err != nil {
		return err
	}
	// Also of one that was there, whose index may be missing.
	w.into.keep(w.disk, in)
	return nil
}

// warmDockerfile fetches what a Dockerfile needs.
func (b *Builder) warmDockerfile(ctx context.Context, r Request, into *baseCache) error {
	in, done, err := b.open(ctx, r)
	if err != nil {
		return err
	}
	defer done()
	in.disk.Indexes = true
	in.cache = b.openCache(r)
	w := &warmer{Builder: b, disk: in.disk, into: into}
	// The names as the Dockerfile has them are those that the build will ask for.
	type asked struct {
		ref      string
		platform ocispec.Platform
	}
	var (
		names []asked
		seen  = map[string]bool{}
	)
	for _, req := range planRequests(r, in) {
		resolve := req.Resolve
		req.Resolve = func(ctx context.Context, ref string, platform ocispec.Platform) (*plan.Image, error) {
			if key := ref + " " + registryPlatform(platform).String(); !seen[key] {
				seen[key] = true
				names = append(names, asked{ref, platform})
			}
			return resolve(ctx, ref, platform)
		}
		p, err := plan.New(ctx, in.file, req)
		if err != nil {
			return err
		}
		if err := w.records(ctx, r, p, in); err != nil {
			return err
		}
	}
	for _, n := range names {
		if err := w.image(ctx, n.ref, n.platform); err != nil {
			return err
		}
	}
	return nil
}

// records copies what the layer cache has for a build from registries into directories.
func (w *warmer) records(ctx context.Context, r Request, p *plan.Plan, in inputs) error {
	local, remote := false, false
	for _, repo := range r.Cache.Repos {
		_, dir := cache.Directory(repo)
		local, remote = local || dir, remote || !dir
	}
	if !local || !remote {
		return nil
	}
	x := newExecutor(ctx, w.Builder, Request{
		Output: Output{Compression: r.Output.Compression, Level: r.Output.Level}, Cache: r.Cache, Run: r.Run, IgnorePaths: r.IgnorePaths,
	}, p, in)
	if err := x.lookUp(ctx); err != nil {
		return err
	}
	n := 0
	for _, st := range p.Stages {
		for _, h := range x.stages[st].hits {
			if err := w.record(ctx, x, x.stages[st].tag(), h); err != nil {
				return err
			}
			n++
		}
	}
	in.cache.Flush(ctx)
	w.Log.Info(fmt.Sprintf("layer cache: %d layers of this build", n))
	return nil
}

// record copies one layer with its record.
func (w *warmer) record(ctx context.Context, x *executor, tag string, h *hit) error {
	if h.Local() {
		return nil
	}
	in, err := layer.Ingest(ctx, w.disk, h.layer, false)
	if err != nil {
		return err
	}
	digest, err := in.Digest()
	if err != nil {
		return err
	}
	rec := h.Record
	rec.Index = in.IndexBlob()
	x.cache.AddLocal(ctx, tag, cache.Set{Records: []cache.Record{rec}}, madeOf(w.disk, in.Layer, digest)...)
	return nil
}

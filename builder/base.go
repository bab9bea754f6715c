// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/platforms"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/kaniko-go/kaniko-go/builder/internal/layer"
	"github.com/kaniko-go/kaniko-go/builder/internal/plan"
	"github.com/kaniko-go/kaniko-go/builder/internal/store"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
	"github.com/kaniko-go/kaniko-go/builder/registry"
)

// pullsAtOnce bounds the layers that are downloaded and read at the same time.
const pullsAtOnce = 3

func localPlatform() ocispec.Platform { return platforms.Normalize(platforms.DefaultSpec()) }

func registryPlatform(p ocispec.Platform) v1.Platform {
	return v1.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion}
}

// images answers the plans' questions about images and remembers what it answered with. All plans of a build share it.
type images struct {
	registry *registry.Client
	mu       sync.Mutex
	found    map[*plan.Image]origin
	// bases are kept by reference with digest: two plans that begin with one image pull it once.
	bases map[string]*baseImage
	// kept is what outlives builds; nil for nothing.
	kept *baseCache
}

// origin is where an image comes from.
type origin struct {
	v1.Image
	name string
	// withContext gives the image with layers that are read under a context.
	withContext func(context.Context) (v1.Image, error)
}

func newImages(client *registry.Client) *images {
	return &images{registry: client, found: map[*plan.Image]origin{}, bases: map[string]*baseImage{}}
}

func (m *images) resolve(ctx context.Context, ref string, platform ocispec.Platform) (*plan.Image, error) {
	warm, at, warmErr := m.kept.warmed(ref, platform)
	if warmErr != nil {
		m.kept.log.Warn(fmt.Sprintf("base cache: image %s cannot be used: %v", ref, warmErr))
	}
	asking := ctx
	if warm != nil {
		asking = m.registry.Impatient(ctx)
	}
	img, err := m.registry.Resolve(asking, ref, registryPlatform(platform))
	if err != nil && warm != nil && ctx.Err() == nil {
		m.kept.log.Info(fmt.Sprintf("using %s as fetched on %s into the base cache: %v", warm.name, at.Format(time.RFC3339), err))
		return m.add(*warm)
	}
	if err != nil {
		return nil, err
	}
	name := img.Ref.Context().Digest(img.Digest.String()).String()
	return m.add(origin{img.Image, name, img.WithContext})
}

func (m *images) add(o origin) (*plan.Image, error) {
	raw, err := o.RawConfigFile()
	if err != nil {
		return nil, err
	}
	out := &plan.Image{Ref: o.name}
	if err := json.Unmarshal(raw, &out.Config); err != nil {
		return nil, fmt.Errorf("%w: configuration of %s: %w", layer.ErrIntegrity, o.name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.found[out] = o
	return out, nil
}

// forget makes the next base of each image a new one.
func (m *images) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.bases)
}

// base returns the one baseImage for an image of a plan.
func (m *images) base(i *plan.Image, disk *store.Store) *baseImage {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.bases[i.Ref]
	if b == nil {
		b = &baseImage{image: m.found[i], store: disk, kept: m.kept}
		m.bases[i.Ref] = b
	}
	return b
}

// baseImage is an image that a stage begins with or is copied from. Its layers are downloaded when
// its Tree is first asked for, and never if nobody asks.
type baseImage struct {
	image origin
	store *store.Store
	// wanted says that some instruction will ask for the Tree.
	wanted bool
	// spool keeps layers uncompressed, because they will be unpacked or read out of order.
	spool bool

	// unpack says that all files will be on disk; onDisk that they are there from an earlier build, and need not be fetched for that.
	unpack, onDisk bool
	kept           *baseCache
	// indexes are what the cache knows of the layers; nil for nothing.
	indexes *baseIndexes

	once     sync.Once
	tree     *tree.Tree
	pulled   atomic.Pointer[tree.Tree]
	ingested []*layer.Ingested
	deferred []*layer.Deferred
	err      error
}

// baseIndexes are the layer indexes that the cache has of a base.
type baseIndexes struct {
	x   *executor
	tag string
}

// has tells whether the layer need not be here for its Tree.
func (b *baseImage) has(l v1.Layer) bool {
	diffID, err := l.DiffID()
	return err == nil && !b.unpack && b.indexes != nil && (b.kept.hasIndex(diffID) || b.indexes.x.cache.HasBaseIndex(b.indexes.tag, diffID))
}

// deferOne makes a layer of what the cache knows of it.
func (b *baseIndexes) deferOne(ctx context.Context, kept *baseCache, l v1.Layer) (*layer.Index, *layer.Deferred, error) {
	wrap := func(err error) error {
		if ctx.Err() != nil || !errors.Is(err, layer.ErrIndex) {
			return err
		}
		return &badHitError{nil, err}
	}
	diffID, err := l.DiffID()
	if err != nil {
		return nil, nil, err
	}
	if r, indexed, err := kept.index(diffID); r != nil && err == nil {
		idx, d, err := b.x.deferLayer(ctx, l, r, indexed, wrap)
		if err == nil {
			d.Via = kept.ingest
			return idx, d, nil
		}
		kept.forgetIndex(diffID, err)
	}
	r, indexed, err := b.x.cache.BaseIndex(ctx, b.tag, diffID)
	if err != nil {
		return nil, nil, &badHitError{nil, err}
	}
	idx, d, err := b.x.deferLayer(ctx, l, r, indexed, wrap)
	if d != nil {
		d.Via = kept.ingest
	}
	return idx, d, err
}

// Tree downloads, verifies and indexes all layers, once.
func (b *baseImage) Tree(ctx context.Context) (*tree.Tree, error) {
	b.once.Do(func() {
		b.tree, b.err = b.pull(ctx)
		b.pulled.Store(b.tree)
	})
	return b.tree, b.err
}

// is tells whether t is the image's Tree.
func (b *baseImage) is(t *tree.Tree) bool {
	own := b.pulled.Load()
	return own != nil && own.Root() == t.Root()
}

func (b *baseImage) pull(ctx context.Context) (*tree.Tree, error) {
	img, err := b.image.withContext(ctx)
	if err != nil {
		return nil, err
	}
	layers, err := img.Layers()
	if err != nil {
		return nil, err
	}
	indexes := make([]*layer.Index, len(layers))
	ingested := make([]*layer.Ingested, len(layers))
	deferred := make([]*layer.Deferred, len(layers))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(pullsAtOnce)
	for i, l := range layers {
		g.Go(func() error {
			var err error
			if b.has(l) {
				indexes[i], deferred[i], err = b.indexes.deferOne(ctx, b.kept, l)
			} else if ingested[i], err = b.kept.ingest(ctx, b.store, l, b.spool); err == nil {
				indexes[i], ingested[i].Index = ingested[i].Index, nil
			}
			if err != nil {
				return &baseError{fmt.Errorf("image %s: %w", b.image.name, err)}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	t := tree.Empty()
	for i, idx := range indexes {
		if t, err = idx.Apply(t); err != nil {
			return nil, &baseError{fmt.Errorf("image %s: layer %d: %w", b.image.name, i+1, err)}
		}
		indexes[i] = nil
	}
	b.ingested = slices.DeleteFunc(ingested, func(in *layer.Ingested) bool { return in == nil })
	b.deferred = slices.DeleteFunc(deferred, func(d *layer.Deferred) bool { return d == nil })
	return t, nil
}

// published returns the layers for an image that builds on this one. ctx is that of the build.
func (b *baseImage) published(ctx context.Context) ([]v1.Layer, error) {
	layers, err := b.image.Layers()
	if err != nil {
		return nil, err
	}
	if !b.wanted {
		return layers, nil
	}
	for i, l := range layers {
		if !b.has(l) {
			layers[i] = &pulledLayer{Layer: l, base: b, ctx: ctx}
		}
	}
	return layers, nil
}

// pulledLayer is a layer of a base that the build needs on disk anyway: its bytes are read there, and
// not downloaded a second time.
type pulledLayer struct {
	v1.Layer
	base *baseImage
	ctx  context.Context //nolint:containedctx // v1.Layer has no way to hand one over
}

// Compressed implements v1.Layer.
func (l *pulledLayer) Compressed() (io.ReadCloser, error) {
	if _, err := l.base.Tree(l.ctx); err != nil {
		return nil, err
	}
	digest, err := l.Digest()
	if err != nil {
		return nil, err
	}
	return l.base.store.Open(digest)
}

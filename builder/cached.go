// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/platforms"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"

	"github.com/kaniko-go/kaniko-go/builder/internal/cache"
	"github.com/kaniko-go/kaniko-go/builder/internal/dockerfile"
	"github.com/kaniko-go/kaniko-go/builder/internal/layer"
	"github.com/kaniko-go/kaniko-go/builder/internal/plan"
	"github.com/kaniko-go/kaniko-go/builder/internal/progress"
	"github.com/kaniko-go/kaniko-go/builder/internal/store"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// CacheOptions say what of earlier builds is used again.
type CacheOptions struct {
	// Repos are where layers are kept: repositories of a registry, or "oci:" and a directory. None is no layer cache.
	Repos []string
	// TTL is the age from which layers do not count.
	TTL time.Duration
	// ReadOnly adds nothing to the cache.
	ReadOnly bool
	// Off are the stages that are made anew whatever the cache has; All stands for every one.
	Off []string
	All bool
	// Dir is the base cache, and has the cache mounts, "" for none.
	Dir string
	// Unpacked keeps unpacked base images in Dir, too.
	Unpacked bool
	// DirSize and DirTTL bound Dir: the bytes of all that is in it, and how long what is not used is kept; 0 is no bound.
	DirSize int64
	DirTTL  time.Duration
	// MountsTravel moves the contents of cache mounts through the repositories; MountLimit bounds each, in bytes.
	MountsTravel bool
	MountLimit   int64
}

// off tells whether a stage is not to be taken from the cache.
func (o CacheOptions) off(s *plan.Stage) bool {
	return o.All || hasStage(o.Off, s.Name)
}

// hasStage tells whether a stage is among names, whose case does not count.
func hasStage(names []string, stage string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(name, stage) })
}

// check refuses what Off names and the Dockerfile does not have: of a mistyped stage old layers would be used without a word.
func (o CacheOptions) check(file *dockerfile.File) error {
	if o.All {
		return nil
	}
	var names []string
	for _, s := range file.Stages {
		if s.Name != "" {
			names = append(names, s.Name)
		}
	}
	for _, off := range o.Off {
		if hasStage(names, off) {
			continue
		}
		return &setupError{fmt.Errorf("KANIKO_NO_CACHE=%s: no stage of %s has this name (stages with names: %s)", off, file.Name, cmp.Or(strings.Join(names, ", "), "none"))}
	}
	return nil
}

// tip is the newest layer of a stage, and knows the chainID of all layers up to it once they are made. nil is
// an empty root.
type tip struct {
	below *tip
	job   *layerJob // nil for what is known from the beginning
	mu    sync.Mutex
	known string
}

// id is the chainID, "" for an empty root. It waits until the layers have been written.
func (t *tip) id(ctx context.Context) (string, error) {
	if t == nil {
		return "", nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known != "" || t.job == nil {
		return t.known, nil
	}
	below, err := t.below.id(ctx)
	if err != nil {
		return "", err
	}
	select {
	case <-t.job.written:
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	diffID, err := t.job.result.DiffID()
	if err != nil {
		return "", err
	}
	t.known = cache.ChainID(below, diffID)
	return t.known, nil
}

// on is the tip with one more layer.
func (t *tip) on(job *layerJob) *tip { return &tip{below: t, job: job} }

// baseTip is the tip of an image.
func baseTip(i *plan.Image) *tip {
	id := ""
	for _, d := range i.Config.RootFS.DiffIDs {
		h, err := v1.NewHash(d.String())
		if err != nil {
			return &tip{known: "unknown"}
		}
		id = cache.ChainID(id, h)
	}
	return &tip{known: id}
}

// hit is a layer that need not be made.
type hit struct {
	*cache.Hit
	layer v1.Layer
}

// badHitError is a layer of the cache that cannot be had, or is not what it should be; hit is nil for a layer index of a
// base image. The build begins again without it.
type badHitError struct {
	hit *cache.Hit
	err error
}

func (e *badHitError) Error() string { return e.err.Error() }
func (e *badHitError) Unwrap() error { return e.err }

// tag is where the cache has what the stage is made of.
func (s *stage) tag() string {
	base := "scratch"
	if i := bottom(s.Stage); i != nil {
		_, base, _ = strings.Cut(i.Ref, "@")
	}
	return cache.Tag(base, platforms.FormatAll(s.Platform))
}

// about says to people what the tag stands for.
func (s *stage) about() string {
	base := "scratch"
	if i := bottom(s.Stage); i != nil {
		base = i.Ref
	}
	return base + ", " + platforms.FormatAll(s.Platform)
}

// lookUp finds everything that need not be made, before anything is, and with it the stages that are not needed at all.
func (x *executor) lookUp(ctx context.Context) error {
	var tags []string
	for _, s := range x.stages {
		if !slices.Contains(tags, s.tag()) {
			tags = append(tags, s.tag())
		}
	}
	x.cache.Open(ctx, tags)
	for {
		for _, st := range x.plan.Stages {
			if err := x.predict(ctx, x.stages[st]); err != nil {
				return err
			}
		}
		bad, err := x.obtain(ctx)
		if err != nil {
			return err
		}
		if bad == nil {
			break
		}
		x.distrust(x.Log, bad)
	}
	x.need(x.plan.Target)
	return nil
}

// distrust does without a record from now on.
func (in inputs) distrust(log *progress.Log, bad *badHitError) {
	if bad.hit == nil {
		log.Warn(fmt.Sprintf("a layer index in the cache is wrong, going on without: %v", bad.err))
		in.cache.DiscardBases()
		return
	}
	log.Warn(fmt.Sprintf("a layer of the cache cannot be used and is made anew (%s): %v", bad.hit.Text, bad.err))
	in.cache.Discard(bad.hit)
}

// openCache finds the places of the layer cache.
func (b *Builder) openCache(r Request) *cache.Cache {
	var repos []cache.Repository
	for _, name := range r.Cache.Repos {
		dir, local := cache.Directory(name)
		if !local {
			repos = append(repos, cache.InRegistry(b.Registry, name))
			continue
		}
		shared, err := store.OpenShared(dir)
		if err != nil {
			b.Log.Warn(fmt.Sprintf("cache %s cannot be opened, going on without it: %v", name, err))
			continue
		}
		repos = append(repos, cache.InLayout(shared))
	}
	return cache.New(repos, cache.Options{
		TTL: r.Cache.TTL, ReadOnly: r.Cache.ReadOnly, Now: time.Now, Warn: func(text string) { b.Log.Warn(text) },
	})
}

// flushLimit is how long records are waited for when the build has failed.
const flushLimit = 30 * time.Second

// flush writes the records of what was made, also by a build that failed later; not by one that was told to stop.
func (b *Builder) flush(ctx context.Context, executors []*executor, failed error) {
	var bad *badHitError
	if ctx.Err() != nil || len(executors) == 0 || errors.As(failed, &bad) {
		return
	}
	if failed != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, flushLimit)
		defer cancel()
	}
	for _, x := range executors {
		if x.cache.Enabled() {
			x.rememberBases(ctx)
		}
	}
	executors[0].cache.Flush(ctx)
}

// predict follows a stage from its beginning as far as the cache has its layers.
func (x *executor) predict(ctx context.Context, s *stage) error {
	s.hits, s.complete, s.foreseen, s.recipe = nil, false, nil, nil
	switch base := s.Base; {
	case base.Context != nil:
		return nil
	case base.Image != nil:
		s.tip = baseTip(base.Image)
	case base.Stage != nil:
		below := x.stages[base.Stage]
		if !below.complete {
			return nil
		}
		s.tip = below.tip
	default:
		s.tip = nil
	}
	for _, in := range s.Instructions {
		if !in.Layer() {
			continue
		}
		h, err := x.foresee(ctx, s, in)
		if err != nil {
			return err
		}
		if h == nil {
			return nil
		}
		s.hits = append(s.hits, h)
		s.tip = s.tip.on(doneJob(h.layer))
	}
	s.complete = true
	return nil
}

// foresee finds the layer of an instruction without making anything; nil if that cannot be said yet, or there is none.
func (x *executor) foresee(ctx context.Context, s *stage, in *plan.Instruction) (*hit, error) {
	if x.req.Cache.off(s.Stage) {
		return nil, nil //nolint:nilnil // said above
	}
	for _, src := range sourcesOf(in.Op) {
		if src != nil && src.Stage != nil && !x.stages[src.Stage].complete {
			return nil, nil //nolint:nilnil // said above
		}
	}
	inputs, err := x.recipe(ctx, s, in, false)
	if err != nil {
		// The instruction itself will say it better, if it is ever carried out.
		return nil, ctx.Err()
	}
	s.foreseen, s.recipe = in, inputs
	parent, err := s.tip.id(ctx)
	if err != nil {
		return nil, err
	}
	return x.find(ctx, s, cache.Op(inputs), parent)
}

// find asks the cache for one record, and for its layer.
func (x *executor) find(ctx context.Context, s *stage, op, parent string) (*hit, error) {
	found := x.cache.Find(s.tag(), op, parent)
	if len(found) == 0 {
		return nil, nil //nolint:nilnil // no hit is no error
	}
	l, err := found[0].Layer(x.whole) //nolint:contextcheck // it is read when ctx, that of looking it up, may have ended
	if err != nil {
		return nil, err
	}
	return &hit{found[0], &hitLayer{Layer: l, hit: found[0]}}, ctx.Err()
}

// obtain makes sure that the layers of the target that need not be made can be had, by putting them where the image
// goes. It returns one that cannot.
func (x *executor) obtain(ctx context.Context) (*badHitError, error) {
	g, ctx := errgroup.WithContext(ctx)
	for _, st := range x.plan.Stages {
		s := x.stages[st]
		if !s.keeps {
			continue
		}
		for _, h := range s.hits {
			g.Go(func() error { return x.obtainOne(ctx, h) })
		}
	}
	err := g.Wait()
	var bad *badHitError
	if errors.As(err, &bad) {
		return bad, nil
	}
	return nil, err
}

func (x *executor) obtainOne(ctx context.Context, h *hit) error {
	if h.Local() || len(x.req.Output.pushes()) == 0 {
		if err := h.Sound(ctx); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return &badHitError{h.Hit, err}
		}
	}
	return x.upload(ctx, h.layer)
}

// need marks what has to be carried out for a stage to be there.
func (x *executor) need(st *plan.Stage) {
	s := x.stages[st]
	if s == nil || s.needed {
		return
	}
	s.needed = true
	if st.Base.Stage != nil {
		x.need(st.Base.Stage)
	}
	for _, in := range s.todo() {
		for _, src := range sourcesOf(in.Op) {
			if src != nil && src.Stage != nil {
				x.need(src.Stage)
			}
		}
	}
}

// todo are the instructions of a stage that are not taken from the cache.
func (s *stage) todo() []*plan.Instruction {
	if !s.needed {
		return nil
	}
	n := len(s.hits)
	for i, in := range s.Instructions {
		if !in.Layer() {
			continue
		}
		if n == 0 {
			return s.Instructions[i:]
		}
		n--
	}
	return nil
}

// hitLayer is a layer of the cache. What goes wrong with reading it says that it is one.
type hitLayer struct {
	v1.Layer
	hit *cache.Hit
}

// Compressed implements v1.Layer.
func (l *hitLayer) Compressed() (io.ReadCloser, error) {
	r, err := l.Layer.Compressed()
	if err != nil {
		return nil, &badHitError{l.hit, err}
	}
	return &hitReader{r, l.hit}, nil
}

type hitReader struct {
	io.ReadCloser
	hit *cache.Hit
}

// Read implements io.Reader.
func (r *hitReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, context.Canceled) {
		err = &badHitError{r.hit, err}
	}
	return n, err
}

// deferLayer makes a layer whose contents are fetched when they are read, of one that has an index; one that
// has none is fetched now.
func (x *executor) deferLayer(ctx context.Context, l v1.Layer, index io.ReadCloser, indexed v1.Hash, wrap func(error) error) (*layer.Index, *layer.Deferred, error) {
	if index == nil {
		in, err := layer.Ingest(ctx, x.disk, l, true)
		if err != nil {
			return nil, nil, wrap(err)
		}
		return in.Index, nil, nil
	}
	f, err := x.spoolIndex(index, indexed)
	if err != nil {
		return nil, nil, wrap(fmt.Errorf("%w: %w", layer.ErrIndex, err))
	}
	defer func() { _ = f.Close() }()
	d, err := layer.Defer(x.whole, x.disk, l, f, indexed) //nolint:contextcheck // contents are read as long as the build lives
	if err != nil {
		return nil, nil, wrap(fmt.Errorf("%w: %w", layer.ErrIndex, err))
	}
	d.Wrap = wrap
	idx := d.Index
	d.Index = nil
	return idx, d, nil
}

// spoolIndex reads an index to its verified end before anything of it is believed.
func (x *executor) spoolIndex(index io.ReadCloser, indexed v1.Hash) (*os.File, error) {
	defer func() { _ = index.Close() }()
	blob, err := x.disk.Create()
	if err != nil {
		return nil, err
	}
	defer blob.Abort()
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(blob, h), index); err != nil {
		return nil, err
	}
	if sum := hex.EncodeToString(h.Sum(nil)); sum != indexed.Hex {
		return nil, fmt.Errorf("layer index %s: %w: it has digest %s", indexed, layer.ErrIntegrity, sum)
	}
	if err := blob.Commit(indexed); err != nil {
		return nil, err
	}
	return x.disk.Open(indexed)
}

// apply lays the layers of hits over a Tree.
func (x *executor) apply(ctx context.Context, s *stage, t *tree.Tree, hits []*hit) (*tree.Tree, error) {
	for _, h := range hits {
		wrap := func(err error) error {
			if ctx.Err() != nil {
				return err
			}
			return &badHitError{h.Hit, err}
		}
		index, err := h.OpenIndex(ctx)
		if err != nil {
			return nil, wrap(err)
		}
		indexed := v1.Hash{}
		if h.Index != nil {
			indexed = h.Index.Digest
		}
		idx, d, err := x.deferLayer(ctx, h.layer, index, indexed, wrap)
		if err != nil {
			return nil, err
		}
		if d != nil {
			s.deferred = append(s.deferred, d)
		}
		if t, err = idx.Apply(t); err != nil {
			return nil, wrap(err)
		}
	}
	return t, nil
}

// fetch downloads what the stage's files are in, several layers at a time, because a RUN is about to see them all.
func (x *executor) fetch(ctx context.Context, s *stage) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(pullsAtOnce)
	for st := s.Stage; st != nil; st = st.Base.Stage {
		all := x.stages[st].deferred
		if i := st.Base.Image; i != nil {
			if b := x.bases[i]; !b.onDisk {
				all = append(slices.Clone(all), b.deferred...)
			}
		}
		for _, d := range all {
			g.Go(func() error { return d.Fetch(ctx) })
		}
	}
	return g.Wait()
}

// remember puts a layer that was made into the cache, in the background of the build.
func (x *executor) remember(ctx context.Context, s *stage, st *step, recipes [][]cache.Input, below *tip, l *layer.Layer) error {
	parent, err := below.id(ctx)
	if err != nil {
		return err
	}
	d, err := partial.Descriptor(l)
	if err != nil {
		return err
	}
	diffID, err := l.DiffID()
	if err != nil {
		return err
	}
	set := cache.Set{About: s.about()}
	for _, inputs := range recipes {
		set.Records = append(set.Records, cache.Record{
			Op: cache.Op(inputs), Parent: parent, Layer: v1.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}, DiffID: diffID, Index: l.IndexBlob(),
			Text: st.Text, Inputs: inputs, Created: st.created,
		})
	}
	x.cache.Add(ctx, s.tag(), set, madeOf(x.disk, l, d.Digest)...)
	return nil
}

// madeOf are the blobs of a layer in the store: itself, and its index if it has one.
func madeOf(disk *store.Store, l *layer.Layer, digest v1.Hash) []cache.Made {
	made := []cache.Made{{Layer: l, Path: disk.BlobPath(digest)}}
	if i := l.IndexBlob(); i != nil {
		made = append(made, madeOfIndex(disk, *i))
	}
	return made
}

// madeOfIndex is a layer index in the store.
func madeOfIndex(disk *store.Store, index v1.Descriptor) cache.Made {
	path := disk.BlobPath(index.Digest)
	return cache.Made{Layer: &fileBlob{index, path}, Path: path}
}

// alias keeps a layer under one more recipe, by which it will be found without reading anything.
func (x *executor) alias(ctx context.Context, s *stage, h *hit, inputs []cache.Input) {
	r := h.Record
	r.Op, r.Inputs = cache.Op(inputs), inputs
	x.cache.Add(ctx, s.tag(), cache.Set{Records: []cache.Record{r}})
}

// rememberBases puts the layer indexes of base images into the cache that were made and that it lacks.
func (x *executor) rememberBases(ctx context.Context) {
	for _, st := range x.plan.Stages {
		i := bottom(st)
		if i == nil {
			continue
		}
		tag := x.stages[st].tag()
		for _, in := range x.bases[i].ingested {
			index := in.IndexBlob()
			diffID, err := in.DiffID()
			if err != nil || index == nil || x.cache.HasBaseIndex(tag, diffID) {
				continue
			}
			x.cache.Add(ctx, tag, cache.Set{Bases: []cache.Base{{DiffID: diffID, Index: *index}}}, madeOfIndex(x.disk, *index))
		}
	}
}

// fileBlob is a blob of the store that is uploaded as a layer.
type fileBlob struct {
	desc v1.Descriptor
	path string
}

// Digest implements v1.Layer.
func (b *fileBlob) Digest() (v1.Hash, error) { return b.desc.Digest, nil }

// DiffID implements v1.Layer.
func (b *fileBlob) DiffID() (v1.Hash, error) { return b.desc.Digest, nil }

// Size implements v1.Layer.
func (b *fileBlob) Size() (int64, error) { return b.desc.Size, nil }

// MediaType implements v1.Layer.
func (b *fileBlob) MediaType() (types.MediaType, error) { return b.desc.MediaType, nil }

// Compressed implements v1.Layer.
func (b *fileBlob) Compressed() (io.ReadCloser, error) { return os.Open(b.path) }

// Uncompressed implements v1.Layer.
func (b *fileBlob) Uncompressed() (io.ReadCloser, error) { return b.Compressed() }

// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/containerd/platforms"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/tonistiigi/go-archvariant"
	"golang.org/x/sync/errgroup"

	"github.com/kaniko-go/kaniko-go/builder/internal/cache"
	"github.com/kaniko-go/kaniko-go/builder/internal/image"
	"github.com/kaniko-go/kaniko-go/builder/internal/layer"
	"github.com/kaniko-go/kaniko-go/builder/internal/plan"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
	"github.com/kaniko-go/kaniko-go/builder/isolation"
)

// executor carries out one plan.
type executor struct {
	*Builder
	inputs
	req    Request
	plan   *plan.Plan
	times  tree.Times
	bases  map[*plan.Image]*baseImage
	stages map[*plan.Stage]*stage
	layers *layerQueue
	// roots is nil when nothing is to be run.
	roots isolation.Isolation
	// contexts are the named ones; sources and caches are on disk for mounts.
	contexts contexts
	sources  sources
	digests  digests
	// whole is the context of the build, in which contents are read.
	whole context.Context //nolint:containedctx // contents know none
}

// stage is a plan's stage on its way.
type stage struct {
	*plan.Stage
	// label is what the log calls it, "" when there is only one.
	label string
	// keeps says that the layers are part of the image that is asked for.
	keeps bool
	// done is closed when result or err is set.
	done  chan struct{}
	root  isolation.Root
	steps []*step
	err   error

	// hits are the layers at the stage's beginning that the cache has; complete says that it has all, needed that
	// something of the stage has to be there.
	hits             []*hit
	complete, needed bool
	tip              *tip
	// foreseen is the last instruction whose layer was looked for ahead, the first miss if there is one, and recipe its recipe.
	foreseen *plan.Instruction
	recipe   []cache.Input

	// result is the Tree when the stage is done, nil if nobody has asked for it yet; rest are the layers that it has over
	// start, or if that is nil over what the stage begins with.
	mu            sync.Mutex
	result, start *tree.Tree
	rest          []*hit
	// deferred are layers that are here only by their indexes.
	deferred []*layer.Deferred
}

// step is an instruction that was carried out.
type step struct {
	*plan.Instruction
	created time.Time
	// layer is nil for an instruction that made none, or whose stage keeps none.
	layer *layerJob
}

// gcPercent is how much garbage there may be for each hundred bytes in use. What a build uses is mostly Trees, which are not made
// anew all the time, so that collecting twice as often as Go does by itself costs a few percent of the time and saves a third of the memory.
const gcPercent = 50

// collectOften sets it unless GOGC did.
func collectOften() {
	if before := debug.SetGCPercent(gcPercent); before != 100 {
		debug.SetGCPercent(before)
	}
}

func newExecutor(ctx context.Context, b *Builder, r Request, p *plan.Plan, in inputs) *executor {
	collectOften()
	x := &executor{
		Builder: b, inputs: in, req: r, plan: p, whole: ctx,
		times:  tree.Times{Epoch: p.Epoch},
		bases:  map[*plan.Image]*baseImage{},
		stages: map[*plan.Stage]*stage{},
	}
	x.sources.disk = in.disk
	x.layers = &layerQueue{
		disk: in.disk,
		compression: layer.Compression{
			Algorithm: r.Output.Compression, Level: r.Output.Level, Docker: r.Output.Docker,
		},
		upload: x.upload,
		slot:   make(chan struct{}, 1),
	}
	for _, st := range p.Stages {
		s := &stage{Stage: st, done: make(chan struct{})}
		if len(p.Stages) > 1 {
			s.label = st.Name
		}
		x.stages[st] = s
	}
	for s := p.Target; s != nil; s = s.Base.Stage {
		x.stages[s].keeps = true
	}
	return x
}

// prepare finds out what is to be done: all, or what the cache does not have.
func (x *executor) prepare(ctx context.Context) error {
	if x.cache.Enabled() {
		if err := x.lookUp(ctx); err != nil {
			return err
		}
	} else {
		x.need(x.plan.Target)
	}
	x.findBases()
	return nil
}

// steps is how many instructions people will see.
func (x *executor) steps() int {
	n := 0
	for _, s := range x.stages {
		if s.needed {
			n += s.Total
		}
	}
	return n
}

// labelPlatform makes the platform a part of what the log calls the stages.
func (x *executor) labelPlatform(name string) {
	for _, s := range x.stages {
		s.label = strings.TrimSpace(name + " " + s.label)
	}
}

// labels are the stages' names for people, in order.
func (x *executor) labels() []string {
	var out []string
	for _, st := range x.plan.Stages {
		out = append(out, x.stages[st].label)
	}
	return out
}

// findBases lists the images that the plan reads and finds out which of them are needed on disk, and which will be
// read out of order: those whose files a RUN sees, and those that are copied from.
func (x *executor) findBases() {
	base := func(i *plan.Image, wanted, spool bool) {
		if i == nil {
			return
		}
		b := x.images.base(i, x.disk)
		x.bases[i] = b
		b.wanted = b.wanted || wanted
		b.spool = b.spool || spool
	}
	for _, st := range x.plan.Stages {
		base(st.Base.Image, false, false)
		if i := st.Base.Image; i != nil && x.disk.Indexes {
			x.bases[i].indexes = &baseIndexes{x, x.stages[st].tag()}
		}
		for _, in := range x.stages[st].todo() {
			switch op := in.Op.(type) {
			case plan.Run:
				base(bottom(st), true, true)
				x.unpacks(bottom(st))
				for _, m := range op.Mounts {
					if m.From != nil {
						base(m.From.Image, true, true)
						if b := x.bases[m.From.Image]; b != nil {
							b.unpack = true
						}
					}
				}
			case plan.Workdir:
				base(bottom(st), true, false)
			case plan.Copy:
				base(bottom(st), true, false)
				if op.From == nil {
					continue
				}
				base(op.From.Image, true, true)
				if op.From.Stage != nil {
					base(bottom(op.From.Stage), true, false)
				}
			}
		}
	}
}

// unpacks notes that all files of a base, nil for scratch, will be on disk; unless they are.
func (x *executor) unpacks(i *plan.Image) {
	if i == nil {
		return
	}
	if x.unpacked.has(i) {
		x.bases[i].onDisk = true
		return
	}
	x.bases[i].unpack = true
}

// bottom is the image that a stage begins with, through all stages between; nil for scratch.
func bottom(st *plan.Stage) *plan.Image {
	for st.Base.Stage != nil {
		st = st.Base.Stage
	}
	return st.Base.Image
}

// run executes all stages and puts the target's image together.
func (x *executor) run(whole context.Context) (v1.Image, error) {
	if err := x.isolate(); err != nil {
		return nil, err
	}
	g, ctx := errgroup.WithContext(whole)
	x.layers.group = g
	x.layers.ctx = ctx
	x.uploadBase(ctx, g)
	for _, st := range x.plan.Stages {
		s := x.stages[st]
		if !s.needed {
			close(s.done)
			continue
		}
		g.Go(func() error {
			s.err = x.stage(ctx, s)
			close(s.done)
			return s.err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	// All contents are read by now, and whoever comes next finds the roots as they were.
	if err := x.closeRoots(); err != nil {
		x.Log.Warn(fmt.Sprintf("clean-up after RUN: %v", err))
	}
	return x.image(whole)
}

// isolate prepares for RUN, if there is any. It fails before anything is built.
func (x *executor) isolate() error {
	for _, st := range x.plan.Stages {
		for _, in := range x.stages[st].todo() {
			if _, ok := in.Op.(plan.Run); !ok {
				continue
			}
			if err := x.prepareRun(st); err != nil {
				return x.file.Wrap(in.Location, err)
			}
			break
		}
	}
	if x.roots != nil {
		x.Log.Info(x.roots.String())
	}
	return nil
}

// writes are the directories outside the store that the build may write to while a RUN runs.
func (r Request) writes() []string {
	var dirs []string
	if r.Cache.Dir != "" {
		dirs = append(dirs, r.Cache.Dir)
	}
	for _, repo := range r.Cache.Repos {
		if dir, local := cache.Directory(repo); local {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// prepareRun finds out whether a RUN in the stage can work at all.
func (x *executor) prepareRun(st *plan.Stage) error {
	local := localPlatform()
	if local.Architecture == "amd64" {
		// What it has beyond the first x86-64 runs too; the builder's own platform, by which bases are chosen, stays plain.
		local.Variant = archvariant.AMD64Variant()
	}
	if !platforms.Only(local).Match(st.Platform) {
		return fmt.Errorf("RUN in stage %s needs a machine for %s, and this one is %s: build it there, or compile on the builder's own platform with FROM --platform=$BUILDPLATFORM",
			st.Name, platforms.Format(st.Platform), platforms.Format(local))
	}
	if x.roots != nil {
		return nil
	}
	roots, err := isolation.New(x.Isolation, isolation.Options{
		TempDir: x.disk.TempDir, Dir: x.disk.Dir(), Times: x.times, Credentials: x.req.Credentials, Own: x.req.writes(), Kept: x.keptBases(),
	})
	say := x.Log.Debug
	if err != nil {
		say = x.Log.Warn
	}
	// The table tries things, which nobody waits for who does not read it.
	if err != nil || x.Log.Debugs() {
		for _, line := range isolation.Table(isolation.Preflight(x.Isolation, x.disk.Dir())) {
			say(line)
		}
	}
	if err != nil {
		return &environmentError{fmt.Errorf("RUN cannot be isolated here: %w", err)}
	}
	x.roots = roots
	return nil
}

// image puts the target's image together.
func (x *executor) image(ctx context.Context) (v1.Image, error) {
	target := x.plan.Target
	spec := image.Spec{
		Config:      target.Config,
		Epoch:       x.times.Epoch,
		Docker:      x.req.Output.Docker,
		Annotations: x.req.Output.Annotations,
	}
	var chain []*stage
	for s := target; s != nil; s = s.Base.Stage {
		chain = append([]*stage{x.stages[s]}, chain...)
	}
	if i := chain[0].Base.Image; i != nil {
		var err error
		if spec.Base, err = x.bases[i].published(ctx); err != nil {
			return nil, err
		}
	}
	for _, s := range chain {
		for _, st := range s.steps {
			step := image.Step{CreatedBy: st.History, Created: st.created}
			if st.layer != nil {
				step.Layer = st.layer.result
			}
			spec.Steps = append(spec.Steps, step)
		}
	}
	return image.New(spec)
}

func (x *executor) close() error {
	return errors.Join(x.closeRoots(), x.contexts.close())
}

// closeRoots ends all that RUN needed. It may be called again.
func (x *executor) closeRoots() error {
	var errs []error
	for _, s := range x.stages {
		if s.root != nil {
			errs = append(errs, s.root.Close())
			s.root = nil
		}
	}
	if x.roots != nil {
		errs = append(errs, x.roots.Close())
		x.roots = nil
	}
	return errors.Join(errs...)
}

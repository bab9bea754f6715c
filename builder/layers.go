// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/kaniko-go/kaniko-go/builder/internal/layer"
	"github.com/kaniko-go/kaniko-go/builder/internal/plan"
	"github.com/kaniko-go/kaniko-go/builder/internal/progress"
	"github.com/kaniko-go/kaniko-go/builder/internal/store"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// layerQueue makes layers and uploads them while later instructions run. One layer is compressed at
// a time, by all processors; uploads do not wait for each other.
type layerQueue struct {
	disk        *store.Store
	compression layer.Compression
	upload      func(context.Context, v1.Layer) error
	// group ends the build when a layer fails; ctx is its context.
	group *errgroup.Group
	ctx   context.Context //nolint:containedctx // that of the build, which outlives every call
	slot  chan struct{}
}

// layerJob is a layer on its way. written is closed when all contents have been read; result may be read when the group is done.
type layerJob struct {
	written chan struct{}
	result  v1.Layer
}

// doneJob is a layer that is there already.
func doneJob(l v1.Layer) *layerJob {
	job := &layerJob{written: make(chan struct{}), result: l}
	close(job.written)
	return job
}

// add begins to make the layer of an instruction. It is uploaded if the image has it, and then given to then, which may be nil.
func (q *layerQueue) add(r *run, in *plan.Instruction, changes []tree.Change, log *progress.Step, then func(context.Context, *layer.Layer) error) *layerJob {
	job := &layerJob{written: make(chan struct{})}
	q.group.Go(func() error {
		l, err := q.write(changes)
		if err != nil {
			return r.x.file.Wrap(in.Location, &instructionError{text: in.Text, err: err})
		}
		job.result = l
		close(job.written)
		size, err := l.Size()
		if err != nil {
			return err
		}
		log.Sized(size)
		if r.stage.keeps {
			if err := q.upload(q.ctx, l); err != nil {
				return err
			}
		}
		if then == nil {
			return nil
		}
		return then(q.ctx, l)
	})
	return job
}

func (q *layerQueue) write(changes []tree.Change) (*layer.Layer, error) {
	select {
	case q.slot <- struct{}{}:
		defer func() { <-q.slot }()
	case <-q.ctx.Done():
		return nil, context.Cause(q.ctx)
	}
	return layer.Write(q.ctx, q.disk, changes, q.compression)
}

// upload puts a layer into the repository of every destination.
func (x *executor) upload(ctx context.Context, l v1.Layer) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, d := range x.req.Output.pushes() {
		g.Go(func() error { return x.Registry.Upload(ctx, d, l) })
	}
	return g.Wait()
}

// uploadBase begins to put the base's layers where the image goes: mounted where that is possible, else sent from
// the disk if the build needs them there anyway, else passed on from registry to registry.
func (x *executor) uploadBase(ctx context.Context, g *errgroup.Group) {
	i := bottom(x.plan.Target)
	if i == nil || len(x.req.Output.pushes()) == 0 {
		return
	}
	base := x.bases[i]
	g.Go(func() error {
		layers, err := base.published(ctx)
		if err != nil {
			return err
		}
		up, ctx := errgroup.WithContext(ctx)
		for _, l := range layers {
			up.Go(func() error { return x.upload(ctx, l) })
		}
		return up.Wait()
	})
}

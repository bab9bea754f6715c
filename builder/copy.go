// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/kaniko-go/kaniko-go/builder/internal/copy"
	"github.com/kaniko-go/kaniko-go/builder/internal/dockerfile"
	"github.com/kaniko-go/kaniko-go/builder/internal/fetch"
	"github.com/kaniko-go/kaniko-go/builder/internal/layer"
	"github.com/kaniko-go/kaniko-go/builder/internal/plan"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// copy carries out a COPY or ADD.
func (r *run) copy(ctx context.Context, op plan.Copy, before *tree.Tree) (*tree.Tree, error) {
	req, err := r.copyRequest(ctx, op)
	if err != nil {
		return nil, err
	}
	after, err := copy.Apply(before, req)
	if missing, ok := errors.AsType[*copy.NotFoundError](err); ok && op.From == nil && r.x.ignored != nil && r.x.ignored(missing.Path) {
		err = fmt.Errorf("%w; the ignore file excludes it", err)
	}
	return after, err
}

// copyRequest finds the sources of a COPY or ADD.
func (r *run) copyRequest(ctx context.Context, op plan.Copy) (copy.Request, error) {
	source, err := r.source(ctx, op.From)
	if err != nil {
		return copy.Request{}, err
	}
	req := copy.Request{
		Source: source, Dest: op.Dest, Chown: op.Chown, Chmod: op.Chmod, Parents: op.Parents,
		Times: r.x.times, Archive: r.x.archive,
	}
	if len(op.Exclude) > 0 {
		if req.Exclude, err = dockerfile.NewMatcher(op.Exclude); err != nil {
			return req, fmt.Errorf("--exclude: %w", err)
		}
	}
	for _, src := range op.Sources {
		item, err := r.item(ctx, op, src)
		if err != nil {
			return req, err
		}
		req.Items = append(req.Items, item)
	}
	for _, f := range op.Files {
		meta := tree.Meta{Mode: 0o644, MTime: r.x.times.Now()}
		req.Items = append(req.Items, copy.Item{Name: f.Name, Inode: tree.NewFile(meta, int64(len(f.Data)), tree.Bytes(f.Data))})
	}
	return req, nil
}

// item is one source: a path, or what is fetched from elsewhere.
func (r *run) item(ctx context.Context, op plan.Copy, src plan.CopySource) (copy.Item, error) {
	if src.Path == "" {
		return r.x.remoteItem(ctx, op, src)
	}
	unpack := op.Add && op.From == nil
	if op.Unpack != nil {
		unpack = *op.Unpack
	}
	return copy.Item{Path: src.Path, Unpack: unpack}, nil
}

// link carries out a COPY or ADD with --link: the files are put into an empty root, and that is laid over what is there,
// directories that lead to them included.
func (r *run) link(ctx context.Context, op plan.Copy, before *tree.Tree) (*tree.Tree, []tree.Change, error) {
	linked, err := r.copy(ctx, op, tree.Empty())
	if err != nil {
		return nil, nil, err
	}
	_, changes, err := tree.Canon(tree.Empty(), linked, r.x.times, nil)
	if err != nil {
		return nil, nil, err
	}
	e := before.Edit()
	for _, c := range changes {
		if err := e.Apply(c); err != nil {
			return nil, nil, err
		}
	}
	return e.Commit(), changes, nil
}

// source is the Tree that a COPY or a mount reads from; a stage is done by now.
func (r *run) source(ctx context.Context, from *plan.Source) (*tree.Tree, error) {
	switch {
	case from == nil:
		return r.x.source, nil
	case from.Image != nil:
		return r.x.bases[from.Image].Tree(ctx)
	case from.Stage != nil:
		return r.x.treeOf(ctx, r.x.stages[from.Stage])
	case from.Context != nil:
		return r.x.contextOf(ctx, from.Context)
	default: // scratch
		return tree.Empty(), nil
	}
}

// contextOf opens a named build context, once.
func (x *executor) contextOf(ctx context.Context, c *plan.NamedContext) (*tree.Tree, error) {
	var (
		t   *tree.Tree
		err error
	)
	if _, isGit, _ := fetch.ParseGitURL(c.Value); isGit || strings.Contains(c.Value, "://") {
		t, err = x.remotes.context(ctx, c.Value)
	} else {
		t, err = x.contexts.open(c.Value)
	}
	if err != nil {
		return nil, fmt.Errorf("named context %s: %w", c.Name, err)
	}
	return t, nil
}

// archive unpacks what ADD finds to be an archive.
func (x *executor) archive(ino *tree.Inode) (*tree.Tree, error) {
	return layer.ReadArchive(x.disk, ino)
}

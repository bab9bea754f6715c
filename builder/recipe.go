// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/platforms"
	"golang.org/x/sync/errgroup"

	"github.com/kaniko-go/kaniko-go/builder/internal/buildcontext"
	"github.com/kaniko-go/kaniko-go/builder/internal/cache"
	"github.com/kaniko-go/kaniko-go/builder/internal/copy"
	"github.com/kaniko-go/kaniko-go/builder/internal/layer"
	"github.com/kaniko-go/kaniko-go/builder/internal/plan"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// layerFormat counts up when the same changes give other bytes than before.
const layerFormat = "1"

// recipe is everything that decides what layer an instruction makes of the layers below it. What it takes from another
// stage is known by the layers of that stage, or by content, which finds more but must be read first.
func (x *executor) recipe(ctx context.Context, s *stage, in *plan.Instruction, content bool) ([]cache.Input, error) {
	var out []cache.Input
	add := func(name, value string) { out = append(out, cache.NewInput(name, value)) }
	for _, i := range in.Inputs() {
		add(i.Name, i.Value)
	}
	switch op := in.Op.(type) {
	case plan.Copy:
		inputs, err := x.copied(ctx, s, op, content)
		if err != nil {
			return nil, err
		}
		out = append(out, inputs...)
	case plan.Run:
		for n, m := range op.Mounts {
			if m.Type != "bind" && (m.Type != "cache" || m.From == nil) {
				continue
			}
			value, err := x.mountedFrom(ctx, m, content)
			if err != nil {
				return nil, err
			}
			add(fmt.Sprintf("mount %d files", n+1), value)
		}
		add("ignored paths", strings.Join(x.req.IgnorePaths, "\n"))
		x.runOptions(op, add)
	}
	add("platform", platforms.FormatAll(s.Platform))
	add("epoch", x.epoch())
	add("compression", fmt.Sprintf("%s %d", x.req.Output.Compression, x.req.Output.Level))
	add("layer format", layerFormat)
	return out, nil
}

// runOptions are what a RUN sees that the Dockerfile does not say. The addresses of hosts are left out, as BuildKit leaves them out.
func (x *executor) runOptions(op plan.Run, add func(name, value string)) {
	o := x.req.Run
	if op.Network != "none" && op.Network != "host" {
		add("default network", o.Network)
	}
	if op.Hostname == "" {
		add("default host name", o.Hostname)
	}
	var hosts []string
	for _, h := range o.Hosts {
		hosts = append(hosts, h.Name)
	}
	add("added hosts", strings.Join(hosts, " "))
	add("shared memory", strconv.FormatInt(o.ShmSize, 10))
	add("limits", fmt.Sprint(o.Ulimits))
}

func (x *executor) epoch() string {
	if x.times.Epoch == nil {
		return ""
	}
	return strconv.FormatInt(x.times.Epoch.Unix(), 10)
}

// copied is what a COPY or ADD takes, as people call it.
func (x *executor) copied(ctx context.Context, s *stage, op plan.Copy, content bool) ([]cache.Input, error) {
	var paths []string
	for _, src := range op.Sources {
		paths = append(paths, strconv.Quote(src.Path))
	}
	where := strings.Join(paths, " ")
	switch {
	case op.From == nil || op.From.Context != nil || op.From.Stage != nil && content:
		d, err := x.filesOf(ctx, s, op)
		return []cache.Input{cache.NewInput("files", d.contents), cache.NewInput("metadata of files", d.metadata)}, err
	case op.From.Image != nil:
		return []cache.Input{cache.NewInput("image", op.From.Image.Ref+" "+where)}, nil
	case op.From.Stage != nil:
		// By its layers, not its name, which may change.
		id, err := x.stages[op.From.Stage].tip.id(ctx)
		return []cache.Input{cache.NewInput("stage copied from", id+" "+where)}, err
	default:
		return []cache.Input{cache.NewInput("files", where)}, nil
	}
}

// filesOf is a digest of what a COPY or ADD would put into an empty root: what is copied under which name, whatever is there. Owners
// that are names and archives are left to the copy itself, which they do not make differ.
func (x *executor) filesOf(ctx context.Context, s *stage, op plan.Copy) (treeSums, error) {
	op.Chown, op.Unpack = "", new(bool)
	r := &run{x: x, stage: s}
	req, err := r.copyRequest(ctx, op)
	if err != nil {
		return treeSums{}, err
	}
	req.Archive = nil
	t, err := copy.Apply(tree.Empty(), req)
	if err != nil {
		return treeSums{}, err
	}
	return x.treeDigest(ctx, t)
}

// mountedFrom is what a bind mount shows, or a cache begins with.
func (x *executor) mountedFrom(ctx context.Context, m plan.Mount, content bool) (string, error) {
	switch {
	case m.From != nil && m.From.Image != nil:
		return m.From.Image.Ref + " " + m.Source, nil
	case m.From != nil && m.From.Stage != nil && !content:
		id, err := x.stages[m.From.Stage].tip.id(ctx)
		return id + " " + m.Source, err
	}
	t, err := (&run{x: x}).source(ctx, m.From)
	if err != nil {
		return "", err
	}
	ino, err := t.Stat(m.Source)
	if err != nil {
		return "", err
	}
	d, err := x.treeDigest(ctx, tree.FromRoot(tree.NewDir(tree.Meta{}, tree.Entry{Name: "mount", Inode: ino})))
	return d.contents + " " + d.metadata, err
}

// readsStage tells whether an instruction takes something from another stage.
func readsStage(in *plan.Instruction) bool {
	return slices.ContainsFunc(sourcesOf(in.Op), func(s *plan.Source) bool { return s != nil && s.Stage != nil })
}

// digests remembers the digests of files' contents.
type digests struct {
	mu  sync.Mutex
	all map[*tree.Inode]string
}

// treeSums are the digests of a Tree: of names, types and contents, and of all else.
type treeSums struct{ contents, metadata string }

// treeDigest digests a Tree. Times count only with an epoch, as the layer will have them.
func (x *executor) treeDigest(ctx context.Context, t *tree.Tree) (treeSums, error) {
	_, changes, err := tree.Canon(tree.Empty(), t, x.times, nil)
	if err != nil {
		return treeSums{}, err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	sums := make([]string, len(changes))
	for i, c := range changes {
		if c.Inode == nil || c.Inode.Type != tree.File || c.Inode.Size == 0 {
			continue
		}
		g.Go(func() error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			var err error
			sums[i], err = x.digests.of(ctx, c.Inode)
			if err != nil {
				return fmt.Errorf("read /%s: %w", c.Path, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return treeSums{}, err
	}
	contents, metadata := sha256.New(), sha256.New()
	links := map[*tree.Inode]int{}
	for i, c := range changes {
		digestContent(contents, c, sums[i])
		x.digestMetadata(metadata, c, links, i)
	}
	return treeSums{hex.EncodeToString(contents.Sum(nil)), hex.EncodeToString(metadata.Sum(nil))}, nil
}

func digestContent(h hash.Hash, c tree.Change, sum string) {
	ino := c.Inode
	if ino == nil {
		_, _ = fmt.Fprintf(h, "%q gone\n", c.Path)
		return
	}
	_, _ = fmt.Fprintf(h, "%q %d %d %q %s", c.Path, ino.Type, ino.Size, ino.Link(), sum)
	if major, minor := ino.Device(); ino.Type == tree.CharDevice || ino.Type == tree.BlockDevice {
		_, _ = fmt.Fprintf(h, " %d:%d", major, minor)
	}
	_, _ = io.WriteString(h, "\n")
}

// digestMetadata adds what is not in digestContent, of the n-th change; links has the first change of each inode that has several.
func (x *executor) digestMetadata(h hash.Hash, c tree.Change, links map[*tree.Inode]int, n int) {
	ino := c.Inode
	if ino == nil {
		return
	}
	_, _ = fmt.Fprintf(h, "%d %o %d %d", n, ino.Mode, ino.UID, ino.GID)
	for _, k := range slices.Sorted(maps.Keys(ino.Xattrs)) {
		_, _ = fmt.Fprintf(h, " %q=%q", k, ino.Xattrs[k])
	}
	if x.times.Epoch != nil {
		_, _ = fmt.Fprintf(h, " at %d", x.times.Of(ino.MTime))
	}
	if ino.Shared {
		if first, ok := links[ino]; ok {
			_, _ = fmt.Fprintf(h, " link to %d", first)
		} else {
			links[ino] = n
		}
	}
	_, _ = io.WriteString(h, "\n")
}

// of is the digest of a file's content.
func (d *digests) of(ctx context.Context, ino *tree.Inode) (string, error) {
	d.mu.Lock()
	sum, ok := d.all[ino]
	d.mu.Unlock()
	if ok {
		return sum, nil
	}
	r, err := ino.Open()
	if err != nil {
		return "", err
	}
	defer func() { _ = r.Close() }()
	h := sha256.New()
	if n, err := io.Copy(h, layer.Until(ctx, r)); err != nil || n != ino.Size {
		if err == nil {
			err = fmt.Errorf("it %w: %d bytes of %d", buildcontext.ErrChanged, n, ino.Size)
		}
		return "", err
	}
	sum = hex.EncodeToString(h.Sum(nil))
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.all == nil {
		d.all = map[*tree.Inode]string{}
	}
	d.all[ino] = sum
	return sum, nil
}

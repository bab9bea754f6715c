// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/kaniko-go/kaniko-go/builder/internal/snapshot"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
	"github.com/kaniko-go/kaniko-go/builder/internal/unpack"
)

// Namespaces makes Roots in the namespaces that Enter obtained. It is safe for concurrent use.
type Namespaces struct {
	status  Status
	tempDir func(pattern string) (string, error)
	times   tree.Times
	// noOverlay is why overlay cannot be mounted, nil if it can.
	noOverlay error
	// kept has unpacked images that outlive the build; nil for none.
	kept *Kept

	mu    sync.Mutex
	bases map[*tree.Inode]*base
}

// base is a Tree unpacked once, for all stages that begin with it.
type base struct {
	once    sync.Once
	dir     *os.File
	skipped []string
	err     error
}

// NewNamespaces prepares for Roots in directories of the store. It finds out by mounting one whether they can be overlays.
func NewNamespaces(s Status, o Options) (*Namespaces, error) {
	if !s.Namespaced {
		return nil, s.refusal()
	}
	probe, err := o.TempDir("probe-")
	if err != nil {
		return nil, err
	}
	n := &Namespaces{status: s, tempDir: o.TempDir, times: o.Times, bases: map[*tree.Inode]*base{}}
	// Both at once, as roots will have them: in most pods that answers it, and a probe is a process.
	if o.Kept != nil && s.probeOverlay(probe, o.Kept.Dir, probe) == nil {
		n.kept = o.Kept
		return n, nil
	}
	n.noOverlay = s.ProbeOverlay(probe)
	return n, nil
}

// String implements Isolation.
func (n *Namespaces) String() string {
	if n.noOverlay != nil {
		return fmt.Sprintf("%v; plain directories (%v); faster with a volume, such as an emptyDir, at KANIKO_DIR", n.status, n.noOverlay)
	}
	return fmt.Sprintf("%v; overlay", n.status)
}

// OneAtATime implements Isolation.
func (n *Namespaces) OneAtATime() bool { return false }

// TempDir implements Isolation.
func (n *Namespaces) TempDir(pattern string) (string, error) { return n.tempDir(pattern) }

// Root implements Isolation.
func (n *Namespaces) Root(_ context.Context, parent Root, begin, _ *tree.Tree) (Root, error) {
	if n.noOverlay != nil {
		return &plainRoot{ns: n, disk: tree.Empty()}, nil //nolint:nilerr // it is no error, but why this is the root
	}
	r := &overlayRoot{ns: n}
	if p, ok := parent.(*overlayRoot); ok && p.disk != nil {
		r.disk, r.lowers, r.skipped = p.disk, append([]string(nil), p.lowers...), p.skipped
		return r, nil
	}
	r.begin = begin
	return r, nil
}

// Close implements Isolation.
func (n *Namespaces) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var errs []error
	for _, b := range n.bases {
		if b.dir != nil {
			errs = append(errs, b.dir.Close())
		}
	}
	return errors.Join(errs...)
}

// unpacked is t in a directory of its own; stages that ask for the same Tree share it.
func (n *Namespaces) unpacked(ctx context.Context, t *tree.Tree) (*base, error) {
	n.mu.Lock()
	b := n.bases[t.Root()]
	if b == nil {
		b = &base{}
		n.bases[t.Root()] = b
	}
	n.mu.Unlock()
	b.once.Do(func() {
		if b.dir, b.err = n.keptBase(ctx, t); b.dir != nil || b.err != nil {
			return
		}
		b.dir, b.err = n.newDir("base-", t)
		if b.err == nil {
			b.skipped, b.err = unpack.Apply(ctx, b.dir, tree.Empty(), t, unpack.Lower)
		}
	})
	return b, b.err
}

// newDir makes a directory that has the mode and owner of a Tree's root.
func (n *Namespaces) newDir(pattern string, t *tree.Tree) (*os.File, error) {
	dir, err := n.tempDir(pattern)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	root := t.Root()
	// A root whose owner has no place in the user namespace stays ours.
	if err := f.Chown(int(root.UID), int(root.GID)); err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EINVAL) {
		return nil, errors.Join(err, f.Close())
	}
	if err := unix.Fchmod(int(f.Fd()), uint32(root.Mode)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// overlayRoot is a stack of directories: what was unpacked, what each RUN wrote. Nothing in
// them changes once it is there.
type overlayRoot struct {
	ns    *Namespaces
	begin *tree.Tree
	// disk is what the lower directories hold; nil before the first Run.
	disk    *tree.Tree
	lowers  []string // newest first
	skipped map[string]bool
	dirs    []*os.File
}

// Overwrites implements Root.
func (r *overlayRoot) Overwrites() bool { return false }

// Leave implements Root.
func (r *overlayRoot) Leave(*tree.Tree) {}

// Close implements Root.
func (r *overlayRoot) Close() error {
	var errs []error
	for _, d := range r.dirs {
		errs = append(errs, d.Close())
	}
	return errors.Join(errs...)
}

// Run implements Root.
func (r *overlayRoot) Run(ctx context.Context, t *tree.Tree, p Process) (*tree.Tree, error) {
	if err := r.sync(ctx, t); err != nil {
		return nil, err
	}
	upper, err := r.newDir("upper-", t)
	if err != nil {
		return nil, err
	}
	tmp, err := r.ns.tempDir("work-")
	if err != nil {
		return nil, err
	}
	work := filepath.Join(tmp, "overlay")
	if err := MakeOverlayDir(work); err != nil {
		return nil, err
	}
	err = r.ns.status.Run(ctx, FS{Lowers: r.lowers, Upper: upper.Name(), Work: work}, p)
	// What overlay made in there is of no use to anybody.
	if rmErr := removeWork(tmp); err == nil {
		err = rmErr
	}
	if err != nil {
		return nil, err
	}
	raw, err := snapshot.Upper(ctx, upper, t, snapshot.Options{Times: r.ns.times, Skipped: r.skipped})
	if err != nil {
		return nil, err
	}
	next, _, err := tree.Canon(t, raw, r.ns.times, nil)
	if err != nil {
		return nil, err
	}
	r.disk, r.lowers = next, append([]string{upper.Name()}, r.lowers...)
	return next, nil
}

// sync puts on top of the lower directories what t has and they do not.
func (r *overlayRoot) sync(ctx context.Context, t *tree.Tree) error {
	if r.disk == nil {
		b, err := r.ns.unpacked(ctx, r.begin)
		if err != nil {
			return err
		}
		r.disk, r.lowers = r.begin, []string{b.dir.Name()}
		r.skip(b.skipped)
	}
	if len(r.lowers) >= maxLowers/2 {
		return r.flatten(ctx, t)
	}
	if r.disk.Root() == t.Root() {
		return nil
	}
	dir, err := r.newDir("copy-", t)
	if err != nil {
		return err
	}
	skipped, err := unpack.Apply(ctx, dir, r.disk, t, unpack.Lower)
	if err != nil {
		return err
	}
	r.skip(skipped)
	r.disk, r.lowers = t, append([]string{dir.Name()}, r.lowers...)
	return nil
}

// flatten unpacks t anew into one directory, for an overlay takes only so many.
func (r *overlayRoot) flatten(ctx context.Context, t *tree.Tree) error {
	dir, err := r.newDir("flat-", t)
	if err != nil {
		return err
	}
	skipped, err := unpack.Apply(ctx, dir, tree.Empty(), t, unpack.Lower)
	if err != nil {
		return err
	}
	r.skipped = nil
	r.skip(skipped)
	r.disk, r.lowers = t, []string{dir.Name()}
	return nil
}

func (r *overlayRoot) skip(paths []string) {
	next := make(map[string]bool, len(r.skipped)+len(paths))
	for p := range r.skipped {
		next[p] = true
	}
	for _, p := range paths {
		next[p] = true
	}
	r.skipped = next
}

func (r *overlayRoot) newDir(pattern string, t *tree.Tree) (*os.File, error) {
	d, err := r.ns.newDir(pattern, t)
	if err == nil {
		r.dirs = append(r.dirs, d)
	}
	return d, err
}

// removeWork removes an overlay's work directory, in which the kernel left one without any permission.
func removeWork(dir string) error {
	_ = os.Chmod(filepath.Join(dir, "overlay", "work"), 0o700)
	return os.RemoveAll(dir)
}

// plainRoot is one directory, for places where no overlay can be mounted.
type plainRoot struct {
	ns      *Namespaces
	dir     *os.File
	disk    *tree.Tree
	skipped map[string]bool
	record  *snapshot.Record
}

// Overwrites implements Root.
func (r *plainRoot) Overwrites() bool { return true }

// Leave implements Root.
func (r *plainRoot) Leave(*tree.Tree) {}

// Close implements Root.
func (r *plainRoot) Close() error {
	if r.dir == nil {
		return nil
	}
	return r.dir.Close()
}

// Run implements Root.
func (r *plainRoot) Run(ctx context.Context, t *tree.Tree, p Process) (*tree.Tree, error) {
	if err := r.sync(ctx, t); err != nil {
		return nil, err
	}
	if err := r.ns.status.Run(ctx, FS{Dir: r.dir.Name()}, p); err != nil {
		return nil, err
	}
	raw, record, err := snapshot.Walk(ctx, r.dir, r.record, t, snapshot.Options{Times: r.ns.times, Skipped: r.skipped})
	if err != nil {
		return nil, err
	}
	next, _, err := tree.Canon(t, raw, r.ns.times, nil)
	if err != nil {
		return nil, err
	}
	r.disk, r.record = next, record
	return next, nil
}

func (r *plainRoot) sync(ctx context.Context, t *tree.Tree) error {
	if r.dir == nil {
		dir, err := r.ns.newDir("root-", t)
		if err != nil {
			return err
		}
		r.dir, r.skipped = dir, map[string]bool{}
	}
	separated := false
	if r.record != nil {
		var err error
		if separated, err = unpack.Separate(r.dir, r.disk, nil); err != nil {
			return err
		}
	}
	if r.disk.Root() == t.Root() && r.record != nil && !separated {
		return nil
	}
	skipped, err := unpack.Apply(ctx, r.dir, r.disk, t, unpack.Plain)
	if err != nil {
		return err
	}
	for _, p := range skipped {
		r.skipped[p] = true
	}
	r.disk = t
	if _, err := unpack.Separate(r.dir, t, nil); err != nil {
		return err
	}
	r.record, err = snapshot.NewRecord(ctx, r.dir)
	return err
}

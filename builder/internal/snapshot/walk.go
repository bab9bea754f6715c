// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"context"
	"fmt"
	"os"
	"path"
	"runtime"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/kaniko-go/kaniko-go/builder/internal/dirfd"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// Record is the state of every path of a root at one moment.
type Record struct{ root *recordDir }

// Nothing is the record of an empty directory.
func Nothing() *Record { return &Record{&recordDir{}} }

// stamp changes whenever anything of a path does: the change time cannot be set.
type stamp struct {
	ino   uint64
	ctime unix.Timespec
	mode  uint32
}

type recordDir struct {
	names  []string // in byte order
	stamps []stamp
	dirs   map[string]*recordDir
}

func (d *recordDir) find(name string) (stamp, bool) {
	if d == nil {
		return stamp{}, false
	}
	i := sort.SearchStrings(d.names, name)
	if i < len(d.names) && d.names[i] == name {
		return d.stamps[i], true
	}
	return stamp{}, false
}

// tick is longer than the clock of file times stands still.
const tick = 12 * time.Millisecond

// NewRecord records the state of the directory. When it returns, the clock of file times has moved on, so
// that whatever changes from now on has another change time than anything recorded.
func NewRecord(ctx context.Context, root *os.File) (*Record, error) {
	return RecordAround(ctx, root, nil)
}

// RecordAround is NewRecord for a directory of which something belongs to others.
func RecordAround(ctx context.Context, root *os.File, kept *dirfd.Kept) (*Record, error) {
	rec, _, err := walkRoot(ctx, root, nil, kept)
	time.Sleep(tick)
	return rec, err
}

// Walk returns the Tree after a RUN in a plain directory, whose state before was rec, with Tree prev, and the
// new state. root stays open for as long as contents of the Tree are read, which is only possible until the next RUN in it.
func Walk(ctx context.Context, root *os.File, rec *Record, prev *tree.Tree, o Options) (*tree.Tree, *Record, error) {
	next, diffs, err := walkRoot(ctx, root, rec, o.Kept)
	if err != nil {
		return nil, nil, fmt.Errorf("snapshot: %w", err)
	}
	s := newScanner(root, prev, o)
	s.overwrites = true
	for _, d := range diffs {
		if err := s.walkDiff(d); err != nil {
			return nil, nil, fmt.Errorf("snapshot: /%s: %w", d.path, err)
		}
	}
	time.Sleep(tick)
	return s.edit.Commit(), next, nil
}

// diff is one path whose state is not the recorded one; gone when it is no more.
type diff struct {
	path string
	st   unix.Stat_t
	gone bool
}

func (s *scanner) walkDiff(d diff) error {
	p, err := s.inTree(d.path)
	if err != nil {
		return err
	}
	if d.gone {
		return s.edit.Remove(p)
	}
	old, err := s.prev.Lookup(p)
	if err != nil || !s.physical(p, old) {
		old = nil
	}
	if d.st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return s.walkDir(p, d, old)
	}
	parent := path.Dir(d.path)
	if parent == "." {
		parent = ""
	}
	dir, err := dirfd.Open(s.root, parent, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	ino, err := s.inode(dir, path.Base(d.path), d.path, &d.st, old)
	if err != nil {
		return err
	}
	if ino == nil {
		return s.edit.Remove(p)
	}
	if err := s.parents(p, d.path); err != nil {
		return err
	}
	return s.edit.Put(p, ino)
}

// parents puts the directories above p into the Tree that were there before, because they lead to what is kept. The end
// of p is that of its path on disk.
func (s *scanner) parents(p, disk string) error {
	if s.opts.Kept == nil {
		return nil
	}
	for i := range len(p) {
		if p[i] != '/' || s.edit.Lookup(p[:i]) != nil {
			continue
		}
		var st unix.Stat_t
		above := disk[:len(disk)-len(p)+i]
		if err := unix.Fstatat(int(s.root.Fd()), above, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if err := s.edit.Put(p[:i], tree.NewDir(s.meta(above, &st, nil))); err != nil {
			return err
		}
	}
	return nil
}

func (s *scanner) walkDir(p string, d diff, old *tree.Inode) error {
	now := s.edit.Lookup(p)
	if s.opts.Kept.At(d.path).Leads() && (old == nil || old.Type != tree.Dir || p != d.path) {
		// It stands in the place of something that could not be made, or is there only for what is mounted in it: what
		// is written into it brings it into the Tree.
		return nil
	}
	m := s.meta(d.path, &d.st, old)
	if now != nil && now.Type == tree.Dir {
		m.Xattrs = now.Xattrs
		return s.edit.SetMeta(p, m)
	}
	if err := s.parents(p, d.path); err != nil {
		return err
	}
	return s.edit.Put(p, tree.NewDir(m))
}

// inTree is where a path on disk is in the Tree. They differ below a directory that leads to what is kept, where the
// Tree has a link that could not be made, as /var/run when something is mounted in it.
func (s *scanner) inTree(p string) (string, error) {
	if s.opts.Kept == nil {
		return p, nil
	}
	for i := 0; i < len(p); i++ {
		if p[i] != '/' || !s.opts.Kept.At(p[:i]).Leads() {
			continue
		}
		ino := s.edit.Lookup(p[:i])
		if ino == nil || ino.Type == tree.Dir {
			continue
		}
		real, to, err := s.prev.Resolve(p[:i], true)
		if err != nil || to == nil || to.Type != tree.Dir {
			return "", fmt.Errorf("it was written in a directory that leads to a mount, in the place of a %v of the image: it cannot be in the image", ino.Type)
		}
		return real + p[i:], nil
	}
	return p, nil
}

// physical reports whether old is what the Tree has at p itself, and not behind a link that was a
// directory's name before.
func (s *scanner) physical(p string, old *tree.Inode) bool {
	real, ino, err := s.prev.Resolve(p, false)
	return err == nil && real == p && ino == old
}

// walker reads directories in parallel and keeps what differs from the old state.
type walker struct {
	group *errgroup.Group
	ctx   context.Context //nolint:containedctx // lives as long as the walk
	mu    sync.Mutex
	diffs []diff
}

func walkRoot(ctx context.Context, root *os.File, old *Record, kept *dirfd.Kept) (*Record, []diff, error) {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(2 * runtime.GOMAXPROCS(0))
	w := &walker{group: g, ctx: ctx}
	top := &recordDir{}
	var before *recordDir
	if old != nil {
		before = old.root
	}
	dir, err := dirfd.Open(root, "", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, nil, err
	}
	g.Go(func() error { return w.dir(dir, "", top, before, kept, old != nil) })
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	// Stable: where the type changed, "gone" comes before what is there now.
	sort.SliceStable(w.diffs, func(i, j int) bool { return lessPath(w.diffs[i].path, w.diffs[j].path) })
	return &Record{top}, w.diffs, nil
}

// lessPath puts parents before children.
func lessPath(a, b string) bool {
	return strings.ReplaceAll(a, "/", "\x00") < strings.ReplaceAll(b, "/", "\x00")
}

// dir reads one directory into now and closes it. Subdirectories are read by other goroutines while there are any to spare.
func (w *walker) dir(d *os.File, p string, now, before *recordDir, kept *dirfd.Kept, compare bool) error {
	defer func() { _ = d.Close() }()
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	list, err := names(d)
	if err != nil {
		return err
	}
	if kept != nil {
		list = slices.DeleteFunc(list, func(name string) bool { return kept.Child(name).Whole() })
	}
	now.names, now.stamps = list, make([]stamp, len(list))
	var diffs []diff
	for i, name := range list {
		var st unix.Stat_t
		if err := unix.Fstatat(int(d.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("/%s: %w", joinPath(p, name), err)
		}
		now.stamps[i] = stamp{st.Ino, st.Ctim, st.Mode}
		was, known := before.find(name)
		if compare && (!known || was != now.stamps[i]) {
			if known && was.mode&unix.S_IFMT != st.Mode&unix.S_IFMT {
				diffs = append(diffs, diff{path: joinPath(p, name), gone: true})
			}
			diffs = append(diffs, diff{path: joinPath(p, name), st: st})
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			if err := w.sub(d, name, p, now, before, kept.Child(name), compare); err != nil {
				return err
			}
		}
	}
	if before != nil {
		for _, name := range before.names {
			if _, ok := now.find(name); !ok {
				diffs = append(diffs, diff{path: joinPath(p, name), gone: true})
			}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.diffs = append(w.diffs, diffs...)
	return nil
}

func (w *walker) sub(d *os.File, name, p string, now, before *recordDir, kept *dirfd.Kept, compare bool) error {
	sub, err := dirfd.Open(d, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	child := &recordDir{}
	if now.dirs == nil {
		now.dirs = map[string]*recordDir{}
	}
	now.dirs[name] = child
	var was *recordDir
	if before != nil {
		was = before.dirs[name]
	}
	task := func() error { return w.dir(sub, joinPath(p, name), child, was, kept, compare) }
	if w.group.TryGo(task) {
		return nil
	}
	return task()
}

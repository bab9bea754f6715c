// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/kaniko-go/kaniko-go/builder/internal/dirfd"
	"github.com/kaniko-go/kaniko-go/builder/internal/snapshot"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
	"github.com/kaniko-go/kaniko-go/builder/internal/unpack"
)

// emulation is what stands in the root for the mounts of one RUN. Everything is made by descriptor where links of the image
// lead inside the root, and is taken away again before the snapshot.
type emulation struct {
	host   *InPlace
	root   inRoot
	stubs  []string
	places []*place
	undo   []func() error
}

// begin makes everything that p has for itself. end must be called, also after an error.
func (e *emulation) begin(ctx context.Context, p Process) error {
	e.undo = append(e.undo, func() error { return restoreKubelet(e.host.aside.dir) })
	if err := addHosts(p.ExtraHosts); err != nil {
		return err
	}
	for _, f := range p.Files {
		data := &DataFile{Data: f.Data, Mode: f.Mode}
		if err := e.data(f.Path, data); err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
	}
	for _, m := range p.Mounts {
		if err := e.mount(ctx, m); err != nil {
			return fmt.Errorf("mount on %s: %w", m.Target, err)
		}
	}
	var errs []error
	for _, p := range e.places {
		if p.covers {
			errs = append(errs, setTimes(p.dir, &p.before))
		}
	}
	return errors.Join(errs...)
}

// end takes everything away, last first. Directories have the times that the command left them with.
func (e *emulation) end() error {
	times := make([]unix.Stat_t, len(e.places))
	for i, p := range e.places {
		times[i], _ = p.times()
	}
	var errs []error
	for i := len(e.undo) - 1; i >= 0; i-- {
		errs = append(errs, e.undo[i]())
	}
	for i, p := range e.places {
		errs = append(errs, setTimes(p.dir, &times[i]), p.dir.Close())
	}
	return errors.Join(append(errs, e.root.removeStubs(e.stubs))...)
}

func (e *emulation) mount(ctx context.Context, m Mount) error {
	switch {
	case m.Tmpfs != nil:
		return e.tmpfs(m.Target)
	case m.Data != nil:
		return e.data(m.Target, m.Data)
	default:
		return e.source(ctx, m)
	}
}

func (e *emulation) tmpfs(target string) error {
	if real, err := e.root.real(target); err == nil && e.host.kept.At(real).Leads() {
		return e.emptied(real)
	}
	p, err := e.place(target)
	if err != nil {
		return err
	}
	e.undo = append(e.undo, p.clear)
	if err := unix.Mkdirat(int(p.dir.Fd()), p.name, 0o700); err != nil {
		return err
	}
	return unix.Fchmodat(int(p.dir.Fd()), p.name, 0o1777, 0)
}

// emptied stands in for an empty file system on a directory that leads to mounts: all but what leads there is put aside.
func (e *emulation) emptied(real string) error {
	kept := e.host.kept.At(real)
	dir, err := dirfd.Open(e.host.root, real, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	e.undo = append(e.undo, dir.Close)
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return err
	}
	store, err := e.host.aside.newDir("image-")
	if err != nil {
		return err
	}
	e.undo = append(e.undo, store.Close, func() error {
		return errors.Join(moveAll(store, dir, nil), unix.Fchmod(int(dir.Fd()), st.Mode&0o7777))
	})
	if err := moveAll(dir, store, kept); err != nil {
		return err
	}
	e.undo = append(e.undo, func() error { return unpack.Clear(dir, kept) })
	return unix.Fchmod(int(dir.Fd()), 0o1777)
}

// moveAll moves the entries of a directory to another one, but for those that are kept or lead there.
func moveAll(from, to *os.File, kept *dirfd.Kept) error {
	d, err := dirfd.Open(from, "", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if kept.Child(name) != nil {
			continue
		}
		if err := unix.Renameat(int(from.Fd()), name, int(to.Fd()), name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// data makes a file that is overwritten before it is removed, wherever the command may have moved it or linked it to.
func (e *emulation) data(target string, d *DataFile) error {
	p, err := e.place(target)
	if err != nil {
		return err
	}
	fd, err := unix.Openat(int(p.dir.Fd()), p.name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), p.name)
	// What is open for writing cannot be executed.
	again, err := os.Open(fdPath(fd))
	if err != nil {
		return errors.Join(err, f.Close())
	}
	e.undo = append(e.undo, func() error { return errors.Join(overwrite(again, len(d.Data)), p.clear()) })
	_, err = f.Write(d.Data)
	if err == nil {
		err = f.Chown(int(d.UID), int(d.GID))
	}
	if err == nil {
		err = unix.Fchmod(fd, d.Mode&0o777)
	}
	return errors.Join(err, f.Close())
}

// overwrite makes zeros of the first n bytes of a file, on the disk, too, and closes it.
func overwrite(f *os.File, n int) error {
	w, err := os.OpenFile(fdPath(int(f.Fd())), os.O_WRONLY, 0)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	_, err = w.WriteAt(make([]byte, n), 0)
	return errors.Join(err, w.Sync(), w.Truncate(0), w.Close(), f.Close())
}

// source shows a file or directory of the builder's. What cannot be copied, or must come back, is moved; the rest is copied
// and what the command changes of it is dropped.
func (e *emulation) source(ctx context.Context, m Mount) error {
	p, err := e.place(m.Target)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(m.Source, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFSOCK {
		e.undo = append(e.undo, p.clear)
		return unix.Renameat(unix.AT_FDCWD, m.Source, int(p.dir.Fd()), p.name)
	}
	if m.ReadOnly {
		e.undo = append(e.undo, p.clear)
		return copyTo(ctx, m.Source, p)
	}
	err = unix.Renameat(unix.AT_FDCWD, m.Source, int(p.dir.Fd()), p.name)
	if err == nil {
		e.undo = append(e.undo, func() error { return e.moveBack(p, &st, m.Source) })
		return nil
	}
	if !errors.Is(err, unix.EXDEV) {
		return err
	}
	e.undo = append(e.undo, func() error {
		// Also when ctx has ended: what is in a cache is not lost by a signal.
		return errors.Join(copyBack(context.WithoutCancel(ctx), p, m.Source), p.clear())
	})
	return copyTo(ctx, m.Source, p)
}

// moveBack returns what was moved. Something else in its place is dropped.
func (e *emulation) moveBack(p *place, st *unix.Stat_t, source string) error {
	if !p.is(st) {
		return errors.Join(fmt.Errorf("the command moved what was mounted on /%s away", p.path), p.clear())
	}
	return unix.Renameat(int(p.dir.Fd()), p.name, unix.AT_FDCWD, source)
}

// treeOf is the file or directory of a name in dir, as the only one in a Tree.
func treeOf(ctx context.Context, dir *os.File, name string) (*tree.Tree, error) {
	kept := &dirfd.Kept{}
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	for _, other := range names {
		if other != name {
			kept.Add(other)
		}
	}
	t, _, err := snapshot.Walk(ctx, dir, snapshot.Nothing(), tree.Empty(), snapshot.Options{Kept: kept})
	return t, err
}

// copyTo copies a source to a place, with owners, modes and times.
func copyTo(ctx context.Context, source string, to *place) error {
	from, err := os.Open(filepath.Dir(source))
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	return copyBetween(ctx, from, filepath.Base(source), to.dir, to.name)
}

// copyBack replaces a source by what is at the place. It is renamed into place when it is complete.
func copyBack(ctx context.Context, from *place, source string) error {
	fresh := source + ".new"
	to, err := os.Open(filepath.Dir(source))
	if err != nil {
		return err
	}
	defer func() { _ = to.Close() }()
	dir, err := dirfd.Open(from.dir, "", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	if err := copyBetween(ctx, dir, from.name, to, filepath.Base(fresh)); err != nil {
		return err
	}
	// Whenever we are killed, the source is the old one or the new one, whole.
	err = unix.Renameat2(unix.AT_FDCWD, fresh, unix.AT_FDCWD, source, unix.RENAME_EXCHANGE)
	if err == nil {
		return unpack.Remove(to, filepath.Base(fresh))
	}
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	// A file system that cannot exchange two.
	if err := unpack.Remove(to, filepath.Base(source)); err != nil {
		return err
	}
	return os.Rename(fresh, source)
}

func copyBetween(ctx context.Context, from *os.File, name string, to *os.File, as string) error {
	t, err := treeOf(ctx, from, name)
	if err != nil {
		return err
	}
	ino, err := t.Lookup(name)
	if err != nil {
		return err
	}
	_, err = unpack.Apply(ctx, to, tree.Empty(), tree.FromRoot(tree.NewDir(tree.Meta{}, tree.Entry{Name: as, Inode: ino})), unpack.Plain)
	return err
}

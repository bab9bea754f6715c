// SPDX-License-Identifier: Apache-2.0

package unpack

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/kaniko-go/kaniko-go/builder/internal/dirfd"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// handle is an open directory. It is finished (mode, owner, times) and closed when the last of its
// users lets go: the walk, the makers of its files, and the handles of its subdirectories.
type handle struct {
	fd     int
	path   string
	inode  *tree.Inode // nil for the root
	parent *handle
	refs   atomic.Int32
	keep   bool
	// kept is what of the directory belongs to others; passed says that all of it does, and there is no fd.
	kept   *dirfd.Kept
	passed bool
}

func (h *handle) release(u *unpacker) {
	for h != nil && h.refs.Add(-1) == 0 {
		if h.inode != nil {
			if err := u.finish(h.parent.fd, path.Base(h.path), h.fd, h.path, h.inode); err != nil {
				u.fail(fmt.Errorf("unpack /%s: %w", h.path, err))
			}
		}
		if !h.keep {
			_ = unix.Close(h.fd)
		}
		h = h.parent
	}
}

type link struct {
	dir  *handle
	name string
}

type unpacker struct {
	kind  Kind
	group *errgroup.Group

	mu      sync.Mutex
	skipped []string
	errs    []error
	links   map[*tree.Inode]link // the first name of each inode with several
	later   []laterLink
}

// laterLink is a further name, made when all first ones are there.
type laterLink struct {
	link
	path  string
	inode *tree.Inode
}

func (u *unpacker) fail(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.errs = append(u.errs, err)
}

func (u *unpacker) failed() error { return errors.Join(u.errs...) }

func (u *unpacker) skip(p string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.skipped = append(u.skipped, p)
}

// make carries out a change that is no directory.
func (u *unpacker) make(dir *handle, c tree.Change) error {
	name := path.Base(c.Path)
	if c.Inode == nil {
		return u.whiteout(dir, name)
	}
	if c.Inode.Shared && !u.first(dir, name, c) {
		return nil
	}
	err := u.create(dir, name, c)
	if errors.Is(err, unix.EEXIST) {
		if err = removeAll(dir.fd, name); err == nil {
			err = u.create(dir, name, c)
		}
	}
	return err
}

// first reports whether this is the first name of a shared inode; further ones are put off.
func (u *unpacker) first(dir *handle, name string, c tree.Change) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	dir.refs.Add(1) // until release
	if _, ok := u.links[c.Inode]; !ok {
		u.links[c.Inode] = link{dir, name}
		return true
	}
	u.later = append(u.later, laterLink{link{dir, name}, c.Path, c.Inode})
	return false
}

func (u *unpacker) hardLinks() error {
	for _, l := range u.later {
		first := u.links[l.inode]
		err := unix.Linkat(first.dir.fd, first.name, l.dir.fd, l.name, 0)
		if errors.Is(err, unix.EEXIST) {
			if err = removeAll(l.dir.fd, l.name); err == nil {
				err = unix.Linkat(first.dir.fd, first.name, l.dir.fd, l.name, 0)
			}
		}
		if errors.Is(err, unix.ENOENT) && slices.Contains(u.skipped, path.Join(first.dir.path, first.name)) {
			u.skip(l.path)
			continue
		}
		if err != nil {
			return fmt.Errorf("unpack /%s: hard link: %w", l.path, err)
		}
	}
	return nil
}

// release lets go of the directories that hard links held open.
func (u *unpacker) release() {
	for _, l := range u.links {
		l.dir.release(u)
	}
	for _, l := range u.later {
		l.dir.release(u)
	}
}

func (u *unpacker) whiteout(dir *handle, name string) error {
	if u.kind == Plain {
		return removeAll(dir.fd, name)
	}
	// The one device that needs no privilege since Linux 5.8.
	return unix.Mknodat(dir.fd, name, unix.S_IFCHR, 0)
}

func (u *unpacker) create(dir *handle, name string, c tree.Change) error {
	ino := c.Inode
	switch ino.Type {
	case tree.File:
		return u.file(dir, name, c)
	case tree.Symlink:
		if err := unix.Symlinkat(ino.Link(), dir.fd, name); err != nil {
			return err
		}
	case tree.Fifo:
		if err := unix.Mknodat(dir.fd, name, unix.S_IFIFO|uint32(ino.Mode), 0); err != nil {
			return err
		}
	case tree.CharDevice, tree.BlockDevice:
		typ := uint32(unix.S_IFCHR)
		if ino.Type == tree.BlockDevice {
			typ = unix.S_IFBLK
		}
		major, minor := ino.Device()
		err := unix.Mknodat(dir.fd, name, typ|uint32(ino.Mode), int(unix.Mkdev(major, minor)))
		if errors.Is(err, unix.EPERM) {
			u.skip(c.Path)
			return nil
		}
		if err != nil {
			return err
		}
	case tree.Dir:
		return errors.New("a directory where none was expected")
	}
	return u.finish(dir.fd, name, -1, c.Path, ino)
}

func (u *unpacker) file(dir *handle, name string, c tree.Change) error {
	fd, err := unix.Openat(dir.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	err = fill(f, c.Inode)
	if err == nil {
		err = u.finish(dir.fd, name, fd, c.Path, c.Inode)
	}
	return errors.Join(err, f.Close())
}

// ranged is a content that lies in one piece in a file, so that the kernel can copy it.
type ranged interface {
	FileRange() (f *os.File, off int64, err error)
}

func fill(f *os.File, ino *tree.Inode) error {
	if ino.Size == 0 {
		return nil
	}
	if r, ok := ino.Content().(ranged); ok {
		src, off, err := r.FileRange()
		if err != nil {
			return err
		}
		return copyRange(f, src, off, ino.Size)
	}
	if h, ok := ino.Content().(holed); ok {
		return fillHoles(f, ino.Size, h)
	}
	r, err := ino.Open()
	if err != nil {
		return err
	}
	n, err := io.Copy(f, io.LimitReader(r, ino.Size))
	if err == nil && n != ino.Size {
		err = io.ErrUnexpectedEOF
	}
	return errors.Join(err, r.Close())
}

func copyRange(dst, src *os.File, off, n int64) error {
	for n > 0 {
		done, err := unix.CopyFileRange(int(src.Fd()), &off, int(dst.Fd()), nil, int(min(n, 1<<30)), 0)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
			continue
		}
		if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPERM) {
			_, err := io.Copy(dst, io.NewSectionReader(src, off, n))
			return err
		}
		if err != nil {
			return err
		}
		if done == 0 {
			return io.ErrUnexpectedEOF
		}
		n -= int64(done)
	}
	return nil
}

// finish sets owner, mode, attributes and time, in the order in which the kernel does not undo one by the
// next: chown clears set-id bits and capabilities. fd is the open file or directory, -1 if there is none.
func (u *unpacker) finish(dirFD int, name string, fd int, p string, ino *tree.Inode) error {
	skipped := false
	if err := u.chown(dirFD, name, ino); err != nil {
		if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("owner %d:%d: %w", ino.UID, ino.GID, err)
		}
		skipped = true
	}
	if err := chmod(dirFD, name, fd, ino); err != nil {
		return fmt.Errorf("mode %o: %w", ino.Mode, err)
	}
	for attr, value := range ino.Xattrs {
		if err := setXattr(dirFD, name, fd, attr, value); err != nil {
			skipped = true
		}
	}
	if skipped {
		u.skip(p)
	}
	t := unix.Timespec{Sec: ino.MTime}
	if err := unix.UtimesNanoAt(dirFD, name, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("time %d: %w", ino.MTime, err)
	}
	return nil
}

// chown gives the file its owner, unless it was just made with it: in a new lower directory
// nothing has the set-group-id bit yet, so that what we make is ours.
func (u *unpacker) chown(dirFD int, name string, ino *tree.Inode) error {
	if u.kind == Lower && int(ino.UID) == os.Geteuid() && int(ino.GID) == os.Getegid() {
		return nil
	}
	return unix.Fchownat(dirFD, name, int(ino.UID), int(ino.GID), unix.AT_SYMLINK_NOFOLLOW)
}

func chmod(dirFD int, name string, fd int, ino *tree.Inode) error {
	switch {
	case ino.Type == tree.Symlink:
		return nil
	case fd >= 0:
		return unix.Fchmod(fd, uint32(ino.Mode))
	default:
		// The name was just made by us, and no RUN is alive: it is no link.
		return unix.Fchmodat(dirFD, name, uint32(ino.Mode), 0)
	}
}

func setXattr(dirFD int, name string, fd int, attr, value string) error {
	if fd >= 0 {
		return unix.Fsetxattr(fd, attr, []byte(value), 0)
	}
	return unix.Lsetxattr(fmt.Sprintf("/proc/self/fd/%d/%s", dirFD, name), attr, []byte(value), 0)
}

// removeAll removes name and what is below it. It is no error if there is nothing.
func removeAll(dirFD int, name string) error {
	err := unix.Unlinkat(dirFD, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return err
	}
	fd, openErr := openSame(dirFD, name)
	if errors.Is(openErr, unix.EXDEV) {
		return openErr
	}
	if openErr != nil {
		return err
	}
	d := os.NewFile(uintptr(fd), name)
	defer func() { _ = d.Close() }()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := removeAll(fd, n); err != nil {
			return err
		}
	}
	return unix.Unlinkat(dirFD, name, unix.AT_REMOVEDIR)
}

// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLowers is OVL_MAX_STACK of the kernel.
const maxLowers = 500

// assembly is the root of one process while it is put together and taken apart,
// all of it in a mount namespace that nobody else is in.
type assembly struct {
	root inRoot
	proc Process
	// freshProc tells whether we are in a PID namespace and mount its /proc.
	freshProc bool
	// ttyGroup is the group of terminals, "" when it has no place in the user namespace.
	ttyGroup string

	// stubs are the paths made only to be mounted on, parents first; binds what is mounted on them.
	stubs, binds []string
}

// assemble mounts fs and all that a process sees beside it.
func (a *assembly) assemble(fs FS) error {
	if err := mountBase(fs); err != nil {
		return err
	}
	var err error
	if a.root, err = openInRoot(fs.changed()); err != nil {
		return err
	}
	// The directories that every container has stay in the root, as with other builders.
	// Unless something else is mounted below them: then the others, too, take one away that they had to make.
	for _, d := range mountPoints() {
		keep := func(string) {}
		if a.proc.mountsBelow(d) {
			keep = func(stub string) { a.stubs = append(a.stubs, stub) }
			a.binds = append(a.binds, d)
		}
		if err := a.mountPoint(d, keep); err != nil {
			return err
		}
	}
	// Order: generated files are written to a scratch file system at /proc and bound from there; the
	// bindings outlive it. /proc itself comes last, so no link of the image can lead into it.
	for _, step := range []func() error{
		a.mountScratch, a.mountDev, a.mountSys, a.bindFiles, a.mountOwn, a.unmountScratch, a.mountProc, a.protect,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// mountPoints are the directories in which every container has something mounted.
func mountPoints() []string { return []string{"proc", "dev", "sys"} }

// mountBase mounts the root on the directory that receives the changes.
func mountBase(fs FS) error {
	if fs.overlay() {
		return mountOverlay(fs)
	}
	// Recursive, because a mount below that we may not uncover forbids the plain bind.
	if err := unix.Mount(fs.Dir, fs.Dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s: %w", fs.Dir, err)
	}
	return nil
}

// mountOverlay mounts the overlay on its own upper directory. Directories are
// named by descriptor number, relative to /proc/self/fd: that fits 500 lowers into the
// one page that mount(2) takes, needs no escaping, and shows a RUN no path of ours.
func mountOverlay(fs FS) error {
	names := make([]string, 0, len(fs.Lowers)+2)
	for _, dir := range append([]string{fs.Upper, fs.Work}, fs.Lowers...) {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", dir, err)
		}
		defer func() { _ = unix.Close(fd) }()
		names = append(names, strconv.Itoa(fd))
	}
	if err := unix.Chdir("/proc/self/fd"); err != nil {
		return err
	}
	defer func() { _ = unix.Chdir("/") }()
	// A volatile overlay skips fsync; the mark against a second mount is for
	// crashes of the machine, after which we never use the directories again.
	_ = os.RemoveAll(path.Join(fs.Work, "work", "incompat"))
	options := fmt.Sprintf("userxattr,index=off,upperdir=%s,workdir=%s,lowerdir=%s", names[0], names[1], strings.Join(names[2:], ":"))
	err := unix.Mount("overlay", fs.Upper, "overlay", 0, options+",volatile")
	if errors.Is(err, unix.EINVAL) {
		err = unix.Mount("overlay", fs.Upper, "overlay", 0, options)
	}
	if err != nil {
		return fmt.Errorf("mounting an overlay of %d layers with userxattr on %s: %w", len(fs.Lowers), fs.Upper, err)
	}
	return nil
}

// mountPoint makes d a directory to mount on. A link is refused, as runc does: what the
// image calls /proc must be what the process finds there.
func (a *assembly) mountPoint(d string, made func(string)) error {
	if err := a.root.ensure(d, true, made); err != nil {
		return err
	}
	st, err := a.root.stat(d)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		err = unix.ENOTDIR
	}
	if err != nil {
		return fmt.Errorf("/%s of the image cannot be mounted on: %w", d, err)
	}
	return nil
}

// mount is mount(2) on a path of the root.
func (a *assembly) mount(source, real, fstype string, flags uintptr, data string) error {
	err := a.root.with(real, func(handle string) error {
		return unix.Mount(source, handle, fstype, flags, data)
	})
	if err != nil {
		what := fstype
		if what == "" {
			what = source
		}
		return fmt.Errorf("mounting %s on /%s: %w", what, real, err)
	}
	return nil
}

// setReadOnly makes the mount that real is the top of read-only, with everything below.
func (a *assembly) setReadOnly(real string) error { return a.setAttr(real, unix.MOUNT_ATTR_RDONLY) }

// setAttr sets attributes of the mount that real is the top of, and of everything below.
func (a *assembly) setAttr(real string, set uint64) error {
	fd, err := a.root.open(real)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	attr := unix.MountAttr{Attr_set: set}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
		return fmt.Errorf("making /%s read-only (Linux 5.12 or later is needed): %w", real, err)
	}
	return nil
}

// pivot makes the assembled tree our root and drops the old one: nothing of
// the builder's file system can be reached from here on.
func (a *assembly) pivot() error {
	old, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(old) }()
	if err := unix.Fchdir(a.root.fd); err != nil {
		return err
	}
	// The old root is put on top of the new one and taken away at once; no directory is needed for it.
	err = unix.PivotRoot(".", ".")
	if errors.Is(err, unix.EPERM) {
		return moveRoot(err)
	}
	if err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Fchdir(old); err != nil {
		return err
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detaching the old root: %w", err)
	}
	return unix.Chdir("/")
}

// moveRoot is pivot for where the call itself is refused: the default seccomp profiles of containerd and Docker do so
// even to a container with SYS_ADMIN. The working directory, the new root, is put over the old one. What is below
// cannot be reached: ".." ends at the uppermost mount, and taking that away needs a SYS_ADMIN that no RUN has.
func moveRoot(refused error) error {
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("pivot_root: %w; moving the mount instead: %w", refused, err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("chroot: %w", err)
	}
	return unix.Chdir("/")
}

// takeApart removes the mount points that were made for the process. It goes
// through the mounted root and not its upper directory, so that a file deleted in
// an earlier layer stays deleted.
func (a *assembly) takeApart() error {
	for _, b := range slices.Backward(a.binds) {
		// What is on top of others goes first. Not there any more when the command moved things about.
		_ = a.root.with(b, func(handle string) error { return unix.Unmount(handle, unix.MNT_DETACH) })
	}
	return a.root.removeStubs(a.stubs)
}

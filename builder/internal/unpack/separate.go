// SPDX-License-Identifier: Apache-2.0

package unpack

import (
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/kaniko-go/kaniko-go/builder/internal/dirfd"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// separateName is what a copy is called until it has its place.
const separateName = ".kaniko-go-separate"

// Separate makes a file of each name of a file with several, in a root by itself that holds t, and reports whether there was any. An
// overlay does that to names of lower layers when one of them is written to, so a RUN must not find them to be one file here either.
// Contents, times and all other metadata stay; kept may be nil.
func Separate(root *os.File, t *tree.Tree, kept *dirfd.Kept) (did bool, err error) {
	seen := map[*tree.Inode]bool{}
	err = t.Walk(func(p string, ino *tree.Inode) error {
		if ino.Type != tree.File || !ino.Shared {
			return nil
		}
		if !seen[ino] {
			seen[ino] = true
			return nil
		}
		if kept.At(p).Whole() {
			return nil
		}
		one, err := separate(root, p)
		did = did || one
		if err != nil {
			return fmt.Errorf("unpack /%s: %w", p, err)
		}
		return nil
	})
	return did, err
}

func separate(root *os.File, p string) (bool, error) {
	dir, err := dirfd.Open(root, path.Dir(p), unix.O_RDONLY|unix.O_DIRECTORY)
	if gone(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = dir.Close() }()
	d, name := int(dir.Fd()), path.Base(p)
	var st, of unix.Stat_t
	if err := unix.Fstatat(d, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink < 2 {
		if gone(err) {
			err = nil
		}
		return false, err
	}
	if err := unix.Fstat(d, &of); err != nil {
		return false, err
	}
	src, err := openAt(d, name, unix.O_RDONLY, 0)
	if err != nil {
		return false, err
	}
	defer func() { _ = src.Close() }()
	// Left by a build that was killed, or the image's: nobody can want it.
	if err := unix.Unlinkat(d, separateName, 0); err != nil && !gone(err) {
		return false, err
	}
	dst, err := openAt(d, separateName, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return false, err
	}
	err = errors.Join(copyRange(dst, src, 0, st.Size), likeIt(dst, src, &st), dst.Close())
	if err == nil {
		err = unix.Renameat(d, separateName, d, name)
	}
	if err != nil {
		return false, errors.Join(err, ignoreGone(unix.Unlinkat(d, separateName, 0)))
	}
	times := []unix.Timespec{of.Atim, of.Mtim}
	return true, unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", d), times, 0)
}

// likeIt gives dst the metadata of src.
func likeIt(dst, src *os.File, st *unix.Stat_t) error {
	to, from := int(dst.Fd()), int(src.Fd())
	if err := errors.Join(unix.Ftruncate(to, st.Size), unix.Fchown(to, int(st.Uid), int(st.Gid)), unix.Fchmod(to, st.Mode&0o7777)); err != nil {
		return err
	}
	names := make([]byte, 64<<10)
	n, err := unix.Flistxattr(from, names)
	if err != nil && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	value := make([]byte, 64<<10)
	for rest := names[:max(n, 0)]; len(rest) > 0; {
		i := 0
		for rest[i] != 0 {
			i++
		}
		attr := string(rest[:i])
		rest = rest[i+1:]
		size, err := unix.Fgetxattr(from, attr, value)
		if err == nil {
			err = unix.Fsetxattr(to, attr, value[:size], 0)
		}
		// Those of the pod's own security module come by themselves.
		if err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENOTSUP) {
			return fmt.Errorf("attribute %s: %w", attr, err)
		}
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", to), []unix.Timespec{st.Atim, st.Mtim}, 0)
}

func openAt(dir int, name string, flags int, mode uint32) (*os.File, error) {
	fd, err := unix.Openat(dir, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func gone(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) }

func ignoreGone(err error) error {
	if gone(err) {
		return nil
	}
	return err
}

// SPDX-License-Identifier: Apache-2.0

package unpack

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/kaniko-go/kaniko-go/builder/internal/dirfd"
)

// Clear removes everything in the directory but what is kept and the directories that lead there. It never
// enters another mount: one that is not known is an error that names it.
func Clear(dir *os.File, kept *dirfd.Kept) error {
	d, err := dirfd.Open(dir, "", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	return emptyIn(d, "", kept)
}

// emptyDir empties the directory of that name but for what is kept in it.
func emptyDir(dirFD int, name string, kept *dirfd.Kept) error {
	fd, err := openSame(dirFD, name)
	if err != nil {
		return err
	}
	return emptyIn(os.NewFile(uintptr(fd), name), name, kept)
}

// emptyIn closes d.
func emptyIn(d *os.File, p string, kept *dirfd.Kept) error {
	defer func() { _ = d.Close() }()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		k := kept.Child(name)
		switch {
		case k.Whole():
		case k.Leads():
			err = emptyDir(int(d.Fd()), name, k)
		default:
			err = removeAll(int(d.Fd()), name)
		}
		if err != nil {
			var named *fs.PathError
			if errors.As(err, &named) {
				return err
			}
			return &fs.PathError{Op: "remove", Path: p + "/" + name, Err: err}
		}
	}
	return nil
}

// openSame opens a directory that is no link and lies in the same mount as the one that it is in.
func openSame(dirFD int, name string) (int, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat2(dirFD, name, &unix.OpenHow{
		Flags:   flags,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
	if errors.Is(err, unix.EXDEV) {
		return -1, fmt.Errorf("%w: something is mounted there", err)
	}
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		return unix.Openat(dirFD, name, flags, 0)
	}
	return fd, err
}

// Remove removes a name of the directory with everything below it; it is no error if there is nothing. Another mount is never entered.
func Remove(dir *os.File, name string) error { return removeAll(int(dir.Fd()), name) }

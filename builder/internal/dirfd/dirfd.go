// SPDX-License-Identifier: Apache-2.0

// Package dirfd opens files below a directory descriptor without ever following a
// symbolic link: what is opened lies where its path says, whoever may have
// exchanged a directory for a link in the meantime.
package dirfd

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Open opens path below dir. flags are those of open(2); O_NOFOLLOW, O_NONBLOCK (so that a fifo cannot
// hold us up) and O_CLOEXEC are added. A link in any component is ELOOP. path "" opens
// the directory itself anew. Errors are *fs.PathError.
func Open(dir *os.File, path string, flags int) (*os.File, error) {
	flags |= unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	if path == "" {
		path = "."
	}
	fd, err := unix.Openat2(int(dir.Fd()), path, &unix.OpenHow{
		Flags:   uint64(flags),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	// Old kernels lack the call, and old seccomp profiles refuse it.
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		fd, err = openSteps(int(dir.Fd()), path, flags)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// openSteps opens one component after the other.
func openSteps(dirFD int, path string, flags int) (int, error) {
	fd, own := dirFD, false
	for {
		name, rest, more := strings.Cut(path, "/")
		if name == ".." {
			return -1, unix.EXDEV
		}
		f := flags
		if more {
			f = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
		}
		next, err := unix.Openat(fd, name, f, 0)
		if own {
			_ = unix.Close(fd)
		}
		if err != nil || !more {
			return next, err
		}
		fd, own, path = next, true, rest
	}
}

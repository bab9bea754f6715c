// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is how many symbolic links one path may take, as in the kernel.
const maxLinks = 40

// inRoot resolves paths of a hostile tree below a directory descriptor. It relies on nobody
// changing the tree meanwhile: it is used only while no process of the image is alive.
type inRoot struct {
	fd int
}

func openInRoot(dir string) (inRoot, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return inRoot{}, fmt.Errorf("open %s: %w", dir, err)
	}
	return inRoot{fd}, nil
}

// at is name as the *at system calls want it.
func at(name string) string {
	if name == "" {
		return "."
	}
	return name
}

// real returns the relative path without symbolic links that name stands for
// in the root. Components that do not exist are kept as they are, so a
// dangling link leads to the place where its target would be made.
func (r inRoot) real(name string) (string, error) {
	todo := strings.Split(name, "/")
	real := ""
	for links := 0; len(todo) > 0; {
		c := todo[0]
		todo = todo[1:]
		switch c {
		case "", ".":
			continue
		case "..":
			real = strings.TrimPrefix(path.Dir("/"+real), "/")
			continue
		}
		next := path.Join(real, c)
		target, err := r.readlink(next)
		if err != nil {
			real = next
			continue
		}
		if links++; links > maxLinks {
			return "", &unlinkableError{name}
		}
		if path.IsAbs(target) {
			real = ""
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return real, nil
}

// unlinkableError is ELOOP with the path.
type unlinkableError struct{ path string }

func (e *unlinkableError) Error() string { return e.path + ": too many levels of symbolic links" }
func (e *unlinkableError) Unwrap() error { return unix.ELOOP }

func (r inRoot) readlink(name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(r.fd, name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// open opens a path that real returned, as a handle for mounting on. It fails
// rather than follow a link or leave the root.
func (r inRoot) open(real string) (int, error) {
	fd, err := unix.Openat2(r.fd, at(real), &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC | unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return -1, fmt.Errorf("open /%s in the root: %w", real, err)
	}
	return fd, nil
}

// with calls do with a path of this process by which the mount system calls reach real.
func (r inRoot) with(real string, do func(handle string) error) error {
	fd, err := r.open(real)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return do(fdPath(fd))
}

func fdPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// stat is lstat in the root.
func (r inRoot) stat(real string) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := unix.Fstatat(r.fd, at(real), &st, unix.AT_SYMLINK_NOFOLLOW)
	return st, err
}

// ensure makes real a directory or an empty file if it does not exist, and its
// missing parents. It calls made before each, parents first. The directories it writes
// to have the time of now afterwards, as with other builders; by itself that is no change for a layer.
func (r inRoot) ensure(real string, dir bool, made func(string)) error {
	parent := ""
	components := strings.Split(real, "/")
	for i, c := range components {
		name := path.Join(parent, c)
		_, err := r.stat(name)
		if errors.Is(err, unix.ENOENT) {
			made(name)
			err = r.make(name, dir || i < len(components)-1)
		}
		if err != nil {
			return fmt.Errorf("mount point /%s: %w", name, err)
		}
		parent = name
	}
	return nil
}

func (r inRoot) make(name string, dir bool) error {
	if dir {
		return unix.Mkdirat(r.fd, name, 0o755)
	}
	fd, err := unix.Openat(r.fd, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// keepTimes undoes what change does to the times of dir.
func (r inRoot) keepTimes(dir string, change func() error) error {
	st, err := r.stat(dir)
	if err != nil {
		return err
	}
	if err := change(); err != nil {
		return err
	}
	return unix.UtimesNanoAt(r.fd, at(dir), []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

// removeStubs removes the mount points that ensure made, if they are still
// what it made: empty. A child that has to stay keeps its parents.
func (r inRoot) removeStubs(stubs []string) error {
	var errs []error
	for i := len(stubs) - 1; i >= 0; i-- {
		if err := r.removeStub(stubs[i]); err != nil {
			errs = append(errs, fmt.Errorf("removing the mount point /%s: %w", stubs[i], err))
		}
	}
	return errors.Join(errs...)
}

func (r inRoot) removeStub(name string) error {
	// The command may have replaced a parent by a link; then the stub is not ours any more.
	fd, err := r.open(path.Dir(name))
	if err != nil {
		return nil // gone or replaced
	}
	defer func() { _ = unix.Close(fd) }()
	parent, base := inRoot{fd}, path.Base(name)
	st, err := parent.stat(base)
	if err != nil {
		return nil // gone
	}
	flags := 0
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		flags = unix.AT_REMOVEDIR
	case unix.S_IFREG:
		if st.Size != 0 {
			return nil
		}
	default:
		return nil
	}
	err = parent.keepTimes("", func() error { return unix.Unlinkat(fd, base, flags) })
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// openSelf returns our executable such that neither path nor descriptor can be
// used to write to it. A RUN can reach the file that its first process was executed from by
// /proc/self/exe; with the identity mapping it would be allowed to overwrite
// it, and the next RUN's first process would be the attacker's.
func openSelf() (*os.File, error) {
	f, err := readOnlyMount()
	if err != nil {
		f, err = sealedCopy()
	}
	if err != nil {
		return nil, err
	}
	return outOfTheWay(f)
}

// outOfTheWay moves a descriptor that is going to be executed to where the
// child does not put the descriptors that it is given, which happens before.
func outOfTheWay(f *os.File) (*os.File, error) {
	const above = 64
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, above)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// readOnlyMount clones the mount that our executable lies on and makes the
// clone read-only. It fails when the executable has no path here any more, and on Linux before 5.12.
func readOnlyMount() (*os.File, error) {
	path, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	var running, found unix.Stat_t
	err = errors.Join(
		unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}),
		unix.Stat("/proc/self/exe", &running), unix.Fstat(fd, &found))
	if err == nil && (running.Dev != found.Dev || running.Ino != found.Ino) {
		err = fmt.Errorf("%s is not what is running", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// sealedCopy costs the size of the executable in memory for as long as the builder runs.
func sealedCopy() (*os.File, error) {
	src, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	defer func() { _ = src.Close() }()
	// Some nodes (sysctl vm.memfd_noexec) let only those be executed that were made for it; kernels before 6.3 do not know how to ask.
	fd, err := unix.MemfdCreate("kaniko-go", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate("kaniko-go", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "kaniko-go")
	_, err = io.Copy(f, src)
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS,
			unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("copying the executable: %w", err), f.Close())
	}
	return f, nil
}

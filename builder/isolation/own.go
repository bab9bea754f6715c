// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// mountOwn makes the mounts that a process has for itself.
func (a *assembly) mountOwn() error {
	for i, m := range a.proc.Mounts {
		if err := a.mountOne(i, m); err != nil {
			return fmt.Errorf("mount on %s: %w", m.Target, err)
		}
	}
	return nil
}

func (a *assembly) mountOne(i int, m Mount) error {
	switch {
	case m.Tmpfs != nil:
		return a.mountTmpfs(m)
	case m.Data != nil:
		return a.mountData(fmt.Sprintf("%s/data-%d", scratch, i), m)
	default:
		return a.mountSource(m)
	}
}

func (a *assembly) mountTmpfs(m Mount) error {
	real, err := a.target(m.Target, true)
	if err != nil {
		return err
	}
	options := "mode=1777"
	if m.Tmpfs.Size > 0 {
		options += fmt.Sprintf(",size=%d", m.Tmpfs.Size)
	}
	if err := a.mount("tmpfs", real, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return err
	}
	a.binds = append(a.binds, real)
	return nil
}

// mountData puts the bytes into a file system of their own, so that they are never on a disk.
func (a *assembly) mountData(generated string, m Mount) error {
	fd, err := unix.Openat(a.root.fd, generated, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), generated)
	_, err = f.Write(m.Data.Data)
	if err == nil {
		err = f.Chown(int(m.Data.UID), int(m.Data.GID))
	}
	if err == nil {
		err = unix.Fchmod(fd, m.Data.Mode&0o777)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	real, err := a.target(m.Target, false)
	if err != nil {
		return err
	}
	if err := a.root.with(generated, func(handle string) error { return a.mount(handle, real, "", unix.MS_BIND, "") }); err != nil {
		return err
	}
	a.binds = append(a.binds, real)
	attr := uint64(unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV)
	if m.Data.Mode&0o111 == 0 {
		attr |= unix.MOUNT_ATTR_NOEXEC
	}
	return a.setAttr(real, attr)
}

func (a *assembly) mountSource(m Mount) error {
	st, err := os.Lstat(m.Source)
	if err != nil {
		return err
	}
	real, err := a.target(m.Target, st.IsDir())
	if err != nil {
		return err
	}
	if err := a.mount(m.Source, real, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	a.binds = append(a.binds, real)
	if m.ReadOnly {
		return a.setReadOnly(real)
	}
	return nil
}

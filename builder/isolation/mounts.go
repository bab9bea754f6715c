// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// scratch is where the generated files live until /proc is mounted over it.
const scratch = "proc"

// maskedPaths and readOnlyPaths are those of the default OCI configuration, as
// Docker and containerd have them: what in /proc and /sys tells about the node or changes it.
func maskedPaths() []string {
	return []string{
		"proc/acpi", "proc/asound", "proc/interrupts", "proc/kcore", "proc/keys", "proc/latency_stats",
		"proc/sched_debug", "proc/scsi", "proc/timer_list", "proc/timer_stats",
		"sys/devices/virtual/powercap", "sys/firmware",
	}
}

func readOnlyPaths() []string {
	return []string{"proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"}
}

func (a *assembly) mountScratch() error {
	return a.mount("tmpfs", scratch, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755")
}

func (a *assembly) unmountScratch() error {
	return a.root.with(scratch, func(handle string) error { return unix.Unmount(handle, unix.MNT_DETACH) })
}

// mountDev makes /dev: the pod's harmless devices, own terminals, shared memory
// and message queues. Devices cannot be made in a user namespace, only bound.
func (a *assembly) mountDev() error {
	if err := a.mount("tmpfs", "dev", "tmpfs", unix.MS_NOSUID|unix.MS_STRICTATIME, "mode=755,size=65536k"); err != nil {
		return err
	}
	for _, node := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		if _, err := os.Lstat("/dev/" + node); err != nil && node != "null" {
			continue // The pod has no such device, so neither has RUN.
		}
		if err := a.bind("/dev/"+node, "dev/"+node); err != nil {
			return err
		}
	}
	for _, d := range []string{"pts", "shm", "mqueue"} {
		if err := unix.Mkdirat(a.root.fd, "dev/"+d, 0o755); err != nil {
			return err
		}
	}
	pts := "newinstance,ptmxmode=0666,mode=0620"
	if a.ttyGroup != "" {
		pts += ",gid=" + a.ttyGroup
	}
	if err := a.mount("devpts", "dev/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, pts); err != nil {
		return err
	}
	shm := fmt.Sprintf("mode=1777,size=%d", a.proc.ShmSize)
	if err := a.mount("shm", "dev/shm", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, shm); err != nil {
		return err
	}
	// Some kernels are built without message queues.
	_ = a.mount("mqueue", "dev/mqueue", "mqueue", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	return a.linkDev()
}

func (a *assembly) linkDev() error {
	for _, l := range [][2]string{
		{"pts/ptmx", "ptmx"},
		{"/proc/self/fd", "fd"},
		{"/proc/self/fd/0", "stdin"},
		{"/proc/self/fd/1", "stdout"},
		{"/proc/self/fd/2", "stderr"},
		{"/proc/kcore", "core"},
	} {
		if _, err := os.Lstat(l[0]); l[1] == "core" && err != nil {
			continue // a kernel without it
		}
		if err := unix.Symlinkat(l[0], a.root.fd, "dev/"+l[1]); err != nil {
			return err
		}
	}
	return nil
}

// bind makes a file of the builder's container visible at real, which is in a file system of ours.
func (a *assembly) bind(source, real string) error {
	if err := a.root.ensure(real, false, func(string) {}); err != nil {
		return err
	}
	return a.mount(source, real, "", unix.MS_BIND, "")
}

// mountSys shows the container's own /sys, read-only with its cgroups. A fresh
// sysfs would need a network namespace of our own and is refused beside masked paths.
func (a *assembly) mountSys() error {
	if err := a.mount("/sys", "sys", "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	return a.setReadOnly("sys")
}

func (a *assembly) mountProc() error {
	if a.freshProc {
		return a.mount("proc", "proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	}
	return a.mount("/proc", "proc", "", unix.MS_BIND|unix.MS_REC, "")
}

// protect covers what a container must not see and write-protects what it must
// not change. In an identity-mapped namespace uid 0 is the owner of /proc/sys in a privileged pod.
func (a *assembly) protect() error {
	for _, p := range maskedPaths() {
		if err := a.mask(p); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	for _, p := range readOnlyPaths() {
		err := a.root.with(p, func(handle string) error {
			return unix.Mount(handle, handle, "", unix.MS_BIND|unix.MS_REC, "")
		})
		if err == nil {
			err = a.setReadOnly(p)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("protecting /%s: %w", p, err)
		}
	}
	return nil
}

func (a *assembly) mask(p string) error {
	st, err := a.root.stat(p)
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return a.mount("tmpfs", p, "tmpfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=0,nr_inodes=1")
	}
	return a.mount("/dev/null", p, "", unix.MS_BIND, "")
}

// bindFiles shows the generated files read-only, where links of the image lead to.
func (a *assembly) bindFiles() error {
	resolv, err := os.ReadFile("/etc/resolv.conf")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	files := append([]InlineFile{
		{Path: "/etc/resolv.conf", Data: resolv, Mode: 0o644},
		{Path: "/etc/hosts", Data: hosts(a.proc), Mode: 0o644},
	}, a.proc.Files...)
	for i, f := range files {
		if err := a.bindFile(fmt.Sprintf("%s/generated-%d", scratch, i), f); err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
	}
	return nil
}

func (a *assembly) bindFile(generated string, f InlineFile) error {
	fd, err := unix.Openat(a.root.fd, generated, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, f.Mode&0o777)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), generated)
	_, err = file.Write(f.Data)
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	real, err := a.target(f.Path, false)
	if err != nil {
		return err
	}
	err = a.root.with(generated, func(handle string) error { return a.mount(handle, real, "", unix.MS_BIND, "") })
	if err != nil {
		return err
	}
	a.binds = append(a.binds, real)
	return a.setReadOnly(real)
}

// target makes a path of the image something to mount on, and notes what of it is to be removed again.
func (a *assembly) target(p string, dir bool) (string, error) {
	real, err := a.root.real(p)
	if err != nil {
		return "", err
	}
	if real == "" {
		return "", unix.EISDIR
	}
	// What is made below these is on a file system that goes away by itself.
	first, _, _ := strings.Cut(real, "/")
	inImage := first != "dev" && first != "proc" && first != "sys"
	err = a.root.ensure(real, dir, func(stub string) {
		if inImage {
			a.stubs = append(a.stubs, stub)
		}
	})
	return real, err
}

// hosts is /etc/hosts for p.
func hosts(p Process) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "127.0.0.1\tlocalhost %s\n", p.Hostname)
	b.WriteString("::1\tlocalhost ip6-localhost ip6-loopback\n")
	for _, h := range p.ExtraHosts {
		fmt.Fprintf(&b, "%s\t%s\n", h.IP, h.Name)
	}
	return []byte(b.String())
}

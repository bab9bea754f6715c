// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kernel is what the kernel itself keeps or permits.
func kernel() []technique {
	list := []technique{
		{"keyrings", func(t *thief) {
			for _, ring := range []int{unix.KEY_SPEC_SESSION_KEYRING, unix.KEY_SPEC_USER_KEYRING, unix.KEY_SPEC_USER_SESSION_KEYRING, unix.KEY_SPEC_PROCESS_KEYRING} {
				b := make([]byte, 4096)
				n, err := unix.KeyctlBuffer(unix.KEYCTL_READ, ring, b, 0)
				if err != nil {
					continue
				}
				for i := 0; i+4 <= min(n, len(b)); i += 4 {
					key := *(*int32)(unsafe.Pointer(&b[i]))
					content := make([]byte, 4096)
					if n, err := unix.KeyctlBuffer(unix.KEYCTL_READ, int(key), content, 0); err == nil {
						t.look(content[:min(n, len(content))])
					}
				}
			}
		}},
		{"shared-memory", sharedMemory},
		{"message-queues", func(t *thief) {
			names, _ := filepath.Glob("/dev/mqueue/*")
			for _, name := range names {
				t.look(read(name))
			}
		}},
		{"terminal-input", func(t *thief) {
			b := byte('\n')
			for fd := range 3 {
				if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCSTI, uintptr(unsafe.Pointer(&b))); errno == 0 {
					t.can("type-into-the-terminal")
				}
			}
		}},
		{"new-devices", func(t *thief) {
			for _, d := range [][2]uint32{{1, 1}, {1, 2}, {7, 0}, {8, 0}, {252, 0}, {253, 0}, {254, 0}, {259, 0}} {
				for _, kind := range []uint32{unix.S_IFBLK, unix.S_IFCHR} {
					if unix.Mknod("/device", kind|0o600, int(unix.Mkdev(d[0], d[1]))) == nil {
						if b := read("/device"); len(b) > 0 {
							t.can("read-a-device")
							t.look(b)
						}
						_ = os.Remove("/device")
					}
				}
			}
		}},
		{"bpf", func(t *thief) {
			if _, _, errno := unix.Syscall(unix.SYS_BPF, 0, 0, 0); errno != unix.EPERM && errno != unix.ENOSYS {
				t.can("call-bpf")
			}
		}},
		{"userfaultfd", func(t *thief) {
			if fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, 0, 0, 0); errno == 0 {
				t.can("userfaultfd")
				_ = unix.Close(int(fd))
			}
		}},
	}
	for _, name := range []string{"/dev/mem", "/dev/kmem", "/dev/port", "/proc/kcore", "/dev/kmsg", "/proc/kmsg", "/proc/keys", "/proc/key-users", "/proc/timer_list", "/sys/kernel/debug", "/proc/sched_debug", "/sys/firmware/efi"} {
		list = append(list, technique{name, func(t *thief) {
			b := read(name)
			t.look(b)
			if len(b) > 0 && name != "/proc/key-users" {
				t.can("read")
			}
		}})
	}
	return list
}

// escapes leave the root. Each is tried by a process of its own, for some cannot be undone.
func escapes() []technique {
	var list []technique
	for _, verb := range []string{
		"chroot", "user-namespace", "mount", "bind-over-mask", "unmount", "pivot", "new-mount-api", "nested-namespace", "remount-proc", "move-root", "chroot-in-fd",
	} {
		list = append(list, technique{verb, func(t *thief) {
			cmd := exec.Command("/proc/self/exe", "child", verb)
			if verb == "nested-namespace" {
				cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS, UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}}
			}
			out, _ := cmd.CombinedOutput()
			t.look(out)
			for line := range strings.Lines(string(out)) {
				if what, ok := strings.CutPrefix(line, "CAN "); ok {
					t.can(strings.TrimSpace(what))
				}
			}
		}})
	}
	return list
}

// child tries one escape, and when something of it worked prints what it then reads.
func child(args []string) {
	runtime.LockOSThread()
	if !escape(args[0]) {
		return
	}
	for _, name := range planted() {
		os.Stdout.Write(append(read("/"+name), '\n'))
		os.Stdout.Write(append(read(name), '\n'))
	}
}

func escape(how string) bool {
	switch how {
	case "chroot", "chroot-in-fd":
		return leaveChroot(how == "chroot")
	case "user-namespace":
		return can(unix.Unshare(unix.CLONE_NEWUSER), "unshare") || can(unix.Unshare(unix.CLONE_NEWNS), "unshare") && uncover()
	case "nested-namespace":
		return can(nil, "unshare") && uncover()
	case "mount":
		return can(unix.Mount("x", "/mnt", "tmpfs", 0, ""), "mount") || can(unix.Mount("/", "/mnt", "", unix.MS_BIND|unix.MS_REC, ""), "bind")
	case "bind-over-mask":
		return can(unix.Mount("/etc", "/proc/sys", "", unix.MS_BIND, ""), "bind")
	case "unmount":
		return uncover()
	case "pivot":
		return can(unix.PivotRoot(".", "."), "pivot") && can(unix.Unmount(".", unix.MNT_DETACH), "unmount")
	case "move-root":
		return can(unix.Mount("/", "/mnt", "", unix.MS_MOVE, ""), "move-the-root")
	case "new-mount-api":
		fd, err := unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE)
		_, fsErr := unix.Fsopen("tmpfs", 0)
		return can(err, "clone-mounts") && can(unix.Fchdir(fd), "enter-cloned-mounts") || can(fsErr, "open-file-systems")
	case "remount-proc":
		return can(unix.Mount("proc", "/proc", "proc", 0, ""), "mount-proc") || can(unix.Mount("", "/proc/sys", "", unix.MS_REMOUNT|unix.MS_BIND, ""), "remount-proc")
	}
	return false
}

// can says what worked.
func can(err error, what string) bool {
	if err == nil {
		os.Stdout.WriteString("CAN " + what + "\n")
	}
	return err == nil
}

// leaveChroot leaves one that it makes; when there is another around it, it is then left, too.
func leaveChroot(enter bool) bool {
	_ = os.Mkdir("/jail", 0o700)
	fd, err := unix.Open("/", unix.O_RDONLY, 0)
	if err != nil || unix.Chroot("/jail") != nil {
		return false
	}
	defer unix.Unlinkat(fd, "jail", unix.AT_REMOVEDIR)
	if enter {
		_ = unix.Fchdir(fd)
	}
	for range 64 {
		_ = unix.Chdir("..")
	}
	var own, here unix.Stat_t
	if unix.Fstat(fd, &own) != nil || unix.Stat(".", &here) != nil || own.Dev == here.Dev && own.Ino == here.Ino {
		return false // no further than where it began
	}
	_ = unix.Chroot(".")
	return can(nil, "leave-the-root")
}

// uncover takes mounts away, so that what they cover shows.
func uncover() bool {
	any := false
	for range 8 {
		for _, dir := range []string{"/proc/sys", "/proc/kcore", "/proc/keys", "/sys/firmware", "/proc", "/sys", "/dev/shm", "/dev", "/etc/hosts", "/etc/resolv.conf", "/"} {
			any = can(unix.Unmount(dir, unix.MNT_DETACH), "unmount"+strings.ReplaceAll(dir, "/", "-")) || any
		}
	}
	return any
}

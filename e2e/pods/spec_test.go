// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// firstID is the first of the 65536 ids of a pod with a user namespace.
const firstID = 720896

func mappings() []specs.LinuxIDMapping {
	return []specs.LinuxIDMapping{{ContainerID: 0, HostID: firstID, Size: 65536}}
}

// bind is a mount of the machine's file or directory.
type bind struct {
	inside, outside string
	readOnly        bool
}

// spec is what containerd's CRI plugin would hand to runc.
func (k kind) spec(t *testing.T, root string, argv, env []string, binds []bind, ns sandbox, cgroup string) *specs.Spec {
	t.Helper()
	caps := k.capabilities
	if caps == nil {
		caps = defaultCapabilities()
	}
	if k.privileged {
		caps = allCapabilities()
	}
	effective := caps
	if k.uid != 0 {
		effective = nil
	}
	s := &specs.Spec{
		Version:  "1.2.0",
		Root:     &specs.Root{Path: root},
		Hostname: "pod",
		Process: &specs.Process{
			Args: argv, Env: env, Cwd: "/", NoNewPrivileges: k.noNewPrivileges,
			User:         specs.User{UID: k.uid, GID: k.uid},
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: effective, Permitted: effective},
		},
		Linux: &specs.Linux{
			CgroupsPath: cgroup,
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace},
				{Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace},
				{Type: specs.MountNamespace},
				{Type: specs.NetworkNamespace, Path: ns.network()},
			},
			Resources: &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: k.privileged, Access: "rwm"}}},
		},
	}
	s.Mounts = k.systemMounts()
	for _, b := range binds {
		m := specs.Mount{Destination: b.inside, Source: b.outside, Type: "bind", Options: []string{"rbind", "rprivate", "rw"}}
		if b.readOnly {
			m.Options[2] = "ro"
		}
		if k.ownUsers {
			m.UIDMappings, m.GIDMappings = mappings(), mappings()
		}
		s.Mounts = append(s.Mounts, m)
	}
	if k.ownUsers {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace, Path: ns.users()})
	}
	if k.privileged {
		s.Linux.Devices = hostDevices(t)
	}
	if !k.privileged && !k.unmasked {
		s.Linux.MaskedPaths = []string{
			"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi",
			"/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
		}
		s.Linux.ReadonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
	}
	if k.seccomp {
		profile, err := seccomp.GetDefaultProfile(s)
		if err != nil {
			t.Fatal(err)
		}
		s.Linux.Seccomp = profile
	}
	return s
}

func (k kind) systemMounts() []specs.Mount {
	access := "ro"
	if k.privileged {
		access = "rw"
	}
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", access}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", access}},
	}
}

// allCapabilities are what this process has, which is all that root has here.
func allCapabilities() []string {
	names := []string{
		"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE",
		"NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN",
		"SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE",
		"MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE",
	}
	var have []string
	for bit, name := range names {
		if ok, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(bit), 0, 0, 0); err == nil && ok == 1 {
			have = append(have, "CAP_"+name)
		}
	}
	return have
}

// hostDevices are the devices of the machine, as a privileged container has them.
func hostDevices(t *testing.T) []specs.LinuxDevice {
	t.Helper()
	var list []specs.LinuxDevice
	for _, pattern := range []string{"/dev/*", "/dev/[!ps]*/*"} { // not /dev/pts and /dev/shm
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			var st unix.Stat_t
			if path == "/dev/console" || strings.HasPrefix(path, "/dev/tty") || unix.Lstat(path, &st) != nil {
				continue
			}
			mode := os.FileMode(st.Mode & 0o777)
			device := specs.LinuxDevice{Path: path, Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)), FileMode: &mode, UID: &st.Uid, GID: &st.Gid}
			switch st.Mode & unix.S_IFMT {
			case unix.S_IFBLK:
				device.Type = "b"
			case unix.S_IFCHR:
				device.Type = "c"
			default:
				continue
			}
			list = append(list, device)
		}
	}
	return list
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// files are what the file system gives, mounts included.
func files() []technique {
	return []technique{
		{"well-known-files", func(t *thief) {
			for _, name := range planted() {
				t.look(read("/" + name))
			}
		}},
		{"every-file", everything},
		{"open-by-handle", byHandle},
		{"write-to-the-pod", writable},
		{"hard-link", func(t *thief) {
			for _, name := range planted() {
				if os.Link("/"+name, "/stolen") == nil {
					t.look(read("/stolen"))
					_ = os.Remove("/stolen")
				}
			}
		}},
		{"dotdot", func(t *thief) {
			for _, name := range planted() {
				t.look(read(strings.Repeat("../", 64) + name))
				t.look(read("/proc/self/cwd/" + strings.Repeat("../", 64) + name))
				t.look(read("/proc/self/root/" + name))
				t.look(read("/proc/thread-self/root/../" + name))
			}
		}},
	}
}

// everything reads the whole file system but for /proc and /sys.
func everything(t *thief) {
	_ = filepath.WalkDir("/", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if d.IsDir() {
			if path == "/proc" || path == "/sys" || path == "/dev" {
				return fs.SkipDir
			}
			return nil
		}
		if d.Type().IsRegular() && d.Name() != "thief" {
			if b := read(path); interesting(b) {
				t.look(b)
			}
		}
		return nil
	})
	t.look(read("/dev/termination-log"))
	names, _ := filepath.Glob("/dev/shm/*")
	for _, name := range names {
		t.look(read(name))
	}
}

// byHandle opens files by number, on the file system of whatever file there is.
func byHandle(t *thief) {
	for _, at := range []string{"/", "/etc/resolv.conf", "/etc/hosts", "/dev", "/proc"} {
		mount, err := unix.Open(at, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		for inode := uint32(2); inode < 64; inode++ {
			raw := make([]byte, 8)
			raw[0], raw[1] = byte(inode), byte(inode>>8)
			if fd, err := unix.OpenByHandleAt(mount, unix.NewFileHandle(1, raw), unix.O_RDONLY); err == nil {
				t.can("open-by-handle")
				_ = unix.Close(fd)
			}
		}
		_ = unix.Close(mount)
	}
}

// storeDir is KANIKO_DIR where nobody sets it.
const storeDir = "/kaniko/work"

// writable finds what of the pod could be written to. It opens, and writes nothing.
func writable(t *thief) {
	for path, name := range map[string]string{
		"/dev/termination-log": "termination-message", "/tekton/results/private": "results", "/workspace/other/private": "workspace", "/cache/private": "cache",
		storeDir + "/private": "store", "/kaniko/executor": "builder", "/kaniko/.docker/config.json": "credentials", "/etc/resolv.conf": "resolv.conf", "/etc/hosts": "hosts",
		"/proc/sysrq-trigger": "sysrq", "/proc/sys/kernel/core_pattern": "core-pattern", "/sys/fs/cgroup/pids/cgroup.procs": "cgroup",
	} {
		f, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK, 0)
		if err == nil {
			t.can("write-" + name)
			_ = f.Close()
		}
	}
}

// sockets are servers in the pod.
func sockets() []technique {
	return []technique{
		{"sockets-in-files", func(t *thief) {
			_ = filepath.WalkDir("/", func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() && (path == "/proc" || path == "/sys") {
					return fs.SkipDir
				}
				if err == nil && d.Type()&fs.ModeSocket != 0 {
					ask(t, path)
				}
				return nil
			})
		}},
		{"sockets-of-proc", func(t *thief) {
			for line := range strings.Lines(string(read("/proc/net/unix"))) {
				if f := strings.Fields(line); len(f) == 8 {
					ask(t, f[7])
					for _, pid := range others() {
						ask(t, "/proc/"+pid+"/root"+f[7])
					}
				}
			}
		}},
		{"agent-variable", func(t *thief) { ask(t, os.Getenv("SSH_AUTH_SOCK")) }},
		{"metadata-service", func(t *thief) {
			for _, address := range []string{"169.254.169.254:80", "[fd00:ec2::254]:80", "169.254.170.2:80", "127.0.0.1:10250", "127.0.0.1:10255", "10.96.0.1:443"} {
				if c, err := net.DialTimeout("tcp", address, 100*time.Millisecond); err == nil {
					t.can("connect-to-" + address)
					_ = c.Close()
				}
			}
		}},
		{"raw-socket", func(t *thief) {
			if fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0x0300); err == nil {
				t.can("sniff")
				_ = unix.Close(fd)
			}
		}},
	}
}

func ask(t *thief, path string) {
	if path == "" {
		return
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err != nil {
		return
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	_, _ = c.Write([]byte{0, 0, 0, 1, 11})
	b := make([]byte, 4096)
	n, _ := c.Read(b)
	t.look(b[:max(n, 0)])
}

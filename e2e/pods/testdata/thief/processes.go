// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// processes are what /proc shows of others.
func processes() []technique {
	list := []technique{
		{"own-environment", func(t *thief) { t.look([]byte(strings.Join(os.Environ(), "\n"))) }},
		{"environment-of-parent", func(t *thief) { t.look(read(fmt.Sprintf("/proc/%d/environ", os.Getppid()))) }},
		{"inherited-descriptors", inherited},
		{"descriptors-of-others", descriptors},
		{"roots-of-others", func(t *thief) { through(t, "root") }},
		{"directories-of-others", func(t *thief) { through(t, "cwd") }},
		{"programs-of-others", programs},
		{"namespaces-of-others", join},
		{"tasks-of-others", func(t *thief) {
			names, _ := filepath.Glob("/proc/[0-9]*/task/*/environ")
			for _, name := range names {
				t.look(read(name))
			}
		}},
	}
	for _, file := range []string{"environ", "cmdline", "auxv", "maps", "smaps", "stack", "syscall", "io", "personality", "mountinfo", "pagemap", "wchan", "comm"} {
		list = append(list, technique{file + "-of-others", func(t *thief) {
			for _, pid := range others() {
				t.look(read("/proc/" + pid + "/" + file))
			}
		}})
	}
	return list
}

// read gives what can be read of a file, 1 MiB at most.
func read(name string) []byte {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, 1<<20))
	return b
}

func inherited(t *thief) {
	for fd := 3; fd < 1024; fd++ {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil {
			continue
		}
		link, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		if strings.HasPrefix(link, "anon_inode:") || strings.HasPrefix(link, "/sys/fs/cgroup") {
			continue // the Go runtime's own
		}
		t.look(read(fmt.Sprintf("/proc/self/fd/%d", fd)))
	}
}

func descriptors(t *thief) {
	for _, pid := range others() {
		names, _ := filepath.Glob("/proc/" + pid + "/fd/*")
		for _, name := range names {
			t.look(read(name))
		}
		infos, _ := filepath.Glob("/proc/" + pid + "/fdinfo/*")
		for _, name := range infos {
			t.look(read(name))
		}
		mapped, _ := filepath.Glob("/proc/" + pid + "/map_files/*")
		for _, name := range mapped {
			t.look(read(name))
		}
	}
}

// planted are where a pod keeps what it should not give away.
func planted() []string {
	return []string{
		"kaniko/.docker/config.json", "kaniko/secret", "var/run/secrets/kubernetes.io/serviceaccount/token", "run/secrets/kubernetes.io/serviceaccount/token",
		"workspace/other/private", "workspace/source/private", "cache/private", "dev/termination-log", "tekton/results/private", storeDir[1:] + "/private", "root/.docker/config.json",
		"root/.netrc", "root/.git-credentials", "root/.aws/credentials", "tekton/creds-secrets/x", "var/run/argo/template",
	}
}

func through(t *thief, link string) {
	for _, pid := range others() {
		for _, name := range planted() {
			t.look(read("/proc/" + pid + "/" + link + "/" + name))
			t.look(read("/proc/" + pid + "/" + link + "/../../../../" + name))
		}
	}
}

func programs(t *thief) {
	for _, pid := range others() {
		name, _ := os.Readlink("/proc/" + pid + "/exe")
		if f, err := os.OpenFile("/proc/"+pid+"/exe", os.O_WRONLY, 0); err == nil {
			t.can("write-" + filepath.Base(name))
			_ = f.Close()
		}
		b := read("/proc/" + pid + "/exe")
		if len(b) > 0 {
			t.look(b)
		}
	}
}

func join(t *thief) {
	for _, pid := range others() {
		for _, ns := range []string{"mnt", "user", "pid", "net", "ipc", "uts"} {
			fd, err := unix.Open("/proc/"+pid+"/ns/"+ns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				continue
			}
			own, _ := os.Readlink("/proc/self/ns/" + ns)
			other, _ := os.Readlink("/proc/" + pid + "/ns/" + ns)
			if own != other && unix.Setns(fd, 0) == nil {
				t.can("join-" + ns)
			}
			_ = unix.Close(fd)
		}
	}
}

// memory is that of other processes.
func memory() []technique {
	return []technique{
		{"mem-of-others", func(t *thief) {
			for _, pid := range others() {
				f, err := os.Open("/proc/" + pid + "/mem")
				if err != nil {
					continue
				}
				for _, r := range ranges(pid) {
					b := make([]byte, r[1]-r[0])
					n, _ := f.ReadAt(b, int64(r[0]))
					t.look(b[:max(n, 0)])
				}
				_ = f.Close()
			}
		}},
		{"process-vm-readv", func(t *thief) {
			for _, pid := range others() {
				n, _ := strconv.Atoi(pid)
				for _, r := range append(ranges(pid), [2]uintptr{0x400000, 0x500000}, [2]uintptr{0xc000000000, 0xc000400000}) {
					b := make([]byte, r[1]-r[0])
					local := []unix.Iovec{{Base: &b[0], Len: uint64(len(b))}}
					if got, err := unix.ProcessVMReadv(n, local, []unix.RemoteIovec{{Base: r[0], Len: len(b)}}, 0); err == nil {
						t.look(b[:got])
					}
				}
			}
		}},
		{"ptrace", func(t *thief) {
			for _, pid := range others() {
				n, _ := strconv.Atoi(pid)
				if isOurs(n) {
					continue
				}
				if _, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(n), 0, 0, 0, 0); errno == 0 {
					t.can("seize-" + name(pid))
				}
			}
		}},
		{"pidfd-getfd", func(t *thief) {
			for _, pid := range others() {
				n, _ := strconv.Atoi(pid)
				fd, err := unix.PidfdOpen(n, 0)
				if err != nil {
					continue
				}
				for target := range 64 {
					if got, err := unix.PidfdGetfd(fd, target, 0); err == nil {
						t.look(read(fmt.Sprintf("/proc/self/fd/%d", got)))
						if !isOurs(n) {
							t.can("take-descriptors-of-" + name(pid))
						}
						_ = unix.Close(got)
					}
				}
				_ = unix.Close(fd)
			}
		}},
		{"kcmp", func(t *thief) {
			for _, pid := range others() {
				n, _ := strconv.Atoi(pid)
				if _, _, errno := unix.RawSyscall6(unix.SYS_KCMP, uintptr(os.Getpid()), uintptr(n), 1, 0, 0, 0); errno == 0 && !isOurs(n) {
					t.can("compare-with-" + name(pid))
				}
			}
		}},
	}
}

// isOurs tells whether a process belongs to the RUN: it shares our mount namespace and we may look at it, or is our parent.
func isOurs(pid int) bool {
	own, _ := os.Readlink("/proc/self/root")
	root, err := os.Readlink(fmt.Sprintf("/proc/%d/root", pid))
	comm := name(strconv.Itoa(pid))
	return err == nil && own == root && (comm == "sh" || comm == "thief" || comm == "busybox")
}

func name(pid string) string {
	return strings.TrimSpace(string(read("/proc/" + pid + "/comm")))
}

// ranges are the writable memory of a process, in pieces.
func ranges(pid string) [][2]uintptr {
	var list [][2]uintptr
	for line := range strings.Lines(string(read("/proc/" + pid + "/maps"))) {
		var a, b uintptr
		var mode string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &a, &b, &mode); n == 3 && strings.HasPrefix(mode, "rw") && len(list) < 2000 {
			for ; a < b; a += 4 << 20 {
				list = append(list, [2]uintptr{a, min(a+4<<20, b)})
			}
		}
	}
	return list
}

// sharedMemory reads that of System V.
func sharedMemory(t *thief) {
	for id := range 64 {
		if b, err := unix.SysvShmAttach(id, 0, unix.SHM_RDONLY); err == nil {
			t.look(b)
			_ = unix.SysvShmDetach(b)
		}
	}
}

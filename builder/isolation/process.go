// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"fmt"
	"io"
	"net/netip"
	"path"
	"strings"
	"time"
)

// DefaultHostname is what RUN sees as its host name, as in BuildKit.
const DefaultHostname = "buildkitsandbox"

// DefaultShmSize is the size of /dev/shm in bytes.
const DefaultShmSize = 64 << 20

// Networks of a process.
const (
	// NetworkHost is the network namespace of the builder's own container.
	NetworkHost = ""
	// NetworkNone is a new network namespace with nothing but a loopback interface.
	NetworkNone = "none"
)

// FS is the root of a process: an overlay when Lowers, Upper or Work is set, a
// plain directory otherwise. All paths are absolute and trusted: they are the
// builder's, never the image's.
type FS struct {
	// Lowers are the read-only directories of the overlay, the newest layer first.
	Lowers []string
	// Upper receives the changes, Work is overlay's scratch directory; both on one file system.
	Upper, Work string
	// Dir is used as it is, writable.
	Dir string
}

// overlay tells which of the two kinds f is.
func (f FS) overlay() bool { return f.Upper != "" }

// changed is the directory in which the process's writes end up.
func (f FS) changed() string {
	if f.overlay() {
		return f.Upper
	}
	return f.Dir
}

func (f FS) validate() error {
	if f.overlay() == (f.Dir != "") {
		return fmt.Errorf("root file system: either an overlay or a directory, got upper %q and directory %q", f.Upper, f.Dir)
	}
	if !f.overlay() {
		return nil
	}
	if f.Work == "" || len(f.Lowers) == 0 {
		return fmt.Errorf("root file system: an overlay needs lower directories and a work directory")
	}
	if len(f.Lowers) > maxLowers {
		return fmt.Errorf("root file system: %d lower directories, overlay takes at most %d", len(f.Lowers), maxLowers)
	}
	return nil
}

// Host is a line of /etc/hosts.
type Host struct {
	Name string
	IP   netip.Addr
}

// Ulimit is a resource limit by its name in ulimit(1) of Docker: "nofile", "nproc", "core", ...
// Values are in the unit of setrlimit(2); [Unlimited] lifts the limit.
type Ulimit struct {
	Name       string
	Soft, Hard uint64
}

// Unlimited is RLIM_INFINITY.
const Unlimited = ^uint64(0)

// InlineFile is a read-only file that exists only while the process runs.
type InlineFile struct {
	// Path is absolute in the root; missing parents are made and removed again.
	Path string
	Data []byte
	// Mode is the permission bits; the owner is 0:0.
	Mode uint32
}

// Mount is a directory or file that a process sees and that is no part of its root. Exactly
// one of Source, Tmpfs and Data is set.
type Mount struct {
	// Target is absolute in the root; links in it are followed there. What is missing is made, and removed again.
	Target string
	// Source is a directory, file or socket of the builder, absolute and trusted.
	Source string
	// Tmpfs is an empty file system in memory.
	Tmpfs *Tmpfs
	// Data is a file in memory.
	Data *DataFile
	// ReadOnly applies to Source.
	ReadOnly bool
}

// Tmpfs is an empty file system.
type Tmpfs struct {
	// Size bounds it in bytes; 0 is the kernel's default, half of the memory.
	Size int64
}

// DataFile is a read-only file in memory. It can only be executed if Mode has an x.
type DataFile struct {
	Data     []byte
	Mode     uint32
	UID, GID uint32
}

// Process is one RUN.
type Process struct {
	// Args is the command; Args[0] without a slash is looked up in PATH of Env, in the root.
	Args []string
	// Env is the whole environment, KEY=VALUE; nothing is added to it.
	Env []string
	// Dir is the working directory in the root. It must exist.
	Dir string
	// UID, GID and Groups are those of the user, already looked up. Supplementary groups
	// that have no place in the user namespace are left out; UID and GID must have one.
	UID, GID uint32
	Groups   []uint32
	// Hostname defaults to DefaultHostname, ShmSize (bytes) to DefaultShmSize.
	Hostname   string
	ExtraHosts []Host
	// Network is NetworkHost or NetworkNone.
	Network string
	ShmSize int64
	Ulimits []Ulimit
	// Files are seen read-only by the process and are not in the root afterwards.
	Files []InlineFile
	// Mounts are made in this order, after everything that every process sees.
	Mounts []Mount
	// Stdout and Stderr receive the output through pipes of ours; nil discards it. They are
	// written to from different goroutines, at the same time when they differ.
	Stdout, Stderr io.Writer
	// Timeout ends the process as a cancelled context does; 0 is none.
	Timeout time.Duration
}

// mountsBelow reports whether something of p's own is mounted below a directory of the root.
func (p Process) mountsBelow(dir string) bool {
	for _, f := range p.Files {
		if strings.HasPrefix(f.Path, "/"+dir+"/") {
			return true
		}
	}
	for _, m := range p.Mounts {
		if strings.HasPrefix(m.Target, "/"+dir+"/") {
			return true
		}
	}
	return false
}

func (p Process) validate() error {
	if len(p.Args) == 0 {
		return fmt.Errorf("process: no command")
	}
	for _, list := range [][]string{p.Args, p.Env} {
		for _, s := range list {
			if strings.IndexByte(s, 0) >= 0 {
				return fmt.Errorf("process: %q contains a NUL byte", s)
			}
		}
	}
	if p.Network != NetworkHost && p.Network != NetworkNone {
		return fmt.Errorf("process: unknown network %q", p.Network)
	}
	for _, f := range p.Files {
		if !path.IsAbs(f.Path) {
			return fmt.Errorf("process: file %q is not absolute", f.Path)
		}
	}
	for _, m := range p.Mounts {
		if !path.IsAbs(m.Target) || path.Clean(m.Target) == "/" {
			return fmt.Errorf("process: mount on %q", m.Target)
		}
	}
	for _, u := range p.Ulimits {
		if _, ok := resourceOf(u.Name); !ok {
			return fmt.Errorf("process: unknown ulimit %q", u.Name)
		}
	}
	return nil
}

// withDefaults returns p as it crosses to the processes of the RUN: complete and without our writers.
func (p Process) withDefaults() Process {
	p.Stdout, p.Stderr = nil, nil
	if p.Hostname == "" {
		p.Hostname = DefaultHostname
	}
	if p.ShmSize == 0 {
		p.ShmSize = DefaultShmSize
	}
	if p.Dir == "" {
		p.Dir = "/"
	}
	return p
}

// ExitError is a command that ran and failed, or that could not be started
// for a reason that lies in the image (no such file, not executable).
type ExitError struct {
	// Code is the exit code; 128 + Signal when a signal ended the command; 126 or 127 when it could not be started.
	Code int
	// Signal that ended the command, 0 for none.
	Signal int
	// TimedOut is set when Process.Timeout ended the command.
	TimedOut bool
	// OOM is set when the command was killed and the cgroup counted a kill for want of memory.
	OOM bool
	// Reason is why the command could not be started, in the words of other builders; "" when it ran.
	Reason string
}

// Error is "exit code: N" with what else is known.
func (e *ExitError) Error() string {
	s := fmt.Sprintf("exit code: %d", e.Code)
	switch {
	case e.Reason != "":
		s = fmt.Sprintf("%s: exit code: %d", e.Reason, e.Code)
	case e.TimedOut:
		s = fmt.Sprintf("timed out (exit code: %d)", e.Code)
	case e.OOM:
		s = fmt.Sprintf("killed: out of memory (exit code: %d)", e.Code)
	}
	return s
}

// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// TamperError is a file of the builder's own that was changed while a RUN could reach it. It belongs to the exit class
// "integrity".
type TamperError struct{ Path string }

func (e *TamperError) Error() string {
	return fmt.Sprintf("%s: the command changed a file of the builder's own", e.Path)
}

// fileStamp changes whenever anything of a file does.
type fileStamp struct {
	ino   uint64
	size  int64
	ctime unix.Timespec
}

// stamps lists the files below the directories that are there and are complete. Ones that cannot be read any more are left out.
func stamps(dirs []string, skip func(path string) bool) map[string]fileStamp {
	out := map[string]fileStamp{}
	for _, dir := range dirs {
		_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err != nil || skip != nil && skip(p) {
				if d != nil && d.IsDir() {
					return fs.SkipDir
				}
				return nil
			}
			var st unix.Stat_t
			if !d.IsDir() && unix.Lstat(p, &st) == nil {
				out[p] = fileStamp{st.Ino, st.Size, st.Ctim}
			}
			return nil
		})
	}
	return out
}

// ownFiles are those that a RUN in place could reach but must not have touched: finished blobs, files put aside, the program.
func (n *InPlace) ownFiles() map[string]fileStamp {
	dirs := []string{filepath.Join(n.o.Dir, "blobs"), filepath.Join(n.root.Name(), asideName), n.program}
	lock := filepath.Join(n.root.Name(), asideName, hostsName)
	return stamps(slices.DeleteFunc(dirs, func(d string) bool { return d == "" }), func(p string) bool {
		return p == lock || strings.HasPrefix(filepath.Base(p), socketPrefix)
	})
}

// untouched compares what was with what is. Files that the builder itself removed in the meantime are none of the store's, which
// keeps what it has until the end.
func untouched(before, after map[string]fileStamp) error {
	for p, was := range before {
		if is, ok := after[p]; !ok || is != was {
			return &TamperError{p}
		}
	}
	return nil
}

// orchestrators write below these while a RUN runs, as does the kubelet when it renews a token.
func orchestrators() []string {
	return []string{"/tekton", "/var/run/argo", "/run/argo", "/var/run/secrets", "/run/secrets"}
}

// virtual tells whether something that is written at a path is in no image anywhere: Docker, too, has a mount there.
func virtual(p string) bool {
	switch p {
	case "/etc/resolv.conf", "/etc/hosts", "/etc/hostname", "/proc", "/sys", "/dev":
		return true
	}
	return strings.HasPrefix(p, "/proc/") || strings.HasPrefix(p, "/sys/") || strings.HasPrefix(p, "/dev/")
}

// foreign lists the writable mounts in which a RUN must not leave anything, but for those that hold files of the builder or
// of its mounts.
func (n *InPlace) foreign(p Process) []string {
	ours := []string{n.o.Dir}
	for _, m := range p.Mounts {
		if m.Source != "" {
			ours = append(ours, m.Source)
		}
	}
	var out []string
	for _, m := range n.mounts {
		if m.path == "/" || m.readOnly || virtual(m.path) || m.fstype == "proc" || m.fstype == "sysfs" || strings.HasPrefix(m.fstype, "cgroup") {
			continue
		}
		within := func(dir string) bool { return m.path == dir || strings.HasPrefix(m.path, dir+"/") }
		holds := func(file string) bool { return strings.HasPrefix(file, m.path+"/") }
		if slices.ContainsFunc(orchestrators(), within) || slices.ContainsFunc(ours, holds) {
			continue
		}
		out = append(out, m.path)
	}
	return out
}

// lost is a file that RUN wrote below a mount, nil if there is none.
func (n *InPlace) lost(before, after map[string]fileStamp) error {
	var first string
	for p, is := range after {
		if was, ok := before[p]; (!ok || was != is) && (first == "" || p < first) {
			first = p
		}
	}
	for p := range before {
		if _, ok := after[p]; !ok && (first == "" || p < first) {
			first = p
		}
	}
	if first == "" {
		return nil
	}
	return fmt.Errorf("%s was written by the command, but %s is mounted there and nothing below it can be in the image; "+
		"write elsewhere, or mount that volume elsewhere", first, n.mountOf(first))
}

// mountOf is the innermost mount point above a path.
func (n *InPlace) mountOf(p string) string {
	best := "/"
	for _, m := range n.mounts {
		if (m.path == p || strings.HasPrefix(p, m.path+"/")) && len(m.path) > len(best) {
			best = m.path
		}
	}
	return best
}

// restoreHosts undoes what addHosts did, also for a build that was killed.
func restoreHosts(dir *os.File) error {
	b, err := os.ReadFile(filepath.Join(fdPath(int(dir.Fd())), hostsName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.WriteFile(hostsFile, b, 0o644); err != nil { //nolint:gosec // the container's own
		return err
	}
	return unix.Unlinkat(int(dir.Fd()), hostsName, 0)
}

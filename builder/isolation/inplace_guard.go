// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
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
	return stamps(slices.DeleteFunc(dirs, func(d string) bool { return d == "" }), func(p string) bool {
		return strings.HasPrefix(filepath.Base(p), socketPrefix)
	})
}

// untouched compares what was with what is. A blob is what its name says, whatever else happened to it: the builder may make
// one again, or give it another name beside.
func untouched(before, after map[string]fileStamp) error {
	for p, was := range before {
		if is, ok := after[p]; ok && (is == was || isBlob(p)) {
			continue
		}
		return &TamperError{p}
	}
	return nil
}

// isBlob reports whether a file holds what its name is the digest of.
func isBlob(p string) bool {
	f, err := os.OpenFile(p, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return false
	}
	return hex.EncodeToString(h.Sum(nil)) == filepath.Base(p)
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

// foreign lists the writable mounts in which a RUN must not leave anything.
func (n *InPlace) foreign() []string {
	var out []string
	for _, m := range n.mounts {
		if m.path == "/" || m.readOnly || virtual(m.path) || m.fstype == "proc" || m.fstype == "sysfs" || strings.HasPrefix(m.fstype, "cgroup") {
			continue
		}
		if !slices.ContainsFunc(orchestrators(), func(dir string) bool { return within(m.path, dir) }) {
			out = append(out, m.path)
		}
	}
	return out
}

// ours tells what in those mounts the builder itself may write while p runs.
func (n *InPlace) ours(p Process) func(string) bool {
	dirs := append([]string{filepath.Dir(n.o.Dir)}, n.o.Own...)
	for _, m := range p.Mounts {
		if m.Source != "" {
			dirs = append(dirs, m.Source)
		}
	}
	return func(p string) bool {
		return slices.ContainsFunc(dirs, func(dir string) bool { return dir != "" && within(p, dir) })
	}
}

// within reports whether a path is a directory or lies below it.
func within(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

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

// kubeletFiles are files that every pod has mounted, writable, and that the builder reads itself.
func kubeletFiles() []string { return []string{hostsFile, "/etc/resolv.conf", "/etc/hostname"} }

// saveKubelet keeps what the mounted ones hold, so that what a RUN makes of them is gone after it, as with other builders.
func (n *InPlace) saveKubelet() error {
	for _, file := range kubeletFiles() {
		if !slices.ContainsFunc(n.mounts, func(m mountPoint) bool { return m.path == file }) {
			continue
		}
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(fdPath(int(n.aside.dir.Fd())), filepath.Base(file)), b, 0o600); err != nil { //nolint:gosec // a name of ours
			return err
		}
	}
	return nil
}

// restoreKubelet writes back what saveKubelet kept in the directory, where it is not the same.
func restoreKubelet(dir *os.File) error {
	var errs []error
	for _, file := range kubeletFiles() {
		was, err := os.ReadFile(filepath.Join(fdPath(int(dir.Fd())), filepath.Base(file)))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		is, readErr := os.ReadFile(file)
		if err = errors.Join(err, readErr); err == nil && !bytes.Equal(was, is) {
			err = os.WriteFile(file, was, 0o644) //nolint:gosec // the container's own
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"encoding/gob"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// probeSpec tells a probe what to try: an overlay, or else proc and tmpfs.
type probeSpec struct {
	Overlay FS
}

// wireError carries an error between our processes, with its errno for errors.Is.
type wireError struct {
	Text  string
	Errno int
}

func toWire(err error) wireError {
	if err == nil {
		return wireError{}
	}
	w := wireError{Text: err.Error()}
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		w.Errno = int(errno)
	}
	return w
}

func (w wireError) err() error {
	if w.Text == "" {
		return nil
	}
	return remoteError(w)
}

// remoteError is what a wireError becomes on our side.
type remoteError wireError

func (e remoteError) Error() string { return e.Text }

func (e remoteError) Unwrap() error {
	if e.Errno == 0 {
		return nil
	}
	return unix.Errno(e.Errno)
}

// probeResult is what a probe found; empty errors are successes.
type probeResult struct {
	Proc, Tmpfs, Overlay wireError
}

// command prepares a process of ours in further namespaces, with an empty
// environment. The files become descriptors 3 and up.
func (s Status) command(role string, flags uintptr, files ...*os.File) *exec.Cmd {
	return &exec.Cmd{
		Path:       fmt.Sprintf("/proc/self/fd/%d", s.self.Fd()),
		Args:       []string{role},
		Env:        []string{},
		Dir:        "/",
		ExtraFiles: files,
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: flags,
			Pdeathsig:  unix.SIGKILL,
		},
	}
}

// probe runs one probe to its end.
func (s Status) probe(flags uintptr, spec probeSpec) (probeResult, error) {
	var r probeResult
	specR, specW, err := os.Pipe()
	if err != nil {
		return r, err
	}
	statusR, statusW, err := os.Pipe()
	if err != nil {
		return r, err
	}
	defer func() { _ = statusR.Close() }()
	cmd := s.command(roleProbe, flags, specR, statusW)
	err = cmd.Start()
	_, _ = specR.Close(), statusW.Close()
	if err != nil {
		_ = specW.Close()
		return r, err
	}
	err = errors.Join(gob.NewEncoder(specW).Encode(spec), specW.Close())
	if err == nil {
		err = gob.NewDecoder(statusR).Decode(&r)
	}
	return r, errors.Join(err, cmd.Wait())
}

// probeMounts finds out by doing whether a RUN's mounts are permitted, and
// whether it may have a PID namespace. Fresh proc is refused wherever the
// runtime has masked a part of the existing one, as every runtime does by default.
func (s Status) probeMounts() (pidNamespace bool, err error) {
	r, err := s.probe(unix.CLONE_NEWNS|unix.CLONE_NEWPID, probeSpec{})
	if err != nil {
		// No PID namespaces here (a sysctl limits them), which a RUN can do without.
		r, err = s.probe(unix.CLONE_NEWNS, probeSpec{})
		if err != nil {
			return false, &RefusedError{What: "clone(CLONE_NEWNS)", Err: err, How: howNamespaces}
		}
		r.Proc = wireError{Text: "no PID namespace"}
	}
	if err := r.Tmpfs.err(); err != nil {
		return false, refusedMount(err)
	}
	return r.Proc.err() == nil, nil
}

// ProbeOverlay mounts an overlay whose directories lie in dir, changes it in
// the ways that need a capable file system, and tells why it does not work; nil
// when it does. Nothing is left in dir. Where it fails a plain directory is the root to use.
func (s Status) ProbeOverlay(dir string) error { return s.probeOverlay(dir, dir) }

// probeOverlay is ProbeOverlay with lower directories in any places.
func (s Status) probeOverlay(dir string, lowers ...string) (err error) {
	if !s.Namespaced {
		return s.refusal()
	}
	tmp, err := os.MkdirTemp(dir, ".overlay-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	fs := FS{Upper: filepath.Join(tmp, "upper"), Work: filepath.Join(tmp, "work")}
	for _, l := range lowers {
		below, mkErr := os.MkdirTemp(l, ".overlay-")
		if mkErr != nil {
			return mkErr
		}
		defer func() { err = errors.Join(err, os.RemoveAll(below)) }()
		fs.Lowers = append(fs.Lowers, filepath.Join(below, "lower"))
	}
	for _, d := range append([]string{fs.Upper, fs.Work}, fs.Lowers...) {
		if err := MakeOverlayDir(d); err != nil {
			return err
		}
	}
	for _, l := range fs.Lowers {
		if err := os.Mkdir(filepath.Join(l, "d"), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(l, "d", "f"), nil, 0o600); err != nil {
			return err
		}
	}
	r, err := s.probe(unix.CLONE_NEWNS, probeSpec{Overlay: fs})
	if err != nil {
		return fmt.Errorf("probing overlay: %w", err)
	}
	if err := r.Overlay.err(); err != nil {
		return fmt.Errorf("no overlay on %s: %w", dir, err)
	}
	return nil
}

// MakeOverlayDir makes a directory that can be an overlay's upper or work
// directory. On a volume with a group of its own (fsGroup) new directories inherit
// that group and its setgid bit, and overlay fails with EACCES when the group
// has no place in the user namespace.
func MakeOverlayDir(path string) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	if err := os.Chown(path, 0, 0); err != nil {
		return err
	}
	return os.Chmod(path, 0o755)
}

// runProbe is the role.
func runProbe() error {
	var spec probeSpec
	if err := readSpec(&spec); err != nil {
		return err
	}
	var r probeResult
	if spec.Overlay.Upper != "" {
		r.Overlay = toWire(tryOverlay(spec.Overlay))
	} else {
		r.Proc = toWire(unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""))
		r.Tmpfs = toWire(unix.Mount("tmpfs", "/proc", "tmpfs", 0, ""))
	}
	return gob.NewEncoder(os.NewFile(fdStatus, "status")).Encode(r)
}

// tryOverlay needs a whiteout, an opaque directory (user xattrs) and a new file.
func tryOverlay(fs FS) error {
	if err := mountOverlay(fs); err != nil {
		return err
	}
	d := filepath.Join(fs.Upper, "d")
	return errors.Join(
		os.Remove(filepath.Join(d, "f")), os.Remove(d), os.Mkdir(d, 0o700),
		os.WriteFile(filepath.Join(d, "g"), nil, 0o600))
}

// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"bufio"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kaniko-go/kaniko-go/builder/internal/dirfd"
	"github.com/kaniko-go/kaniko-go/builder/internal/snapshot"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
	"github.com/kaniko-go/kaniko-go/builder/internal/unpack"
)

// ownList is where our image says which files of it are ours: one absolute path a line, directories with a slash at the end.
const ownList = "/kaniko/files"

// InPlace makes Roots of the container's own root file system, for pods that permit no namespaces. There is only one
// of it, which stages have in turn: it is emptied of what one stage made before the next one's files are unpacked. Mounts, the
// builder's program and its work directory stay where they are. RUN is a process beside the builder, with fewer capabilities.
type InPlace struct {
	status Status
	o      Options
	root   *os.File
	// program is the path of our executable, "" if it has none.
	program string
	mounts  []mountPoint
	kept    *dirfd.Kept
	aside   *aside
	// why is what stands against the better isolation.
	why error
	// limits are what could not be taken from RUN here.
	limits []string

	// turn holds one token: whoever took it has the root.
	turn chan struct{}
	// cwd is where the process stood: the directory may be removed and made again.
	cwd string
	// left is what the stage that had the root last made of it; nil if there was none.
	left *tree.Tree
	used bool
	dirs []*os.File
	// away are the credentials, which only we have while RUN is about.
	away []putAway
}

// NewInPlace takes the root file system. It returns a *RefusedError where that holds files of others or cannot be used.
func NewInPlace(s Status, o Options) (*InPlace, error) {
	if os.Geteuid() != 0 {
		return nil, &RefusedError{What: "running a command in place", Why: "that needs uid 0 in the container", How: "leave runAsUser unset"}
	}
	if s.recovery != nil {
		return nil, fmt.Errorf("after an earlier build in this container that was killed: %w", s.recovery)
	}
	root, err := os.Open("/")
	if err != nil {
		return nil, err
	}
	n := &InPlace{status: s, o: o, root: root, turn: make(chan struct{}, 1)}
	if err := n.prepare(); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	var left []string
	n.away, left = wipe(o.Credentials)
	n.limits = append(n.limits, left...)
	if err := n.take(); err != nil {
		// Not joined: a *RefusedError is the whole reason.
		_, _ = restoreAll(n.away), root.Close()
		return nil, err
	}
	n.turn <- struct{}{}
	return n, nil
}

// prepare does what must be done while the root is still ours: RUN will be able to write to everything in it.
func (n *InPlace) prepare() error {
	if err := errors.Join(undumpable(), subreaper(true)); err != nil {
		return err
	}
	self, err := sealedCopy()
	if err != nil {
		return err
	}
	if n.status.self, err = outOfTheWay(self); err != nil {
		return err
	}
	n.status.inPlace = true
	if n.status.UIDs, err = readExtents("/proc/self/uid_map"); err != nil {
		return err
	}
	if n.status.GIDs, err = readExtents("/proc/self/gid_map"); err != nil {
		return err
	}
	n.limits = missing()
	// Both are read from files once, when they are first needed.
	_, err = x509.SystemCertPool()
	_ = time.Now().Local().String()
	return err
}

// take looks at the root and puts aside what is ours.
func (n *InPlace) take() error {
	n.program = programPath()
	n.cwd, _ = os.Getwd()
	if err := n.findMounts(); err != nil {
		return err
	}
	found, err := look(n.root, n.kept, ownFiles())
	if err != nil {
		return fmt.Errorf("looking at the root file system: %w", err)
	}
	if len(found.foreign) > 0 && (!n.status.Force || len(found.foreign) > maxForeign) {
		return refusedRoot(found.foreign)
	}
	n.aside, err = hide(n.root, found.journal)
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) {
		return &RefusedError{What: "running a command in place", Why: "the root file system of the container is read-only", How: "leave readOnlyRootFilesystem unset", Err: err}
	}
	if err != nil {
		return err
	}
	if err := n.saveKubelet(); err != nil {
		return errors.Join(err, n.aside.putBack())
	}
	return nil
}

// refusedRoot explains that the root is not ours to use.
func refusedRoot(foreign []string) error {
	const show = 5
	list := make([]string, 0, show)
	for _, p := range foreign[:min(show, len(foreign))] {
		list = append(list, "/"+p)
	}
	more := ""
	if len(foreign) > show {
		more = fmt.Sprintf(" and %d more", len(foreign)-show)
		if len(foreign) > maxForeign {
			more = " and many more"
		}
	}
	return &RefusedError{
		What: "running a command in place",
		Why: fmt.Sprintf("the container's root file system, which the image being built would take the place of, holds files that are not the builder's: %s%s",
			strings.Join(list, ", "), more),
		How: "use the builder's own image with everything else on volumes; KANIKO_FORCE=true moves those files away for the time of the build",
	}
}

// programPath is where our executable is, "" if it has no path any more.
func programPath() string {
	p, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return ""
	}
	var running, found unix.Stat_t
	if unix.Stat("/proc/self/exe", &running) != nil || unix.Lstat(p, &found) != nil || running.Ino != found.Ino || running.Dev != found.Dev {
		return ""
	}
	return p
}

// ownFiles are the files of our image, and those that runtimes make in every container.
func ownFiles() map[string]bool {
	ours := map[string]bool{ownList: true, "/.dockerenv": true, "/run/.containerenv": true, "/etc/mtab": true, "/etc/resolv.conf": true, "/etc/hosts": true, "/etc/hostname": true}
	f, err := os.Open(ownList)
	if err != nil {
		return ours
	}
	defer func() { _ = f.Close() }()
	for s := bufio.NewScanner(io.LimitReader(f, 1<<20)); s.Scan(); {
		if p := filepath.Clean(s.Text()); filepath.IsAbs(p) {
			ours[p] = true
		}
	}
	return ours
}

// findMounts reads anew what is mounted, and with it what is to be kept.
func (n *InPlace) findMounts() error {
	var err error
	if n.mounts, err = readMounts(); err != nil {
		return err
	}
	n.kept, err = keptBy(n.mounts, n.o.Dir)
	return err
}

// keptBy is what no build may touch: mounts, our program, what is put aside, and the directories given with the one that each lies in.
func keptBy(mounts []mountPoint, dirs ...string) (*dirfd.Kept, error) {
	if mounts == nil {
		var err error
		if mounts, err = readMounts(); err != nil {
			return nil, err
		}
	}
	kept := &dirfd.Kept{}
	for _, m := range mounts {
		if m.path != "/" {
			kept.Add(m.path)
		}
	}
	kept.Add(asideName)
	if p := programPath(); p != "" {
		kept.Add(p)
	}
	for _, d := range dirs {
		real, err := filepath.EvalSymlinks(filepath.Dir(d))
		if err != nil {
			return nil, err
		}
		if real == "/" {
			real = d
		}
		kept.Add(real)
	}
	return kept, nil
}

// OneAtATime implements Isolation.
func (n *InPlace) OneAtATime() bool { return true }

// socketPrefix begins the names of directories that TempDir makes.
const socketPrefix = "socket-"

// TempDir implements Isolation. It is on the root's own file system, so that a socket can be renamed to where RUN looks for it.
func (n *InPlace) TempDir(string) (string, error) {
	return os.MkdirTemp(filepath.Join(n.root.Name(), asideName), socketPrefix)
}

// String implements Isolation.
func (n *InPlace) String() string {
	line := "isolation: in place, in the container's own root file system, one stage at a time"
	if len(n.limits) > 0 {
		line += "; " + strings.Join(n.limits, ", ")
	}
	if n.why != nil {
		line += "; better isolation: " + n.why.Error()
	}
	return line
}

// Root implements Isolation.
func (n *InPlace) Root(ctx context.Context, _ Root, _, base *tree.Tree) (Root, error) {
	if err := n.have(ctx); err != nil {
		return nil, err
	}
	return &inPlaceRoot{host: n, has: true, seen: base, disk: tree.Empty(), skipped: map[string]bool{}}, nil
}

// Close implements Isolation: the root is what it was before.
func (n *InPlace) Close() error {
	err := n.findMounts()
	if err == nil {
		err = n.aside.restore(n.kept)
	}
	err = errors.Join(err, restoreAll(n.away))
	if n.cwd != "" {
		_ = unix.Chdir(n.cwd) // The directory of that name may be a new one.
	}
	for _, d := range n.dirs {
		_ = d.Close()
	}
	return errors.Join(err, n.status.self.Close(), n.root.Close())
}

// have waits for the root and empties it of what the stage before made. Contents of that stage's Tree move with it.
func (n *InPlace) have(ctx context.Context) error {
	select {
	case <-n.turn:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if !n.used {
		n.used = true
		return nil
	}
	if n.left != nil {
		into, err := n.aside.newDir("stage-")
		if err != nil {
			return err
		}
		n.dirs = append(n.dirs, into)
		if err := snapshot.Move(n.root, n.left, into); err != nil {
			return err
		}
		n.left = nil
	}
	if err := n.findMounts(); err != nil {
		return err
	}
	return unpack.Clear(n.root, n.kept)
}

// missing says what the container lacks for keeping RUN away from the builder.
func missing() []string {
	var out []string
	has, err := effective()
	if err == nil && !has[unix.CAP_SETPCAP] {
		out = append(out, "without CAP_SETPCAP, which is needed to give RUN fewer capabilities than the builder has")
	}
	return out
}

// effective are the capabilities of this thread.
func effective() (map[int]bool, error) {
	var data [2]unix.CapUserData
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&header, &data[0]); err != nil {
		return nil, fmt.Errorf("capget: %w", err)
	}
	has := map[int]bool{}
	for c := range 64 {
		if data[c/32].Effective&(1<<(c%32)) != 0 {
			has[c] = true
		}
	}
	return has, nil
}

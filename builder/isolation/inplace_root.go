// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kaniko-go/kaniko-go/builder/internal/snapshot"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
	"github.com/kaniko-go/kaniko-go/builder/internal/unpack"
)

// inPlaceRoot is the root while one stage has it.
type inPlaceRoot struct {
	host *InPlace
	has  bool
	// seen is the Tree whose paths below mounts are nobody's mistake: they came with the base image, or RUN never saw them missing.
	seen    *tree.Tree
	disk    *tree.Tree
	skipped map[string]bool
	record  *snapshot.Record
}

// Overwrites implements Root.
func (r *inPlaceRoot) Overwrites() bool { return true }

// Leave implements Root.
func (r *inPlaceRoot) Leave(t *tree.Tree) {
	if !r.has {
		return
	}
	r.has, r.host.left = false, t
	r.host.turn <- struct{}{}
}

// Close implements Root.
func (r *inPlaceRoot) Close() error { return nil }

// Run implements Root.
func (r *inPlaceRoot) Run(ctx context.Context, t *tree.Tree, p Process) (*tree.Tree, error) {
	if err := r.host.permits(p); err != nil {
		return nil, err
	}
	if err := r.sync(ctx, t); err != nil {
		return nil, err
	}
	if err := r.host.run(ctx, p); err != nil {
		return nil, err
	}
	opts := snapshot.Options{Times: r.host.o.Times, Skipped: r.skipped, Kept: r.host.kept}
	raw, record, err := snapshot.Walk(ctx, r.host.root, r.record, t, opts)
	if err != nil {
		return nil, err
	}
	if raw, err = withMountPoints(t, raw, p, r.host.o.Times); err != nil {
		return nil, err
	}
	next, _, err := tree.Canon(t, raw, r.host.o.Times, nil)
	if err != nil {
		return nil, err
	}
	r.disk, r.seen, r.record = next, next, record
	return next, nil
}

// withMountPoints does to the Tree after a RUN what making mount points does to a root of its own: it gets the directories that
// every container has, and the one in which a mount point is made and removed again has the time of that.
func withMountPoints(before, after *tree.Tree, p Process, times tree.Times) (*tree.Tree, error) {
	e := after.Edit()
	for _, file := range []string{hostsFile, "/etc/resolv.conf"} {
		real, ino, err := before.Resolve(file, true)
		if err != nil || ino != nil {
			continue
		}
		for real != "" && e.Lookup(real) == nil {
			real = strings.TrimPrefix(path.Dir("/"+real), "/")
		}
		if dir := e.Lookup(real); real != "" && dir.Type == tree.Dir {
			m := dir.Meta
			m.MTime = times.Now()
			if err := e.SetMeta(real, m); err != nil {
				return nil, err
			}
		}
	}
	for _, d := range mountPoints() {
		switch now := e.Lookup(d); {
		case now != nil && now.Type != tree.Dir:
			return nil, fmt.Errorf("/%s of the image cannot be mounted on: %w", d, unix.ENOTDIR)
		case now == nil && !p.mountsBelow(d):
			if err := e.Put(d, tree.NewDir(tree.Meta{Mode: 0o755, MTime: times.Now()})); err != nil {
				return nil, err
			}
		}
	}
	return e.Commit(), nil
}

// sync makes the root what t says, as far as it is ours.
func (r *inPlaceRoot) sync(ctx context.Context, t *tree.Tree) error {
	n := r.host
	separated := false
	if r.record != nil {
		var err error
		if separated, err = unpack.Separate(n.root, r.disk, n.kept); err != nil {
			return err
		}
	}
	if r.record != nil && r.disk.Root() == t.Root() && !separated {
		return nil
	}
	if err := n.conflicts(r.seen, t); err != nil {
		return err
	}
	skipped, err := unpack.Around(ctx, n.root, r.disk, t, n.kept)
	if err != nil {
		return err
	}
	for _, p := range skipped {
		r.skipped[p] = true
	}
	r.disk, r.seen = t, t
	root := t.Root()
	if err := unix.Fchmod(int(n.root.Fd()), uint32(root.Mode)); err != nil {
		return fmt.Errorf("mode of the root directory: %w", err)
	}
	_ = n.root.Chown(int(root.UID), int(root.GID))
	if _, err := unpack.Separate(n.root, t, n.kept); err != nil {
		return err
	}
	r.record, err = snapshot.RecordAround(ctx, n.root, n.kept)
	return err
}

// conflicts finds what an instruction put where RUN would see a mount instead.
func (n *InPlace) conflicts(seen, t *tree.Tree) error {
	return tree.Diff(seen, t, func(c tree.Change) error {
		k := n.kept.At(c.Path)
		if k == nil || c.Inode == nil || virtual("/"+c.Path) {
			return nil
		}
		if c.Inode.Type == tree.Dir {
			if _, err := os.Lstat("/" + c.Path); err == nil || k.Leads() {
				return nil
			}
		} else if k.Leads() {
			return &RefusedError{What: fmt.Sprintf("/%s in the image", c.Path), Why: "the container has mounts below that path", How: "mount those volumes elsewhere"}
		}
		at := n.mountOf("/" + c.Path)
		why := at + " is a mount of this container"
		if at == "/" {
			why = "the builder keeps files of its own there"
		}
		return &RefusedError{What: fmt.Sprintf("/%s in the image", c.Path), Why: why + ", so RUN would not see it", How: "mount that volume elsewhere"}
	})
}

// permits refuses what cannot be had without namespaces.
func (n *InPlace) permits(p Process) error {
	refused := func(what, why string) error {
		return &RefusedError{What: what, Why: "RUN is in the container itself, " + why, How: howNamespaces}
	}
	switch {
	case p.Network == NetworkNone:
		return refused("a RUN without network", "whose network it has")
	case p.Hostname != "":
		return refused("a host name for RUN", "whose host name it has")
	case p.ShmSize != 0 && p.ShmSize != DefaultShmSize && p.ShmSize > sizeOf("/dev/shm"):
		return refused(fmt.Sprintf("a /dev/shm of %d bytes", p.ShmSize), "whose /dev/shm is smaller")
	case len(p.ExtraHosts) > 0 && !slices.ContainsFunc(n.mounts, func(m mountPoint) bool { return m.path == hostsFile }):
		return refused("a line in /etc/hosts for RUN", "and there is no /etc/hosts that is no part of the image")
	}
	return errors.Join(p.validate(), n.status.checkIDs(p))
}

// sizeOf is the size of a file system, 0 if there is none.
func sizeOf(dir string) int64 {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return 0
	}
	return int64(st.Blocks) * int64(st.Bsize) //nolint:unconvert // it is a uint32 on s390x
}

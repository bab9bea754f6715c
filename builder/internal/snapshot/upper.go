// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/kaniko-go/kaniko-go/builder/internal/dirfd"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// opaqueAttr marks a directory of an upper directory that hides what the lower ones have, in mounts with userxattr.
const opaqueAttr = "user.overlay.opaque"

// Upper returns the Tree after a RUN whose root was an overlay mount of prev. upper stays open for as long
// as contents of the Tree are read; the caller closes it then.
func Upper(ctx context.Context, upper *os.File, prev *tree.Tree, o Options) (*tree.Tree, error) {
	s := newScanner(upper, prev, o)
	if err := s.upperDir(ctx, upper, "", prev.Root()); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	return s.edit.Commit(), nil
}

// upperDir takes over what is in d. old is the directory in the Tree that shows through, nil if none does.
func (s *scanner) upperDir(ctx context.Context, d *os.File, p string, old *tree.Inode) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	list, err := names(d)
	if err != nil {
		return err
	}
	for _, name := range list {
		if err := s.upperEntry(ctx, d, name, joinPath(p, name), old); err != nil {
			return err
		}
	}
	return nil
}

func (s *scanner) upperEntry(ctx context.Context, d *os.File, name, p string, dir *tree.Inode) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(d.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("/%s: %w", p, err)
	}
	var old *tree.Inode
	if dir != nil {
		old, _ = dir.Child(name)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		if st.Rdev == 0 {
			return s.edit.Remove(p)
		}
	case unix.S_IFDIR:
		return s.upperSubdir(ctx, d, name, p, &st, old)
	}
	ino, err := s.inode(d, name, p, &st, old)
	if err != nil {
		return err
	}
	if ino == nil {
		return s.edit.Remove(p)
	}
	return s.edit.Put(p, ino)
}

func (s *scanner) upperSubdir(ctx context.Context, d *os.File, name, p string, st *unix.Stat_t, old *tree.Inode) error {
	sub, err := dirfd.Open(d, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer func() { _ = sub.Close() }()
	m := s.meta(p, st, old)
	if old != nil && old.Type == tree.Dir && !opaque(sub) {
		m.Xattrs = old.Xattrs
		if err := s.edit.SetMeta(p, m); err != nil {
			return err
		}
		return s.upperDir(ctx, sub, p, old)
	}
	if err := s.edit.Put(p, tree.NewDir(m)); err != nil {
		return err
	}
	return s.upperDir(ctx, sub, p, nil)
}

func opaque(d *os.File) bool {
	buf := make([]byte, 4)
	n, err := unix.Fgetxattr(int(d.Fd()), opaqueAttr, buf)
	return err == nil && string(buf[:n]) == "y"
}

func joinPath(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// SPDX-License-Identifier: Apache-2.0

// Package unpack makes the files of a Tree on disk, so that a RUN can see them.
//
// It is given the difference between what a directory holds and what it shall hold, so no
// file is made that a later layer would replace, and none twice. Everything is done relative to
// directory descriptors of directories that unpack itself opened without following
// links. What the pod does not permit (an owner outside the user namespace, a
// device) is not an error: it is reported as skipped and stays what it is in the Tree.
package unpack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/kaniko-go/kaniko-go/builder/internal/dirfd"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// Kind says how the directory is used.
type Kind int

const (
	// Plain is a root by itself: what is gone is removed.
	Plain Kind = iota
	// Lower is a lower directory of an overlay mount: it holds only the changes, and what
	// is gone is a character device 0/0.
	Lower
)

// Apply makes the changes between prev and next in the directory dir. For Plain it holds prev, for Lower
// it is empty. skipped are the paths of which something could not be applied. Times and modes of directories are
// set last, when nothing in them changes any more.
func Apply(ctx context.Context, dir *os.File, prev, next *tree.Tree, kind Kind) (skipped []string, err error) {
	return apply(ctx, &handle{fd: int(dir.Fd()), keep: true}, prev, next, kind)
}

// Around is Apply for a directory that is a root by itself, but not ours alone: what is kept stays as it is, and what next has in its
// place is skipped, with everything below it.
func Around(ctx context.Context, dir *os.File, prev, next *tree.Tree, kept *dirfd.Kept) (skipped []string, err error) {
	return apply(ctx, &handle{fd: int(dir.Fd()), keep: true, kept: kept}, prev, next, Plain)
}

func apply(ctx context.Context, root *handle, prev, next *tree.Tree, kind Kind) (skipped []string, err error) {
	u := &unpacker{kind: kind, links: map[*tree.Inode]link{}}
	root.refs.Store(1)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0) + 1)
	u.group = g
	walkErr := u.walk(ctx, root, prev, next)
	// Where a maker failed, the walk ended for that reason.
	if err = g.Wait(); err == nil {
		err = walkErr
	}
	if err == nil {
		err = u.hardLinks()
	}
	u.release()
	root.release(u)
	if err == nil {
		err = u.failed()
	}
	return u.skipped, err
}

// walk hands every change to its maker, keeping open the directories on the way to it.
func (u *unpacker) walk(ctx context.Context, root *handle, prev, next *tree.Tree) error {
	stack := []*handle{root}
	defer func() {
		for _, h := range stack[1:] {
			h.release(u)
		}
	}()
	return tree.Diff(prev, next, func(c tree.Change) error {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		parent := path.Dir(c.Path)
		if parent == "." {
			parent = ""
		}
		for len(stack) > 1 && stack[len(stack)-1].path != parent {
			stack[len(stack)-1].release(u)
			stack = stack[:len(stack)-1]
		}
		top := stack[len(stack)-1]
		if top.path != parent {
			return fmt.Errorf("change of /%s comes before its directory", c.Path)
		}
		if kept := top.kept.Child(path.Base(c.Path)); top.passed || kept.Whole() || kept.Leads() && (c.Inode == nil || c.Inode.Type != tree.Dir) {
			sub, err := u.pass(top, c, kept)
			if sub != nil {
				stack = append(stack, sub)
			}
			return err
		}
		if c.Inode != nil && c.Inode.Type == tree.Dir {
			sub, err := u.enter(top, c)
			if err != nil {
				return fmt.Errorf("unpack /%s: %w", c.Path, err)
			}
			stack = append(stack, sub)
			return nil
		}
		top.refs.Add(1)
		u.group.Go(func() error {
			defer top.release(u)
			if err := u.make(top, c); err != nil {
				return fmt.Errorf("unpack /%s: %w", c.Path, err)
			}
			return nil
		})
		return nil
	})
}

// pass leaves out a change in whose place something is kept; what only leads there is emptied of the rest. For a
// directory it returns a handle, for what is below is left out, too.
func (u *unpacker) pass(parent *handle, c tree.Change, kept *dirfd.Kept) (*handle, error) {
	if !parent.passed && kept.Leads() {
		if err := emptyDir(parent.fd, path.Base(c.Path), kept); err != nil {
			return nil, fmt.Errorf("unpack /%s: %w", c.Path, err)
		}
	}
	if c.Inode == nil {
		return nil, nil
	}
	u.skip(c.Path)
	if c.Inode.Type != tree.Dir {
		return nil, nil
	}
	h := &handle{fd: -1, path: c.Path, parent: parent, keep: true, passed: true}
	h.refs.Store(1)
	parent.refs.Add(1)
	return h, nil
}

// enter makes the directory of c, or takes the one that is there, and opens it.
func (u *unpacker) enter(parent *handle, c tree.Change) (*handle, error) {
	name := path.Base(c.Path)
	err := unix.Mkdirat(parent.fd, name, 0o700)
	if errors.Is(err, unix.EEXIST) && !isDir(parent.fd, name) {
		if err = unix.Unlinkat(parent.fd, name, 0); err == nil {
			err = unix.Mkdirat(parent.fd, name, 0o700)
		}
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, err
	}
	fd, err := unix.Openat(parent.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	h := &handle{fd: fd, path: c.Path, inode: c.Inode, parent: parent, kept: parent.kept.Child(name)}
	h.refs.Store(1)
	parent.refs.Add(1)
	return h, nil
}

func isDir(fd int, name string) bool {
	var st unix.Stat_t
	return unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// SPDX-License-Identifier: Apache-2.0

package copy

import (
	"fmt"
	"path"

	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// archive unpacks into the destination, which is always a directory. Modes and times are the archive's.
func (c *copier) archive(src *tree.Tree) error {
	p, old, err := c.dest()
	if err != nil {
		return err
	}
	if old != nil && old.Type != tree.Dir {
		return fmt.Errorf("cannot copy to non-directory: %s", c.req.Dest)
	}
	inner := *c
	inner.chmod = nil
	if err := inner.mkdirAll(p); err != nil {
		return err
	}
	return inner.unpack(p, src.Root(), map[*tree.Inode]*tree.Inode{}, false)
}

// unpack is put for archives, which may replace a file by a directory and the other way round. A directory without an entry
// of its own (timed is false) has the time of the last change in it.
func (c *copier) unpack(p string, dir *tree.Inode, links map[*tree.Inode]*tree.Inode, timed bool) error {
	entries, err := dir.Entries()
	if err != nil {
		return err
	}
	for _, e := range entries {
		child := path.Join(p, e.Name)
		old := c.edit.Lookup(child)
		if old != nil && (old.Type == tree.Dir) != (e.Inode.Type == tree.Dir) {
			if err := c.edit.Remove(child); err != nil {
				return err
			}
			old = nil
		}
		if e.Inode.Type != tree.Dir {
			err = c.put(child, e.Inode, links)
		} else {
			err = c.unpackDir(child, old, e.Inode, links)
		}
		if err != nil {
			return err
		}
		if !timed && (old == nil || old.Type != tree.Dir) {
			if err := c.touch(p); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *copier) unpackDir(p string, old, dir *tree.Inode, links map[*tree.Inode]*tree.Inode) error {
	m, timed := c.meta(dir), true
	if dir.MTime == tree.Unset {
		m, timed = tree.Meta{Mode: 0o755, MTime: c.now}, false
		if old != nil {
			m = old.Meta
		}
	}
	if err := c.edit.Apply(tree.Change{Path: p, Inode: tree.NewDir(m)}); err != nil {
		return err
	}
	return c.unpack(p, dir, links, timed)
}

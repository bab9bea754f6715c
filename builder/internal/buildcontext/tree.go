// SPDX-License-Identifier: Apache-2.0

package buildcontext

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/kaniko-go/kaniko-go/builder/internal/dirfd"
	"github.com/kaniko-go/kaniko-go/builder/internal/dockerfile"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// Tree returns the context without what m hides; m may be nil.
func (c *Context) Tree(m *dockerfile.Matcher) *tree.Tree {
	if c.root == nil {
		if m == nil {
			return c.fixed
		}
		return tree.FromRoot(filtered(c.fixed.Root(), "", m, dockerfile.Info{}))
	}
	return tree.FromRoot(c.dir("", tree.Meta{Mode: 0o755}, m, dockerfile.Info{}))
}

func (c *Context) dir(p string, meta tree.Meta, m *dockerfile.Matcher, info dockerfile.Info) *tree.Inode {
	return tree.NewLazyDir(meta, func() ([]tree.Entry, error) {
		entries, err := c.read(p, m, info)
		if err != nil {
			return nil, fmt.Errorf("build context: %w", err)
		}
		return entries, nil
	})
}

// read lists a directory of the context.
func (c *Context) read(p string, m *dockerfile.Matcher, info dockerfile.Info) ([]tree.Entry, error) {
	d, err := dirfd.Open(c.root, p, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer func() { _ = d.Close() }()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	entries := make([]tree.Entry, 0, len(names))
	for _, name := range names {
		ino, err := c.entry(d, name, path.Join(p, name), m, info)
		if err != nil {
			return nil, err
		}
		if ino != nil {
			entries = append(entries, tree.Entry{Name: name, Inode: ino})
		}
	}
	return entries, nil
}

// entry is one name of a directory, nil if it is hidden or gone. An ignored directory is there if something in it is included again.
func (c *Context) entry(d *os.File, name, p string, m *dockerfile.Matcher, parent dockerfile.Info) (*tree.Inode, error) {
	ignored, info := m.Match(p, parent)
	var st unix.Stat_t
	if ignored && !m.MayReinclude(p) {
		return nil, nil
	}
	if err := unix.Fstatat(int(d.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); errors.Is(err, unix.ENOENT) {
		return nil, nil
	} else if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: p, Err: err}
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if !ignored {
		return c.inode(d, name, p, &st, m, info)
	}
	if !isDir {
		return nil, nil
	}
	dir, err := c.inode(d, name, p, &st, m, info)
	if err != nil {
		return nil, err
	}
	if below, err := dir.Entries(); err != nil || len(below) == 0 {
		return nil, err
	}
	return dir, nil
}

func (c *Context) inode(d *os.File, name, p string, st *unix.Stat_t, m *dockerfile.Matcher, info dockerfile.Info) (*tree.Inode, error) {
	meta := tree.Meta{Mode: uint16(st.Mode & 0o7777), MTime: st.Mtim.Sec}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return c.dir(p, meta, m, info), nil
	case unix.S_IFREG:
		return c.file(p, st, meta), nil
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(int(d.Fd()), name, buf)
		if err != nil {
			return nil, &fs.PathError{Op: "readlink", Path: p, Err: err}
		}
		return tree.NewSymlink(meta, string(buf[:n])), nil
	case unix.S_IFCHR:
		return tree.NewDevice(tree.CharDevice, meta, unix.Major(st.Rdev), unix.Minor(st.Rdev)), nil
	case unix.S_IFBLK:
		return tree.NewDevice(tree.BlockDevice, meta, unix.Major(st.Rdev), unix.Minor(st.Rdev)), nil
	case unix.S_IFIFO:
		return tree.NewFifo(meta), nil
	default:
		// A socket: BuildKit, too, makes an empty file of it.
		return tree.NewFile(meta, 0, nil), nil
	}
}

func (c *Context) file(p string, st *unix.Stat_t, meta tree.Meta) *tree.Inode {
	content := &file{c: c, path: p, size: st.Size, mtime: st.Mtim}
	ino := tree.NewFile(meta, st.Size, content)
	if st.Nlink < 2 {
		return ino
	}
	key := inodeKey{st.Dev, st.Ino}
	c.mu.Lock()
	defer c.mu.Unlock()
	if first := c.linked[key]; first != nil {
		return first
	}
	ino.Shared = true
	c.linked[key] = ino
	return ino
}

// file is the content of a file of the context. It implements tree.Content.
type file struct {
	c     *Context
	path  string
	size  int64
	mtime unix.Timespec
}

// Open implements tree.Content. A file that changed since its directory was read is an error.
func (f *file) Open() (io.ReadCloser, error) {
	r, err := dirfd.Open(f.c.root, f.path, unix.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("build context: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(r.Fd()), &st); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != f.size || st.Mtim != f.mtime {
		return nil, errors.Join(fmt.Errorf("build context: %s %w", f.path, ErrChanged), r.Close())
	}
	return r, nil
}

// filtered is a directory of a Tree without what m hides.
func filtered(dir *tree.Inode, p string, m *dockerfile.Matcher, info dockerfile.Info) *tree.Inode {
	return tree.NewLazyDir(dir.Meta, func() ([]tree.Entry, error) {
		all, err := dir.Entries()
		if err != nil {
			return nil, err
		}
		entries := make([]tree.Entry, 0, len(all))
		for _, e := range all {
			name := path.Join(p, e.Name)
			ignored, below := m.Match(name, info)
			isDir := e.Inode.Type == tree.Dir
			if ignored && (!isDir || !m.MayReinclude(name)) {
				continue
			}
			if isDir {
				e.Inode = filtered(e.Inode, name, m, below)
			}
			if ignored {
				if left, err := e.Inode.Entries(); err != nil || len(left) == 0 {
					if err != nil {
						return nil, err
					}
					continue
				}
			}
			entries = append(entries, e)
		}
		return entries, nil
	})
}

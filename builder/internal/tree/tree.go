// SPDX-License-Identifier: Apache-2.0

// Package tree holds the merged metadata view of a stack of layers: every path
// with its type, owner, mode, time, extended attributes and a reference to its
// content, but never the content itself.
//
// A Tree is immutable and may be read by any number of goroutines. A new Tree is
// made from an old one with an Editor and shares with it all that did not change,
// so that keeping the Tree of every instruction costs only the changes, and Diff
// finds the changes between two related Trees without looking at the rest.
// Paths are resolved as the kernel would inside that root. Nothing here touches
// a disk, except for a build context's directories, which are read when first asked for.
package tree

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// Errors of path resolution; they are wrapped in *fs.PathError.
var (
	// ErrLoop is returned where the kernel says ELOOP.
	ErrLoop = errors.New("too many levels of symbolic links")
	// ErrNotDir is returned when a path leads through something that is no directory.
	ErrNotDir = errors.New("not a directory")
)

// maxLinks is the number of symbolic links one resolution follows, the kernel's MAXSYMLINKS.
const maxLinks = 40

// Tree is a root directory. The zero value is not valid; use Empty or FromRoot.
type Tree struct {
	root *Inode
}

// Empty returns the Tree of an image without layers: a root directory, mode 0755, owner 0:0.
func Empty() *Tree {
	return &Tree{root: NewDir(Meta{Mode: 0o755})}
}

// FromRoot returns the Tree below a directory inode.
func FromRoot(root *Inode) *Tree { return &Tree{root: root} }

// Root returns the root directory's inode.
func (t *Tree) Root() *Inode { return t.root }

// Lookup returns the inode at p, following symbolic links in all components but the last.
// The error wraps fs.ErrNotExist, ErrNotDir or ErrLoop.
func (t *Tree) Lookup(p string) (*Inode, error) {
	_, ino, err := t.resolve(p, false)
	return ino, err
}

// Stat returns the inode at p, following symbolic links in all components.
func (t *Tree) Stat(p string) (*Inode, error) {
	_, ino, err := t.resolve(p, true)
	return ino, err
}

// Resolve follows symbolic links in p, inside this root, and returns the physical
// path without a leading slash ("" is the root) and its inode. With last false
// the last component itself is not followed. Where the path ends in components that
// do not exist, the inode is nil and real is where they would be made; a ".." among
// those is taken lexically. ErrNotDir is returned where a component is something else than a directory.
func (t *Tree) Resolve(p string, last bool) (real string, ino *Inode, err error) {
	real, ino, err = t.resolve(p, last)
	if errors.Is(err, fs.ErrNotExist) {
		return real, nil, nil
	}
	return real, ino, err
}

// resolve walks p. On fs.ErrNotExist, real is the physical path that is missing.
func (t *Tree) resolve(p string, last bool) (string, *Inode, error) {
	return resolve(t.root, t.root, p, last, func(dir *Inode, name string) (*Inode, *Inode, error) {
		child, err := dir.Child(name)
		return child, child, err
	})
}

// resolve is the one path walk, for finished directories and for those being edited. child
// returns the entry of a directory, both as a node to go on from and as an inode.
func resolve[N any](root N, rootInode *Inode, p string, last bool, child func(N, string) (N, *Inode, error)) (string, *Inode, error) {
	var (
		names = []string{} // physical components so far
		nodes = []N{root}
		inos  = []*Inode{rootInode}
		rest  = split(p)
		links = 0
	)
	fail := func(err error) (string, *Inode, error) {
		return strings.Join(names, "/"), nil, &fs.PathError{Op: "resolve", Path: "/" + strings.TrimPrefix(p, "/"), Err: err}
	}
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		if name == ".." {
			if n := len(names); n > 0 {
				names, nodes, inos = names[:n-1], nodes[:n], inos[:n]
			}
			continue
		}
		node, ino, err := child(nodes[len(nodes)-1], name)
		if errors.Is(err, fs.ErrNotExist) {
			names = strings.Split(strings.TrimPrefix(path.Join(append(append([]string{"/"}, append(names, name)...), rest...)...), "/"), "/")
			return fail(fs.ErrNotExist)
		}
		if err != nil {
			return fail(err)
		}
		if ino.Type == Symlink && (last || len(rest) > 0) {
			if links++; links > maxLinks {
				return fail(ErrLoop)
			}
			target := ino.Link()
			if strings.HasPrefix(target, "/") {
				names, nodes, inos = names[:0], nodes[:1], inos[:1]
			}
			rest = append(split(target), rest...)
			continue
		}
		if ino.Type != Dir && len(rest) > 0 {
			return fail(ErrNotDir)
		}
		names, nodes, inos = append(names, name), append(nodes, node), append(inos, ino)
	}
	return strings.Join(names, "/"), inos[len(inos)-1], nil
}

// split returns the components of p without empty ones and dots; ".." is kept.
func split(p string) []string {
	parts := strings.Split(p, "/")
	out := parts[:0]
	for _, part := range parts {
		if part != "" && part != "." {
			out = append(out, part)
		}
	}
	return out
}

// ReadFile returns the content of the regular file at p, links followed. More than
// limit bytes are an error, as is anything but a regular file.
func (t *Tree) ReadFile(p string, limit int64) ([]byte, error) {
	ino, err := t.Stat(p)
	if err != nil {
		return nil, err
	}
	if ino.Type != File {
		return nil, &fs.PathError{Op: "read", Path: p, Err: errors.New("not a regular file")}
	}
	if ino.Size > limit {
		return nil, &fs.PathError{Op: "read", Path: p, Err: fmt.Errorf("%d bytes, more than the limit of %d", ino.Size, limit)}
	}
	return readContent(ino)
}

// Walk calls fn for every path of the Tree but the root, parents before children, names in
// byte order. Paths have no leading slash. fs.SkipDir, returned for a directory, leaves out what is below it.
func (t *Tree) Walk(fn func(p string, ino *Inode) error) error {
	return walk(t.root, "", fn)
}

func walk(dir *Inode, prefix string, fn func(string, *Inode) error) error {
	entries, err := dir.Entries()
	if err != nil {
		return err
	}
	for _, e := range entries {
		p := join(prefix, e.Name)
		err := fn(p, e.Inode)
		if errors.Is(err, fs.SkipDir) {
			continue
		}
		if err != nil {
			return err
		}
		if e.Inode.Type == Dir {
			if err := walk(e.Inode, p, fn); err != nil {
				return err
			}
		}
	}
	return nil
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

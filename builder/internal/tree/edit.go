// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"errors"
	"io/fs"
	"sort"
	"strings"
)

// Editor makes a new Tree from an old one. It is for one goroutine. Paths are physical: symbolic
// links are not followed, so a path through one is ErrNotDir.
type Editor struct {
	root *editDir
}

// editDir is a directory being edited: kids holds *Inode for what is as it was or was
// put, and *editDir for directories that were entered.
type editDir struct {
	ino  *Inode
	kids map[string]any
}

// Edit starts a new Tree.
func (t *Tree) Edit() *Editor {
	return &Editor{root: &editDir{ino: t.root}}
}

func (d *editDir) open() error {
	if d.kids != nil {
		return nil
	}
	entries, err := d.ino.Entries()
	if err != nil {
		return err
	}
	d.kids = make(map[string]any, len(entries)+1)
	for _, e := range entries {
		d.kids[e.Name] = e.Inode
	}
	return nil
}

// dir returns the directory at p, ready to be changed.
func (e *Editor) dir(p string) (*editDir, error) {
	d := e.root
	if err := d.open(); err != nil {
		return nil, pathError("edit", p, err)
	}
	for p != "" {
		name, rest, _ := strings.Cut(p, "/")
		kid, ok := d.kids[name]
		if !ok {
			return nil, pathError("edit", p, fs.ErrNotExist)
		}
		sub, ok := kid.(*editDir)
		if !ok {
			ino := kid.(*Inode)
			if ino.Type != Dir {
				return nil, pathError("edit", p, ErrNotDir)
			}
			sub = &editDir{ino: ino}
			d.kids[name] = sub
		}
		if err := sub.open(); err != nil {
			return nil, pathError("edit", p, err)
		}
		d, p = sub, rest
	}
	return d, nil
}

// Put places an inode at p, over whatever was there; the parent directory must exist. When both
// the old and the new one are directories, the new one's entries replace the old ones.
func (e *Editor) Put(p string, ino *Inode) error {
	if p == "" {
		if ino.Type != Dir {
			return pathError("put", "/", ErrNotDir)
		}
		e.root = &editDir{ino: ino}
		return nil
	}
	d, err := e.dir(parent(p))
	if err != nil {
		return err
	}
	name := base(p)
	if _, there := d.kids[name]; !there {
		name = strings.Clone(name) // p is longer, and would be kept for it
	}
	d.kids[name] = ino
	return nil
}

// SetMeta changes the metadata of the directory at p and keeps its entries.
func (e *Editor) SetMeta(p string, m Meta) error {
	d, err := e.dir(p)
	if err != nil {
		return err
	}
	d.ino = d.ino.With(m)
	return nil
}

// Remove takes away p and everything below it. It is no error if there is nothing.
func (e *Editor) Remove(p string) error {
	if p == "" {
		return pathError("remove", "/", fs.ErrInvalid)
	}
	d, err := e.dir(parent(p))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrNotDir) {
		return nil
	}
	if err != nil {
		return err
	}
	delete(d.kids, base(p))
	return nil
}

// Clear takes away everything below the directory at p and keeps the directory.
func (e *Editor) Clear(p string) error {
	d, err := e.dir(p)
	if err != nil {
		return err
	}
	clear(d.kids)
	return nil
}

// Lookup returns the inode at p as the edits so far have it; it returns nil if there is nothing or the path leads
// through something that is no directory. A changed directory's inode does not show its new entries.
func (e *Editor) Lookup(p string) *Inode {
	if p == "" {
		return e.root.ino
	}
	d, err := e.dir(parent(p))
	if err != nil {
		return nil
	}
	switch kid := d.kids[base(p)].(type) {
	case *Inode:
		return kid
	case *editDir:
		return kid.ino
	}
	return nil
}

// Resolve follows the symbolic links in p as Tree.Resolve does, with the edits so far.
func (e *Editor) Resolve(p string, last bool) (real string, ino *Inode, err error) {
	real, ino, err = resolve(e.root, e.root.ino, p, last, func(d *editDir, name string) (*editDir, *Inode, error) {
		return d.child(name)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return real, nil, nil
	}
	return real, ino, err
}

// child looks up a name without making the directory one that was changed.
func (d *editDir) child(name string) (*editDir, *Inode, error) {
	if d == nil {
		return nil, nil, ErrNotDir
	}
	if d.kids == nil {
		ino, err := d.ino.Child(name)
		if err != nil {
			return nil, nil, err
		}
		return &editDir{ino: ino}, ino, nil
	}
	switch kid := d.kids[name].(type) {
	case *Inode:
		return &editDir{ino: kid}, kid, nil
	case *editDir:
		return kid, kid.ino, nil
	}
	return nil, nil, fs.ErrNotExist
}

// Commit returns the new Tree. The Editor must not be used afterwards.
func (e *Editor) Commit() *Tree {
	return &Tree{root: e.root.commit(nil)}
}

// commit returns the directory; like, if there is one, takes its place if it is just the same.
func (d *editDir) commit(like *Inode) *Inode {
	if d.kids == nil {
		return d.ino
	}
	entries := make([]Entry, 0, len(d.kids))
	for name, kid := range d.kids {
		switch kid := kid.(type) {
		case *Inode:
			entries = append(entries, Entry{name, kid})
		case *editDir:
			entries = append(entries, Entry{name, kid.commit(like.dir(name))})
		}
	}
	sort.Slice(entries, func(i, j int) bool { return entries[i].Name < entries[j].Name })
	if same(d.ino, entries) {
		return d.ino
	}
	if like != nil && like.SameMeta(d.ino) && like.MTime == d.ino.MTime && same(like, entries) {
		return like
	}
	c := *d.ino
	c.body = &dir{entries: entries}
	return &c
}

// dir is the directory of that name in a directory, nil if there is none, or i is nil itself.
func (i *Inode) dir(name string) *Inode {
	if i == nil {
		return nil
	}
	if c, err := i.Child(name); err == nil && c.Type == Dir {
		return c
	}
	return nil
}

// same reports whether nothing was changed, so that the old inode can stay and Diff can pass it by.
func same(old *Inode, entries []Entry) bool {
	before, err := old.Entries()
	if err != nil || len(before) != len(entries) {
		return false
	}
	for i := range entries {
		if before[i] != entries[i] {
			return false
		}
	}
	return true
}

func parent(p string) string {
	if i := strings.LastIndexByte(p, '/'); i >= 0 {
		return p[:i]
	}
	return ""
}

func base(p string) string {
	return p[strings.LastIndexByte(p, '/')+1:]
}

func pathError(op, p string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return err
	}
	return &fs.PathError{Op: op, Path: p, Err: err}
}

// Names returns the names in the directory at p, in no order.
func (e *Editor) Names(p string) ([]string, error) {
	d, err := e.dir(p)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(d.kids))
	for name := range d.kids {
		names = append(names, name)
	}
	return names, nil
}

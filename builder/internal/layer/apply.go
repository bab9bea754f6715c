// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// Apply returns the Tree that the layer makes of prev. Parents that are links are followed inside the
// root, missing ones are made; whiteouts act on what prev has, never on the layer's own entries.
func (x *Index) Apply(prev *tree.Tree) (*tree.Tree, error) {
	return x.apply(prev, 0)
}

// apply is Apply; made is the time of directories that have no header.
func (x *Index) apply(prev *tree.Tree, made int64) (*tree.Tree, error) {
	a := applier{e: prev.Edit(), made: made}
	if x.whiteouts {
		a.written = map[string]bool{}
	}
	for _, e := range x.entries {
		if err := a.apply(e); err != nil {
			return nil, fmt.Errorf("entry %q: %w", brief(e.name), err)
		}
	}
	if err := a.finishLinks(); err != nil {
		return nil, err
	}
	return a.e.Commit(), nil
}

type applier struct {
	e    *tree.Editor
	made int64 // time of missing parents
	// written are the paths of this layer and the directories above them, kept only if it has whiteouts.
	written map[string]bool
	// links are the files that this layer gives further names.
	links map[*tree.Inode]*links
	// lastDir and lastReal remember the parent that was resolved last: entries come directory by directory.
	lastDir, lastReal string
	known             bool
}

func (a *applier) apply(en entry) error {
	if en.name == "" && en.kind == entryInode {
		return nil // the root is always 0755 and root's: containerd and BuildKit pass over such an entry
	}
	switch en.kind {
	case entryOpaque:
		return a.opaque(en.name)
	case entryWhiteout:
		return a.whiteout(en.name)
	case entryHardLink:
		return a.hardLink(en)
	default:
		p, err := a.place(en.name)
		if err != nil {
			return err
		}
		return a.put(p, en.inode)
	}
}

// put applies an inode; the cached parent is dropped where a directory or link may have gone.
func (a *applier) put(p string, ino *tree.Inode) error {
	if old := a.e.Lookup(p); old != nil && (old.Type == tree.Symlink || old.Type == tree.Dir && ino.Type != tree.Dir) {
		a.known = false
	}
	if a.written != nil {
		for w := p; w != "" && w != "."; w = path.Dir(w) {
			a.written[w] = true
		}
	}
	return a.e.Apply(tree.Change{Path: p, Inode: ino})
}

// place returns the physical path for name, making the directories above it.
func (a *applier) place(name string) (string, error) {
	dir, base := path.Split(name)
	if !a.known || dir != a.lastDir {
		real, ino, err := a.e.Resolve(dir, true)
		if errors.Is(err, tree.ErrNotDir) {
			return "", fmt.Errorf("below something that is no directory: %w", err)
		}
		if err != nil {
			return "", err
		}
		if ino == nil {
			if err := a.mkdirAll(real); err != nil {
				return "", err
			}
		} else if ino.Type != tree.Dir {
			return "", &fs.PathError{Op: "unpack", Path: dir, Err: tree.ErrNotDir}
		}
		a.lastDir, a.lastReal, a.known = dir, real, true
	}
	p := path.Join(a.lastReal, base)
	if strings.Count(p, "/") >= maxDepth {
		return "", fmt.Errorf("more than %d directories deep, links followed", maxDepth)
	}
	return p, nil
}

// mkdirAll makes the directories that a layer implies but does not hold.
func (a *applier) mkdirAll(p string) error {
	done := ""
	for part := range strings.SplitSeq(p, "/") {
		done = path.Join(done, part)
		if old := a.e.Lookup(done); old != nil {
			continue
		}
		if err := a.e.Put(done, tree.NewDir(tree.Meta{Mode: 0o755, MTime: a.made})); err != nil {
			return err
		}
	}
	return nil
}

func (a *applier) whiteout(name string) error {
	dir, base := path.Split(name)
	real, ino, err := a.e.Resolve(dir, true)
	if err != nil || ino == nil {
		return ignoreMissing(err)
	}
	p := path.Join(real, base)
	a.known = false
	if !a.written[p] {
		return a.e.Remove(p)
	}
	if ino := a.e.Lookup(p); ino != nil && ino.Type == tree.Dir {
		return a.hide(p)
	}
	return nil
}

func (a *applier) opaque(dir string) error {
	real, ino, err := a.e.Resolve(dir, true)
	if err != nil || ino == nil {
		return ignoreMissing(err)
	}
	if ino.Type != tree.Dir {
		return nil
	}
	a.known = false
	return a.hide(real)
}

// hide removes from the directory at p what lower layers have there, at any depth.
func (a *applier) hide(p string) error {
	names, err := a.e.Names(p)
	if err != nil {
		return err
	}
	for _, name := range names {
		child := path.Join(p, name)
		if !a.written[child] {
			err = a.e.Remove(child)
		} else if ino := a.e.Lookup(child); ino != nil && ino.Type == tree.Dir {
			err = a.hide(child)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, tree.ErrNotDir) || errors.Is(err, tree.ErrLoop) {
		return nil
	}
	return err
}

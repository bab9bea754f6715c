// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"

	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// links are the names of one file, and what the headers say of it: each header of a further name is applied to the file, so
// that the last one is true of all names. Tools that write one file's headers alike never notice.
type links struct {
	names []string
	meta  tree.Meta
}

// hardLink gives a file a further name.
func (a *applier) hardLink(en entry) error {
	p, err := a.place(en.name)
	if err != nil {
		return err
	}
	target, ino, err := a.e.Resolve(en.target, false)
	if err != nil {
		return err
	}
	if ino == nil {
		return fmt.Errorf("hard link to %q: %w", en.target, fs.ErrNotExist)
	}
	if ino.Type == tree.Dir {
		return fmt.Errorf("hard link to the directory %q", en.target)
	}
	if target == p {
		return errors.New("hard link to itself")
	}
	if !ino.Shared {
		ino = ino.With(ino.Meta)
		ino.Shared = true
		if err := a.e.Put(target, ino); err != nil {
			return err
		}
	}
	l := a.links[ino]
	if l == nil {
		l = &links{names: []string{target}, meta: ino.Meta}
		if a.links == nil {
			a.links = map[*tree.Inode]*links{}
		}
		a.links[ino] = l
	}
	l.names, l.meta = append(l.names, p), relinked(ino.Type, l.meta, en.inode.Meta)
	return a.put(p, ino)
}

// relinked is what becomes of a file's metadata when the header of another name is applied to it: changing the owner takes
// capabilities away, and links have no mode of their own.
func relinked(t tree.Type, old, header tree.Meta) tree.Meta {
	m := header
	if t == tree.Symlink {
		m.Mode = old.Mode
	}
	m.Xattrs = maps.Clone(old.Xattrs)
	delete(m.Xattrs, "security.capability")
	for k, v := range header.Xattrs {
		if m.Xattrs == nil {
			m.Xattrs = map[string]string{}
		}
		m.Xattrs[k] = v
	}
	if len(m.Xattrs) == 0 {
		m.Xattrs = nil
	}
	return m
}

// finishLinks gives every file with several names the metadata that its headers end up with. A name that the
// layer has given to something else since is left alone.
func (a *applier) finishLinks() error {
	for ino, l := range a.links {
		changed := ino.With(l.meta)
		if changed.SameMeta(ino) && changed.MTime == ino.MTime {
			continue
		}
		changed.Shared = true
		for _, name := range l.names {
			if a.e.Lookup(name) != ino {
				continue
			}
			if err := a.e.Put(name, changed); err != nil {
				return err
			}
		}
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

// Package copy computes what COPY and ADD do: from the Tree of a source (build
// context, stage or image) and the Tree of the stage it makes the stage's next Tree.
//
// Nothing is read but names and metadata, and nothing is written: contents stay
// where they are and are referred to. The rules are BuildKit's: which links are followed, what
// is made with which mode, and what may replace what.
package copy

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/kaniko-go/kaniko-go/builder/internal/dockerfile"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// Request is one COPY or ADD.
type Request struct {
	// Source is what the paths of Items are in.
	Source *tree.Tree
	// Items are copied one after the other.
	Items []Item
	// Dest is absolute. A trailing slash or "/." makes it a directory.
	Dest string
	// Chown and Chmod are as in the Dockerfile, "" for none.
	Chown, Chmod string
	// Exclude hides what it matches below the directories that are copied; paths are relative to those.
	// What is itself a source is never hidden.
	Exclude *dockerfile.Matcher
	// Parents keeps a path's directories below Dest, those after "/./" where that is in it. Wildcards
	// are then those of ignore files, with "**" for any number of directories.
	Parents bool
	// Times are those of the layer.
	Times tree.Times
	// Archive tells whether a regular file is an archive, and gives its Tree then. It is asked for items with Unpack.
	Archive func(ino *tree.Inode) (*tree.Tree, error)
}

// Item is one source: a path in Source, or something that is there already.
type Item struct {
	// Path is relative to the root of Source; wildcards are those of path.Match, by component.
	Path string
	// Name and Inode are a file from elsewhere, or a directory whose contents are copied.
	Name  string
	Inode *tree.Inode
	// Unpack replaces an archive by what is in it.
	Unpack bool
}

// Apply returns what t becomes.
func Apply(t *tree.Tree, r Request) (*tree.Tree, error) {
	c := &copier{req: r, edit: t.Edit(), toDir: dirSyntax(r.Dest) || r.Parents, now: r.Times.Now()}
	var err error
	if c.uid, c.gid, c.chown, err = owner(t, r.Chown); err != nil {
		return nil, err
	}
	if c.chmod, err = parseChmod(r.Chmod); err != nil {
		return nil, err
	}
	for _, item := range r.Items {
		if err := c.item(item); err != nil {
			return nil, err
		}
	}
	return c.edit.Commit(), nil
}

func (c *copier) item(item Item) error {
	if item.Inode != nil {
		return c.copy(found{item.Name, item.Inode}, item.Unpack)
	}
	if c.req.Parents {
		return c.withParents(item.Path)
	}
	matches, err := match(c.req.Source, item.Path)
	if err != nil {
		return err
	}
	for _, m := range matches {
		if err := c.copy(m, item.Unpack); err != nil {
			return err
		}
	}
	return nil
}

func dirSyntax(dest string) bool {
	return strings.HasSuffix(dest, "/") || strings.HasSuffix(dest, "/.")
}

func owner(t *tree.Tree, spec string) (uid, gid uint32, given bool, err error) {
	if spec == "" {
		return 0, 0, false, nil
	}
	uid, gid, err = t.Owner(spec)
	if err != nil {
		return 0, 0, false, fmt.Errorf("--chown=%s: %w", spec, err)
	}
	return uid, gid, true, nil
}

type copier struct {
	req      Request
	edit     *tree.Editor
	toDir    bool
	uid, gid uint32
	chown    bool
	chmod    *chmod
	// now is the time of what is made or changed on the way.
	now int64
	// passed are directories that are only on the way to what --parents copies: where there is one already it stays as it is.
	passed map[*tree.Inode]bool
}

// meta is the metadata of a copy.
func (c *copier) meta(ino *tree.Inode) tree.Meta {
	m := tree.Meta{Mode: ino.Mode, UID: ino.UID, GID: ino.GID, MTime: c.req.Times.Of(ino.MTime)}
	if c.chown {
		m.UID, m.GID = c.uid, c.gid
	}
	if ino.Type != tree.Symlink {
		m.Mode = c.chmod.apply(m.Mode, ino.Type == tree.Dir)
	}
	if v, ok := ino.Xattrs["security.capability"]; ok {
		m.Xattrs = map[string]string{"security.capability": v}
	}
	return m
}

func (c *copier) copy(m found, unpack bool) error {
	if m.inode.Type == tree.Dir {
		return c.directory(m.inode)
	}
	if unpack && m.inode.Type == tree.File {
		archive, err := c.req.Archive(m.inode)
		if err != nil {
			return fmt.Errorf("unpack %q: %w", m.name, err)
		}
		if archive != nil {
			return c.archive(archive)
		}
	}
	return c.file(m)
}

// file copies anything that is no directory to the destination, or into it if that is one.
func (c *copier) file(m found) error {
	p, old, err := c.dest()
	if err != nil {
		return err
	}
	if old == nil && c.toDir {
		if err := c.mkdirAll(p); err != nil {
			return err
		}
	}
	if c.toDir || old != nil && old.Type == tree.Dir {
		p = path.Join(p, m.name)
	}
	if err := c.mkdirAll(parent(p)); err != nil {
		return err
	}
	if err := c.put(p, m.inode, map[*tree.Inode]*tree.Inode{}); err != nil {
		return err
	}
	return c.touch(parent(p))
}

// touch gives a directory the time that a file system gives one in which something was made.
func (c *copier) touch(p string) error {
	dir := c.edit.Lookup(p)
	if p == "" || dir == nil || dir.MTime == c.now {
		return nil
	}
	m := dir.Meta
	m.MTime = c.now
	return c.edit.SetMeta(p, m)
}

// dest resolves the destination's links. The inode is nil if there is nothing yet.
func (c *copier) dest() (string, *tree.Inode, error) {
	p, ino, err := c.edit.Resolve(c.req.Dest, true)
	if errors.Is(err, tree.ErrNotDir) {
		return "", nil, fmt.Errorf("cannot copy to non-directory: %s", c.req.Dest)
	}
	if err != nil {
		return "", nil, err
	}
	if c.toDir && ino != nil && ino.Type != tree.Dir {
		return "", nil, fmt.Errorf("cannot copy to non-directory: %s", c.req.Dest)
	}
	return p, ino, nil
}

// directory copies what is in a directory.
func (c *copier) directory(src *tree.Inode) error {
	p, old, err := c.dest()
	if err != nil {
		return err
	}
	if old != nil && old.Type != tree.Dir {
		return fmt.Errorf("cannot copy to non-directory: %s", c.req.Dest)
	}
	if err := c.mkdirAll(p); err != nil {
		return err
	}
	if err := c.aged(p, src); err != nil {
		return err
	}
	filtered, passed, err := exclude(src, c.req.Exclude)
	if err != nil {
		return err
	}
	c.passed = passed
	defer func() { c.passed = nil }()
	if err := c.children(p, filtered, map[*tree.Inode]*tree.Inode{}); err != nil || len(passed) == 0 {
		return err
	}
	return c.aged(p, src)
}

// aged gives the directory at p the time of the one whose contents it receives. The root of a context or stage is as old as
// what holds it: the build.
func (c *copier) aged(p string, src *tree.Inode) error {
	if p == "" {
		return nil
	}
	m := c.edit.Lookup(p).Meta
	m.MTime = c.now
	if c.req.Source == nil || src != c.req.Source.Root() {
		m.MTime = c.req.Times.Of(src.MTime)
	}
	return c.edit.SetMeta(p, m)
}

func (c *copier) children(p string, src *tree.Inode, links map[*tree.Inode]*tree.Inode) error {
	entries, err := src.Entries()
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := c.put(path.Join(p, e.Name), e.Inode, links); err != nil {
			return err
		}
	}
	return nil
}

// put copies one inode to a physical path, directories with all below them. links keeps hard links within one source.
func (c *copier) put(p string, src *tree.Inode, links map[*tree.Inode]*tree.Inode) error {
	old := c.edit.Lookup(p)
	if src.Type == tree.Dir {
		if old != nil && old.Type != tree.Dir {
			return fmt.Errorf("cannot copy to non-directory: /%s", p)
		}
		if c.passed[src] {
			return c.through(p, src, old, links)
		}
		m := c.meta(src)
		if err := c.edit.Apply(tree.Change{Path: p, Inode: tree.NewDir(m)}); err != nil {
			return err
		}
		if err := c.children(p, src, links); err != nil || len(c.passed) == 0 {
			return err
		}
		if old == nil {
			if err := c.touch(parent(p)); err != nil {
				return err
			}
		}
		return c.edit.SetMeta(p, m) // what was made below has touched it
	}
	if old != nil && old.Type == tree.Dir {
		return fmt.Errorf("cannot replace to directory /%s with file", p)
	}
	ino, err := c.inode(src, old, links)
	if err != nil {
		return err
	}
	if err := c.edit.Put(p, ino); err != nil || len(c.passed) == 0 {
		return err
	}
	return c.touch(parent(p))
}

// through is put for a directory that is only on the way: a new one has the source's metadata, one that is there gets its
// mode, and neither gets its time.
func (c *copier) through(p string, src, old *tree.Inode, links map[*tree.Inode]*tree.Inode) error {
	if old == nil {
		m := c.meta(src)
		m.MTime = c.now
		if err := c.edit.Put(p, tree.NewDir(m)); err != nil {
			return err
		}
		if err := c.touch(parent(p)); err != nil {
			return err
		}
		return c.children(p, src, links)
	}
	m := old.Meta
	m.Mode = src.Mode
	if err := c.edit.SetMeta(p, m); err != nil {
		return err
	}
	return c.children(p, src, links)
}

// inode is the copy of src: the old inode of the path if it is just that, src itself if nothing differs.
func (c *copier) inode(src, old *tree.Inode, links map[*tree.Inode]*tree.Inode) (*tree.Inode, error) {
	if ino := links[src]; ino != nil {
		return ino, nil
	}
	ino := src.With(c.meta(src))
	if src.Shared && src.Type != tree.File {
		return ino, nil // only files keep their other names
	}
	if src.Shared {
		ino.Shared = true
		links[src] = ino
		return ino, nil
	}
	if old != nil && old.SameMeta(ino) && old.MTime == ino.MTime {
		same, err := tree.SameContent(old, ino)
		if err != nil || same {
			return old, err
		}
	}
	if src.SameMeta(ino) && src.MTime == ino.MTime {
		return src, nil
	}
	return ino, nil
}

// mkdirAll makes the missing directories up to p, which is physical.
func (c *copier) mkdirAll(p string) error {
	done := ""
	for part := range strings.SplitSeq(p, "/") {
		if part == "" {
			continue
		}
		done = path.Join(done, part)
		if old := c.edit.Lookup(done); old != nil {
			if old.Type != tree.Dir {
				return fmt.Errorf("cannot copy to non-directory: /%s", done)
			}
			continue
		}
		m := tree.Meta{Mode: c.chmod.made(), UID: c.uid, GID: c.gid, MTime: c.now}
		if above := c.edit.Lookup(parent(done)); above.Mode&0o2000 != 0 {
			m.Mode |= 0o2000 // what a file system does below a set-group-ID directory
			if !c.chown {
				m.GID = above.GID
			}
		}
		if err := c.edit.Put(done, tree.NewDir(m)); err != nil {
			return err
		}
		if err := c.touch(parent(done)); err != nil {
			return err
		}
	}
	return nil
}

func parent(p string) string {
	if i := strings.LastIndexByte(p, '/'); i >= 0 {
		return p[:i]
	}
	return ""
}

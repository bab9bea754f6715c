// SPDX-License-Identifier: Apache-2.0

package copy

import (
	"errors"
	"io/fs"
	"path"
	"strings"

	"github.com/kaniko-go/kaniko-go/builder/internal/dockerfile"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// exclude returns dir without what m matches below it. A directory that is matched stays if something in it is included
// again, and is one of passed then: it is only on the way.
func exclude(dir *tree.Inode, m *dockerfile.Matcher) (kept *tree.Inode, passed map[*tree.Inode]bool, err error) {
	if m == nil {
		return dir, nil, nil
	}
	passed = map[*tree.Inode]bool{}
	kept, err = without(dir, "", m, dockerfile.Info{}, passed)
	return kept, passed, err
}

func without(dir *tree.Inode, p string, m *dockerfile.Matcher, parent dockerfile.Info, passed map[*tree.Inode]bool) (*tree.Inode, error) {
	entries, err := dir.Entries()
	if err != nil {
		return nil, err
	}
	var kept []tree.Entry
	for _, e := range entries {
		child := path.Join(p, e.Name)
		hidden, info := m.Match(child, parent)
		if hidden && (e.Inode.Type != tree.Dir || !m.MayReinclude(child)) {
			continue
		}
		if e.Inode.Type == tree.Dir {
			sub, err := without(e.Inode, child, m, info, passed)
			if err != nil {
				return nil, err
			}
			if hidden {
				if below, err := sub.Entries(); err != nil || len(below) == 0 {
					continue
				}
				passed[sub] = true
			}
			e.Inode = sub
		}
		kept = append(kept, e)
	}
	return tree.NewDir(dir.Meta, kept...), nil
}

// withParents copies what a pattern matches together with the directories above it, up to the pivot "/./".
func (c *copier) withParents(pattern string) error {
	root, rest, pivot := strings.Cut("/"+pattern, "/./")
	if !pivot {
		root, rest = "", pattern
	}
	rest = strings.TrimPrefix(path.Clean("/"+rest), "/")
	bases, err := match(c.req.Source, root)
	if errors.Is(err, fs.ErrNotExist) {
		return &NotFoundError{path.Clean("/" + pattern)}
	}
	if err != nil {
		return err
	}
	wild := strings.ContainsAny(root+rest, `*?[\`)
	for _, base := range bases {
		switch {
		case rest == "":
			err = c.copy(base, false)
		case base.inode.Type == tree.Dir:
			err = c.below(base.inode, rest, !wild)
		case !wild:
			err = fs.ErrNotExist
		}
		if errors.Is(err, fs.ErrNotExist) {
			return &NotFoundError{path.Clean("/" + pattern)}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// below copies what a pattern matches below a directory. A required one must stand for something, even if that is excluded.
func (c *copier) below(base *tree.Inode, pattern string, required bool) error {
	include, err := dockerfile.NewMatcher([]string{pattern})
	if err != nil {
		return err
	}
	f := included{include: include, exclude: c.req.Exclude, parts: strings.Split(pattern, "/"), passed: map[*tree.Inode]bool{}}
	if required {
		if _, err := physical(base, pattern); err != nil {
			return err
		}
	}
	dir, _, err := f.dir(base, "", dockerfile.Info{}, dockerfile.Info{})
	if err != nil {
		return err
	}
	p, _, err := c.dest()
	if err != nil {
		return err
	}
	if err := c.mkdirAll(p); err != nil {
		return err
	}
	c.passed = f.passed
	defer func() { c.passed = nil }()
	if err := c.children(p, dir, map[*tree.Inode]*tree.Inode{}); err != nil {
		return err
	}
	return c.aged(p, base)
}

// physical looks a path up without following links.
func physical(dir *tree.Inode, p string) (*tree.Inode, error) {
	for name := range strings.SplitSeq(p, "/") {
		if dir.Type != tree.Dir {
			return nil, fs.ErrNotExist
		}
		var err error
		if dir, err = dir.Child(name); err != nil {
			return nil, err
		}
	}
	return dir, nil
}

// included finds what a pattern of --parents matches.
type included struct {
	include, exclude *dockerfile.Matcher
	parts            []string
	// passed are the directories that do not match but lead to something that does.
	passed map[*tree.Inode]bool
}

// dir returns a directory with what matches in it; ok is false if nothing does.
func (f *included) dir(dir *tree.Inode, p string, in, out dockerfile.Info) (*tree.Inode, bool, error) {
	entries, err := dir.Entries()
	if err != nil {
		return nil, false, err
	}
	var kept []tree.Entry
	for _, e := range entries {
		ino, ok, err := f.entry(e, path.Join(p, e.Name), in, out)
		if err != nil {
			return nil, false, err
		}
		if ok {
			kept = append(kept, tree.Entry{Name: e.Name, Inode: ino})
		}
	}
	return tree.NewDir(dir.Meta, kept...), len(kept) > 0, nil
}

func (f *included) entry(e tree.Entry, p string, in, out dockerfile.Info) (*tree.Inode, bool, error) {
	matched, in := f.include.Match(p, in)
	hidden, out := f.exclude.Match(p, out)
	if e.Inode.Type != tree.Dir {
		return e.Inode, matched && !hidden, nil
	}
	if hidden && !f.exclude.MayReinclude(p) || !matched && !f.leads(p) {
		return nil, false, nil
	}
	dir, any, err := f.dir(e.Inode, p, in, out)
	if err != nil {
		return nil, false, err
	}
	if !matched || hidden {
		f.passed[dir] = true
		return dir, any, nil
	}
	return dir, true, nil
}

// leads reports whether something below the directory p can match: there is no need to read what cannot.
func (f *included) leads(p string) bool {
	names := strings.Split(p, "/")
	for i, part := range f.parts {
		if part == "**" || i == len(names) {
			return true
		}
		if ok, err := path.Match(part, names[i]); err == nil && !ok {
			return false
		}
	}
	return false
}

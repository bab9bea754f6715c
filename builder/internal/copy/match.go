// SPDX-License-Identifier: Apache-2.0

package copy

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// found is one thing to copy: the name it was found by, and what is there after links were followed.
type found struct {
	name  string
	inode *tree.Inode
}

// NotFoundError says that a source without wildcards does not exist. It wraps fs.ErrNotExist.
type NotFoundError struct {
	// Path is the source with a leading slash.
	Path string
}

func (e *NotFoundError) Error() string { return fmt.Sprintf("%q: not found", e.Path) }

// Unwrap implements errors.Unwrap.
func (e *NotFoundError) Unwrap() error { return fs.ErrNotExist }

// match finds what a source stands for. What leads out of the root is clamped to it. Without wildcards
// the one thing must exist; with them there may be none, but the
// directories before the first of them must exist.
func match(t *tree.Tree, pattern string) ([]found, error) {
	clean := strings.TrimPrefix(path.Clean("/"+pattern), "/")
	if !strings.ContainsAny(clean, `*?[\`) {
		ino, err := t.Stat(clean)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, &NotFoundError{"/" + clean}
		}
		if err != nil {
			return nil, err
		}
		return []found{{path.Base("/" + clean), ino}}, nil
	}
	parts := strings.Split(clean, "/")
	n := 0
	for !strings.ContainsAny(parts[n], `*?[\`) {
		n++
	}
	if _, err := path.Match(clean, ""); err != nil {
		return nil, fmt.Errorf("source %q: %w", pattern, err)
	}
	literal := path.Join(parts[:n]...)
	prefix, ino, err := t.Resolve(literal, true)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, tree.ErrNotDir), err == nil && ino == nil:
		return nil, &NotFoundError{"/" + literal}
	case err != nil:
		return nil, err
	case ino.Type != tree.Dir:
		return nil, nil
	}
	m := matcher{tree: t}
	err = m.level(prefix, ino, parts[n:])
	return m.found, err
}

type matcher struct {
	tree  *tree.Tree
	found []found
}

// level matches the first of parts against the names in a directory. Links are followed only for the last part.
func (m *matcher) level(p string, dir *tree.Inode, parts []string) error {
	entries, err := dir.Entries()
	if err != nil {
		return err
	}
	for _, e := range entries {
		if ok, err := path.Match(parts[0], e.Name); err != nil || !ok {
			if err != nil {
				return err
			}
			continue
		}
		child := path.Join(p, e.Name)
		switch {
		case len(parts) == 1:
			err = m.add(child, e)
		case e.Inode.Type == tree.Dir:
			err = m.level(child, e.Inode, parts[1:])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *matcher) add(p string, e tree.Entry) error {
	ino := e.Inode
	if ino.Type == tree.Symlink {
		var err error
		if ino, err = m.tree.Stat(p); errors.Is(err, fs.ErrNotExist) {
			return &NotFoundError{"/" + p}
		} else if err != nil {
			return err
		}
	}
	m.found = append(m.found, found{e.Name, ino})
	return nil
}

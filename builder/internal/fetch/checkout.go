// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/go-git/go-git/v6/plumbing"
	"github.com/go-git/go-git/v6/plumbing/format/index"

	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// checkout makes a directory tree of objects. Nothing is written to a disk for it.
type checkout struct {
	git   *git
	mtime int64
}

func (c *checkout) meta(mode uint16) tree.Meta { return tree.Meta{Mode: mode, MTime: c.mtime} }

// worktree is one repository being checked out.
type worktree struct {
	*checkout
	repo *repository
	// prefix is the path of the repository in that of the user, nesting how many repositories it lies in.
	prefix  string
	nesting int
	modules map[string]module
	// files are what the .git directory's index lists.
	files []*index.Entry
}

// repository returns the root directory of a fetched repository.
func (c *checkout) repository(ctx context.Context, r *repository, prefix string, nesting int) (*tree.Inode, error) {
	w := &worktree{checkout: c, repo: r, prefix: prefix, nesting: nesting}
	entries, err := w.entries(ctx, r.tree, "", nil)
	if err != nil {
		return nil, err
	}
	if c.git.keep {
		dir, err := w.gitDir()
		if err != nil {
			return nil, err
		}
		entries = append(entries, tree.Entry{Name: ".git", Inode: dir})
	}
	return tree.NewDir(c.meta(0o755), entries...), nil
}

// entries lists a directory.
func (w *worktree) entries(ctx context.Context, h plumbing.Hash, dir string, above *attributes) ([]tree.Entry, error) {
	if strings.Count(path.Join(w.prefix, dir), "/") > maxDepth {
		return nil, fmt.Errorf("%w: directories lie deeper than %d", ErrLimit, maxDepth)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	list, err := w.git.objects.tree(h)
	if err != nil {
		return nil, err
	}
	if dir == "" && w.modules == nil {
		if w.modules, err = w.git.modulesOf(list); err != nil {
			return nil, err
		}
	}
	attrs, err := w.attributesOf(list, dir, above)
	if err != nil {
		return nil, err
	}
	var out []tree.Entry
	for _, e := range list {
		if w.git.budget.entries--; w.git.budget.entries < 0 {
			return nil, fmt.Errorf("%w: more than %d files", ErrLimit, w.git.opts.MaxEntries)
		}
		ino, err := w.entry(ctx, e, path.Join(dir, e.name), attrs)
		if err != nil {
			return nil, err
		}
		if ino != nil {
			out = append(out, tree.Entry{Name: e.name, Inode: ino})
		}
	}
	return out, nil
}

// entry makes an inode; nil for an empty directory, which git does not check out.
func (w *worktree) entry(ctx context.Context, e treeEntry, p string, attrs *attributes) (*tree.Inode, error) {
	switch e.mode & modeType {
	case modeDir:
		below, err := w.entries(ctx, e.hash, p, attrs)
		if err != nil || len(below) == 0 {
			return nil, err
		}
		return tree.NewDir(w.meta(0o755), below...), nil
	case modeFile:
		return w.file(e, p, attrs)
	case modeLink:
		return w.link(e, p)
	case modeSubmodule:
		w.list(p, e, 0)
		return w.submodule(ctx, e, p)
	default:
		return nil, fmt.Errorf("%w: %s has the mode %o", ErrForbidden, escape(p), e.mode)
	}
}

func (w *worktree) file(e treeEntry, p string, attrs *attributes) (*tree.Inode, error) {
	obj, err := w.blob(e, p)
	if err != nil {
		return nil, err
	}
	if attrs != nil {
		if w.git.budget.matches -= attrs.count; w.git.budget.matches < 0 {
			return nil, fmt.Errorf("%w: too many rules in .gitattributes", ErrLimit)
		}
	}
	if how := attrs.lines(p); how != keepLines {
		if obj, err = w.git.objects.convert(obj, how); err != nil {
			return nil, err
		}
	}
	w.list(p, e, obj.size)
	mode := uint16(0o644)
	if e.mode&0o100 != 0 {
		mode = 0o755
	}
	if obj.size == 0 {
		return tree.NewFile(w.meta(mode), 0, nil), nil
	}
	content := &section{w.git.objects.file, obj.off, obj.size}
	if obj.size > maxPointer {
		return tree.NewFile(w.meta(mode), obj.size, content), nil
	}
	return tree.NewFile(w.meta(mode), obj.size, &smallFile{content, p}), nil
}

func (w *worktree) link(e treeEntry, p string) (*tree.Inode, error) {
	obj, err := w.blob(e, p)
	if err != nil {
		return nil, err
	}
	w.list(p, e, obj.size)
	target, err := w.git.objects.read(e.hash, plumbing.BlobObject, maxLinkSize)
	if err != nil {
		return nil, err
	}
	if len(target) == 0 || strings.ContainsRune(string(target), 0) {
		return nil, fmt.Errorf("%w: the symbolic link %s leads nowhere", ErrForbidden, escape(p))
	}
	return tree.NewSymlink(w.meta(0o777), string(target)), nil
}

// blob finds the content of a file or link and pays for it.
func (w *worktree) blob(e treeEntry, p string) (object, error) {
	obj, err := w.git.objects.get(e.hash)
	if err != nil {
		return object{}, err
	}
	if obj.kind != plumbing.BlobObject {
		return object{}, fmt.Errorf("%w: the content of %s is a %s", errPack, escape(p), obj.kind)
	}
	if w.git.budget.bytes -= obj.size; w.git.budget.bytes < 0 {
		return object{}, fmt.Errorf("%w: the files have more than %d bytes", ErrLimit, w.git.opts.MaxTree)
	}
	return obj, nil
}

// list adds a path to the index of the .git directory.
func (w *worktree) list(p string, e treeEntry, size int64) {
	if !w.git.keep {
		return
	}
	w.files = append(w.files, &index.Entry{Name: p, Hash: e.hash, Mode: indexMode(e.mode), Size: uint32(size)})
}

// subdirectory finds a directory of a repository: through directories only, as BuildKit does.
func subdirectory(root *tree.Inode, p string) (*tree.Inode, error) {
	if p == "" {
		return root, nil
	}
	ino := root
	for _, name := range strings.Split(p, "/") {
		child, err := ino.Child(name)
		if err != nil {
			return nil, fmt.Errorf("invalid subdir %s: %w", escape(p), &fs.PathError{Op: "find", Path: escape(name), Err: err})
		}
		if child.Type != tree.Dir {
			return nil, fmt.Errorf("git subpath %q contains non-directory %q", escape(p), escape(name))
		}
		ino = child
	}
	return ino, nil
}

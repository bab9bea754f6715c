// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// xattrPrefix is the PAX key under which tar files carry extended attributes.
const xattrPrefix = "SCHILY.xattr."

// opaqueName is the whiteout that stands for everything a lower layer has in a directory.
const opaqueName = whiteoutPrefix + whiteoutPrefix + ".opq"

// Limits on what a hostile layer may make us keep.
const (
	maxEntries    = 5_000_000
	maxDepth      = 256
	maxXattrBytes = 64 << 10
	// inlineLimit: /etc/passwd and /etc/group up to this size are kept in the index.
	inlineLimit = 10 << 20
	// maxSparse: a few bytes of a tar file can stand for any number of zeros.
	maxSparse = 1 << 30
)

// Index is a layer without its contents: its headers in order, with the place of each content. Apply makes Trees of it.
type Index struct {
	entries []entry
	// whiteouts is true if there is any.
	whiteouts bool
}

type entry struct {
	// name is clean and relative; of a whiteout, the path that is gone or the directory that is opaque.
	name string
	kind entryKind
	// inode of a file, directory, link or device; of a hard link, only what its header says of the inode.
	inode *tree.Inode
	// target is a hard link's other name.
	target string
}

type entryKind uint8

const (
	entryInode entryKind = iota
	entryHardLink
	entryWhiteout
	entryOpaque
)

// reader reads the headers of a tar file.
type reader struct {
	// plain makes whiteouts files like any other.
	plain bool
	// at tells how far the tar file was read: after a header, where the content begins.
	at func() int64
	// place gives the Content for a range of the tar file.
	place func(off, size int64) tree.Content
	// keep gives the Content for bytes that are not in one piece, and reads them.
	keep func(r io.Reader, size int64) (tree.Content, error)
}

func (rd reader) index(r io.Reader) (*Index, error) {
	idx := &Index{}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return idx, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read tar: %w", err)
		}
		if len(idx.entries) >= maxEntries {
			return nil, fmt.Errorf("the layer has more than %d entries", maxEntries)
		}
		e, ok, err := rd.entry(tr, h)
		if err != nil {
			return nil, fmt.Errorf("entry %q: %w", h.Name, err)
		}
		if ok {
			idx.entries = append(idx.entries, e)
			idx.whiteouts = idx.whiteouts || e.kind >= entryWhiteout
		}
	}
}

// cleanName makes an entry's name relative to the root, clamping what would lead out of it.
func cleanName(name string) string {
	return strings.TrimPrefix(path.Clean("/"+name), "/")
}

func (rd reader) entry(tr *tar.Reader, h *tar.Header) (entry, bool, error) {
	name := cleanName(h.Name)
	if strings.IndexByte(name, 0) >= 0 || strings.IndexByte(h.Linkname, 0) >= 0 {
		return entry{}, false, errors.New("a NUL byte in the name")
	}
	if strings.Count(name, "/") >= maxDepth {
		return entry{}, false, fmt.Errorf("more than %d directories deep", maxDepth)
	}
	dir, base := path.Split(name)
	if strings.HasPrefix(base, whiteoutPrefix) && !rd.plain {
		return readWhiteout(strings.TrimSuffix(dir, "/"), base)
	}
	if name == "" && h.Typeflag != tar.TypeDir {
		return entry{}, false, fmt.Errorf("the root is a %q", h.Typeflag)
	}
	if h.Typeflag == tar.TypeLink {
		m, err := readMeta(h)
		return entry{name: name, kind: entryHardLink, target: cleanName(h.Linkname), inode: tree.NewFile(m, 0, nil)}, true, err
	}
	ino, err := rd.inode(tr, h, name)
	return entry{name: name, inode: ino}, ino != nil, err
}

func readWhiteout(dir, base string) (entry, bool, error) {
	if base == opaqueName {
		return entry{name: dir, kind: entryOpaque}, true, nil
	}
	gone := strings.TrimPrefix(base, whiteoutPrefix)
	if strings.HasPrefix(gone, whiteoutPrefix) {
		// Other markers of AUFS (.wh..wh.plnk and the like) say nothing about files.
		return entry{}, false, nil
	}
	if gone == "" || gone == "." || gone == ".." {
		return entry{}, false, fmt.Errorf("a whiteout of %q", gone)
	}
	return entry{name: path.Join(dir, gone), kind: entryWhiteout}, true, nil
}

func (rd reader) inode(tr *tar.Reader, h *tar.Header, name string) (*tree.Inode, error) {
	m, err := readMeta(h)
	if err != nil {
		return nil, err
	}
	switch h.Typeflag {
	case tar.TypeXGlobalHeader:
		return nil, nil
	case tar.TypeReg, '7', tar.TypeGNUSparse:
		return rd.file(tr, h, m, name)
	case tar.TypeDir:
		return tree.NewDir(m), nil
	case tar.TypeSymlink:
		if h.Linkname == "" {
			return nil, errors.New("a symbolic link without a target")
		}
		return tree.NewSymlink(m, h.Linkname), nil
	case tar.TypeChar:
		return tree.NewDevice(tree.CharDevice, m, uint32(h.Devmajor), uint32(h.Devminor)), nil
	case tar.TypeBlock:
		return tree.NewDevice(tree.BlockDevice, m, uint32(h.Devmajor), uint32(h.Devminor)), nil
	case tar.TypeFifo:
		return tree.NewFifo(m), nil
	default:
		return nil, fmt.Errorf("entries of type %q are not supported", h.Typeflag)
	}
}

func (rd reader) file(tr *tar.Reader, h *tar.Header, m tree.Meta, name string) (*tree.Inode, error) {
	if h.Size == 0 {
		return tree.NewFile(m, 0, nil), nil
	}
	if sparse(h) {
		if h.Size > maxSparse {
			return nil, fmt.Errorf("a sparse file of %d bytes, more than the limit of %d", h.Size, int64(maxSparse))
		}
		c, err := rd.keep(tr, h.Size)
		if err != nil {
			return nil, err
		}
		return tree.NewFile(m, h.Size, c), nil
	}
	if inline(name, h.Size) {
		b := make([]byte, h.Size)
		if _, err := io.ReadFull(tr, b); err != nil {
			return nil, err
		}
		return tree.NewFile(m, h.Size, tree.Bytes(b)), nil
	}
	return tree.NewFile(m, h.Size, rd.place(rd.at(), h.Size)), nil
}

// inline reports whether a file's bytes are in the index, because USER and --chown ask for them.
func inline(name string, size int64) bool {
	return (name == "etc/passwd" || name == "etc/group") && size <= inlineLimit
}

// sparse reports whether the content is not one range of the tar file.
func sparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return false
}

func readMeta(h *tar.Header) (tree.Meta, error) {
	m := tree.Meta{Mode: uint16(h.Mode & 0o7777), UID: uint32(h.Uid), GID: uint32(h.Gid), MTime: h.ModTime.Unix()}
	total := 0
	for k, v := range h.PAXRecords {
		attr, ok := strings.CutPrefix(k, xattrPrefix)
		if !ok || !keepXattr(attr) {
			continue
		}
		if total += len(v); total > maxXattrBytes {
			return m, fmt.Errorf("more than %d bytes of extended attributes", maxXattrBytes)
		}
		if m.Xattrs == nil {
			m.Xattrs = map[string]string{}
		}
		m.Xattrs[attr] = v
	}
	return m, nil
}

// keepXattr says which extended attributes of an image mean something to us: capabilities and what
// belongs to users. Others would act on our own kernel or its overlay.
func keepXattr(name string) bool {
	return name == "security.capability" || strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.")
}

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
			return nil, fmt.Errorf("entry %q: %w", e.name, err)
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
		return a.e.SetMeta("", en.inode.Meta)
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
	if old := a.e.Lookup(p); old != nil && (old.Type == tree.Dir || old.Type == tree.Symlink) && old.Type != ino.Type {
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
	return path.Join(a.lastReal, base), nil
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

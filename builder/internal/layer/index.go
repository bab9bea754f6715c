// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// xattrPrefix is the PAX key under which tar files carry extended attributes.
const xattrPrefix = "SCHILY.xattr."

// opaqueName is the whiteout that stands for everything a lower layer has in a directory.
const opaqueName = whiteoutPrefix + whiteoutPrefix + ".opq"

// Limits on what an entry of a hostile layer may make us do. That an extended header has at most 1 MiB, archive/tar sees to.
const (
	maxDepth      = 256
	maxXattrBytes = 64 << 10
	// inlineLimit: /etc/passwd and /etc/group up to this size are kept in the index.
	inlineLimit = 10 << 20
	// maxSparse: a few bytes of a tar file can stand for any number of zeros, which whoever reads the file must read.
	maxSparse = 64 << 30
)

// limits are those on what a whole layer may make us keep in memory.
type limits struct {
	entries int
	// names is the sum of names, link targets and extended attributes, in bytes.
	names int64
	// pieces is the number of parts of sparse files.
	pieces int
}

func defaultLimits() limits { return limits{entries: 5_000_000, names: 512 << 20, pieces: 1_000_000} }

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
	// place gives the Content for a range of the tar file.
	place func(off, size int64) tree.Content
	// check, if it is not nil, may refuse a header or change it before anything is made of it.
	check func(*tar.Header) error
	// left is what may still be kept.
	left limits
	tape *tape
}

func newReader(plain bool, place func(off, size int64) tree.Content) *reader {
	return &reader{plain: plain, place: place, left: defaultLimits()}
}

// index reads a tar file to its end. What may follow it is left in r.
func (rd *reader) index(r io.Reader) (*Index, error) {
	idx := &Index{}
	most := rd.left
	rd.tape = &tape{r: r}
	tr := tar.NewReader(rd.tape)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return idx, nil
		}
		if errors.Is(err, tar.ErrFieldTooLong) {
			return nil, fmt.Errorf("read tar: after %d entries: an extended header of more than 1 MiB: %w", len(idx.entries), err)
		}
		if err != nil {
			return nil, fmt.Errorf("read tar: after %d entries: %w", len(idx.entries), err)
		}
		if rd.left.entries--; rd.left.entries < 0 {
			return nil, fmt.Errorf("the layer has more than %d entries", most.entries)
		}
		e, ok, err := rd.checked(tr, h)
		if err != nil {
			return nil, fmt.Errorf("entry %q: %w", brief(h.Name), err)
		}
		switch {
		case rd.left.names < 0:
			return nil, fmt.Errorf("the layer has more than %d MiB of names, link targets and extended attributes", most.names>>20)
		case rd.left.pieces < 0:
			return nil, fmt.Errorf("the sparse files of the layer have more than %d parts", most.pieces)
		}
		if ok {
			idx.entries = append(idx.entries, e)
			idx.whiteouts = idx.whiteouts || e.kind >= entryWhiteout
		}
	}
}

// brief shortens a name for an error.
func brief(name string) string {
	if len(name) > 300 {
		return fmt.Sprintf("%s... (%d bytes)", name[:300], len(name))
	}
	return name
}

// cleanName makes an entry's name relative to the root, clamping what would lead out of it.
func cleanName(name string) string {
	return strings.TrimPrefix(path.Clean("/"+name), "/")
}

func (rd *reader) checked(tr *tar.Reader, h *tar.Header) (entry, bool, error) {
	if rd.check != nil {
		if err := rd.check(h); err != nil {
			return entry{}, false, err
		}
	}
	return rd.entry(tr, h)
}

func (rd *reader) entry(tr *tar.Reader, h *tar.Header) (entry, bool, error) {
	name := cleanName(h.Name)
	start, form := rd.tape.n, formOf(h)
	var pieces []piece
	if form == notSparse {
		rd.tape.keepFrom(start + h.Size)
	} else {
		var err error
		var stored int64
		if pieces, stored, err = rd.tape.pieces(h, form); err != nil {
			return entry{}, false, err
		}
		rd.tape.keepFrom(start + stored)
		rd.left.pieces -= len(pieces)
	}
	rd.left.names -= int64(len(name) + len(h.Linkname))
	if strings.IndexByte(name, 0) >= 0 || strings.IndexByte(h.Linkname, 0) >= 0 {
		return entry{}, false, errors.New("a NUL byte in the name")
	}
	if strings.Count(name, "/") >= maxDepth {
		return entry{}, false, fmt.Errorf("more than %d directories deep", maxDepth)
	}
	if !rd.plain && (strings.HasPrefix(name, whiteoutPrefix) || strings.Contains(name, "/"+whiteoutPrefix)) {
		return readWhiteout(name)
	}
	if name == "" && h.Typeflag != tar.TypeDir {
		return entry{}, false, fmt.Errorf("the root is a %q", h.Typeflag)
	}
	if h.Typeflag == tar.TypeLink {
		m, err := rd.meta(h)
		return entry{name: name, kind: entryHardLink, target: cleanName(h.Linkname), inode: tree.NewFile(m, 0, nil)}, true, err
	}
	ino, err := rd.inode(tr, h, name, pieces)
	return entry{name: name, inode: ino}, ino != nil, err
}

// readWhiteout reads an entry with a component that begins with the whiteout's prefix.
func readWhiteout(name string) (entry, bool, error) {
	dir, base := path.Split(name)
	dir = strings.TrimSuffix(dir, "/")
	if base == opaqueName {
		base = ""
	}
	for part := range strings.SplitSeq(path.Join(dir, base), "/") {
		if strings.HasPrefix(part, whiteoutPrefix+whiteoutPrefix) {
			// Other markers of AUFS (.wh..wh.plnk/ and the like) say nothing about files.
			return entry{}, false, nil
		}
	}
	if strings.HasPrefix(dir, whiteoutPrefix) || strings.Contains(dir, "/"+whiteoutPrefix) {
		return entry{}, false, errors.New("a name below a whiteout")
	}
	if base == "" {
		return entry{name: dir, kind: entryOpaque}, true, nil
	}
	gone := strings.TrimPrefix(base, whiteoutPrefix)
	if gone == "" || gone == "." || gone == ".." {
		return entry{}, false, fmt.Errorf("a whiteout of %q", gone)
	}
	return entry{name: path.Join(dir, gone), kind: entryWhiteout}, true, nil
}

func (rd *reader) inode(tr *tar.Reader, h *tar.Header, name string, pieces []piece) (*tree.Inode, error) {
	m, err := rd.meta(h)
	if err != nil {
		return nil, err
	}
	switch h.Typeflag {
	case tar.TypeXGlobalHeader:
		return nil, nil
	case tar.TypeReg, '7', tar.TypeGNUSparse:
		return rd.file(tr, h, m, name, pieces)
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

func (rd *reader) file(tr *tar.Reader, h *tar.Header, m tree.Meta, name string, pieces []piece) (*tree.Inode, error) {
	switch {
	case h.Size == 0:
		return tree.NewFile(m, 0, nil), nil
	case formOf(h) != notSparse:
		if h.Size > maxSparse {
			return nil, fmt.Errorf("a sparse file of %d bytes, more than the limit of %d", h.Size, int64(maxSparse))
		}
		return tree.NewFile(m, h.Size, newSparse(rd.place, rd.tape.n, h.Size, pieces)), nil
	case inline(name, h.Size):
		b := make([]byte, h.Size)
		if _, err := io.ReadFull(tr, b); err != nil {
			return nil, err
		}
		return tree.NewFile(m, h.Size, tree.Bytes(b)), nil
	}
	return tree.NewFile(m, h.Size, rd.place(rd.tape.n, h.Size)), nil
}

// inline reports whether a file's bytes are in the index, because USER and --chown ask for them.
func inline(name string, size int64) bool {
	return (name == "etc/passwd" || name == "etc/group") && size <= inlineLimit
}

func (rd *reader) meta(h *tar.Header) (tree.Meta, error) {
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
		rd.left.names -= int64(len(k) + len(v))
	}
	return m, nil
}

// keepXattr says which extended attributes of an image mean something to us: capabilities and what
// belongs to users. Others would act on our own kernel or its overlay.
func keepXattr(name string) bool {
	return name == "security.capability" || strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.")
}

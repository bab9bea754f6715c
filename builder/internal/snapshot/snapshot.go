// SPDX-License-Identifier: Apache-2.0

// Package snapshot finds what a RUN changed in a root on disk.
//
// There are two ways, with the same result: Upper reads the upper directory of an
// overlay mount, so that the cost is that of the changes; Walk compares the state of
// every path (inode number and change time, which nobody can set back) with the
// state that was recorded before the RUN. A path that did not change keeps its
// inode in the Tree, with all that the pod could not apply on disk. No process of
// the RUN may be alive.
package snapshot

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"sort"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/kaniko-go/kaniko-go/builder/internal/dirfd"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// Options of a snapshot.
type Options struct {
	Times tree.Times
	// Skipped are paths whose owner could not be applied when they were unpacked: they keep the owner that the
	// Tree has for them, unless RUN gave them another.
	Skipped map[string]bool
	// Kept is what of the root belongs to others. It is in no record and in no Tree of a walk.
	Kept *dirfd.Kept
}

// scanner turns what is on disk into inodes of the Tree.
type scanner struct {
	opts Options
	root *os.File
	prev *tree.Tree
	edit *tree.Editor
	// overwrites says that later RUNs write over the files of this root.
	overwrites bool
	// linked finds the further names of an inode; only files with several are in it.
	linked map[uint64]*tree.Inode
}

func newScanner(root *os.File, prev *tree.Tree, o Options) *scanner {
	return &scanner{opts: o, root: root, prev: prev, edit: prev.Edit(), linked: map[uint64]*tree.Inode{}}
}

// meta is the metadata on disk, or the Tree's where it could not be applied.
func (s *scanner) meta(p string, st *unix.Stat_t, old *tree.Inode) tree.Meta {
	m := tree.Meta{
		Mode:  uint16(st.Mode & 0o7777),
		UID:   st.Uid,
		GID:   st.Gid,
		MTime: s.opts.Times.Of(st.Mtim.Sec),
	}
	if old != nil && s.opts.Skipped[p] && int(st.Uid) == os.Geteuid() && int(st.Gid) == os.Getegid() {
		m.UID, m.GID = old.UID, old.GID
	}
	return m
}

// inode is the path on disk as an inode; nil for a socket, which no layer can hold. old is what
// the Tree has there, or nil; it is returned itself if nothing differs.
func (s *scanner) inode(dir *os.File, name, p string, st *unix.Stat_t, old *tree.Inode) (*tree.Inode, error) {
	m := s.meta(p, st, old)
	if ino := s.linked[st.Ino]; ino != nil && st.Nlink > 1 {
		return ino, nil
	}
	var ino *tree.Inode
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return s.file(dir, name, p, st, m, old)
	case unix.S_IFLNK:
		target, err := readlink(dir, name)
		if err != nil {
			return nil, err
		}
		ino = tree.NewSymlink(m, target)
	case unix.S_IFCHR:
		ino = tree.NewDevice(tree.CharDevice, m, unix.Major(st.Rdev), unix.Minor(st.Rdev))
	case unix.S_IFBLK:
		ino = tree.NewDevice(tree.BlockDevice, m, unix.Major(st.Rdev), unix.Minor(st.Rdev))
	case unix.S_IFIFO:
		ino = tree.NewFifo(m)
	case unix.S_IFSOCK:
		return nil, nil
	default:
		return nil, fmt.Errorf("/%s: unknown type of file %o", p, st.Mode)
	}
	if old != nil && old.SameMeta(ino) && old.MTime == ino.MTime {
		return old, nil
	}
	if ino.Shared = st.Nlink > 1; ino.Shared {
		s.linked[st.Ino] = ino
	}
	return ino, nil
}

func (s *scanner) file(dir *os.File, name, p string, st *unix.Stat_t, m tree.Meta, old *tree.Inode) (*tree.Inode, error) {
	var err error
	if m.Xattrs, err = capability(dir, name); err != nil {
		return nil, err
	}
	c := &rootFile{root: s.root, path: p, size: st.Size, mtime: st.Mtim, overwritten: s.overwrites}
	ino := tree.NewFile(m, st.Size, c)
	ino.Shared = st.Nlink > 1
	same, err := unchanged(old, ino, st.Mtim)
	if err != nil {
		return nil, err
	}
	if same {
		// It is in no layer of this snapshot, so a further name cannot be a link to it there, and is a file of its own.
		return old, nil
	}
	if st.Nlink > 1 {
		s.linked[st.Ino] = ino
	}
	return ino, nil
}

// unchanged reports whether a file that was touched is still what it was. One that was written has another time of
// modification. Where that is the same, as after a chown to the same owner, it may have been set back: only the bytes tell.
func unchanged(old, now *tree.Inode, mtime unix.Timespec) (bool, error) {
	if old == nil || !old.SameMeta(now) {
		return false, nil
	}
	// What was unpacked has whole seconds; what a RUN left, all that its file system has.
	before := unix.Timespec{Sec: old.MTime}
	was, _ := old.Content().(*rootFile)
	is, _ := now.Content().(*rootFile)
	if was != nil && is != nil && was.stillIn(is) {
		before = was.mtime
	} else {
		was = nil
	}
	if before != mtime {
		return false, nil
	}
	if was != nil && was.root == is.root {
		return was.sameBytes(is)
	}
	return tree.SameContent(old, now)
}

// capability reads the one extended attribute that a layer of a RUN holds.
func capability(dir *os.File, name string) (map[string]string, error) {
	const attr = "security.capability"
	buf := make([]byte, 64)
	n, err := unix.Lgetxattr(fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name), attr, buf)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil {
		return nil, &fs.PathError{Op: "getxattr", Path: name, Err: err}
	}
	return map[string]string{attr: string(buf[:n])}, nil
}

func readlink(dir *os.File, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(dir.Fd()), name, buf)
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: err}
	}
	return string(buf[:n]), nil
}

// rootFile is the content of a file in a root on disk.
type rootFile struct {
	size  int64
	mtime unix.Timespec
	// overwritten says that the bytes may be others after the next RUN. What they were is then kept as
	// a digest, made while the layer is written.
	overwritten bool
	digest      atomic.Pointer[[sha256.Size]byte]

	// mu is for Move, which changes where the file is.
	mu    sync.Mutex
	root  *os.File
	path  string
	moved bool
}

// stillIn reports whether the file on disk that now is about may be this one, and not one that was unpacked anew from it.
func (c *rootFile) stillIn(now *rootFile) bool {
	return !c.moved && (c.root == now.root || !now.overwritten)
}

func (c *rootFile) file() (*os.File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return dirfd.Open(c.root, c.path, unix.O_RDONLY)
}

// Open implements tree.Content. A file that is not the one that was found by the snapshot is an error.
func (c *rootFile) Open() (io.ReadCloser, error) {
	f, err := c.file()
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != c.size || st.Mtim != c.mtime {
		return nil, errors.Join(&fs.PathError{Op: "open", Path: "/" + c.path, Err: errors.New("the file changed after the snapshot")}, f.Close())
	}
	if c.overwritten && c.digest.Load() == nil {
		return &digester{File: f, h: sha256.New(), content: c}, nil
	}
	return f, nil
}

// sameBytes compares the bytes that c had with those that now has at the same path. Not to know is to say no.
func (c *rootFile) sameBytes(now *rootFile) (bool, error) {
	if c.size == 0 {
		return true, nil
	}
	was := c.digest.Load()
	if was == nil {
		return false, nil
	}
	r, err := now.Open()
	if err != nil {
		return false, err
	}
	_, err = io.Copy(io.Discard, r)
	if err := errors.Join(err, r.Close()); err != nil {
		return false, err
	}
	is := now.digest.Load()
	return is != nil && *is == *was, nil
}

// digester notes the digest of a file that was read to its end.
type digester struct {
	*os.File
	h       hash.Hash
	n       int64
	content *rootFile
}

// Read implements io.Reader.
func (d *digester) Read(p []byte) (int, error) {
	n, err := d.File.Read(p)
	d.h.Write(p[:n])
	d.n += int64(n)
	return n, err
}

// WriteTo hides that of os.File, which would go past Read.
func (d *digester) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{d})
}

// Close implements io.Closer.
func (d *digester) Close() error {
	if d.n == d.content.size {
		d.content.digest.Store((*[sha256.Size]byte)(d.h.Sum(nil)))
	}
	return d.File.Close()
}

// names lists a directory in byte order.
func names(d *os.File) ([]string, error) {
	list, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	sort.Strings(list)
	return list, nil
}

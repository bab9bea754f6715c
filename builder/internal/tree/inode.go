// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"sort"
	"sync"
)

// Type is what an inode is. There are no sockets: they cannot be in a layer.
type Type uint8

// The types of inodes.
const (
	File Type = iota
	Dir
	Symlink
	CharDevice
	BlockDevice
	Fifo
)

func (t Type) String() string {
	return [...]string{"file", "directory", "symbolic link", "character device", "block device", "fifo"}[t]
}

// Content gives the bytes of a regular file: a file of the build context, a file of a
// root on disk, or a range of a layer. Open may be called any number of times
// and from any goroutine. The reader gives exactly the inode's Size bytes
// or an error that names the file.
type Content interface {
	Open() (io.ReadCloser, error)
}

// Meta is what all types of inodes have.
type Meta struct {
	// Mode holds permission, set-id and sticky bits (07777), nothing of the type.
	Mode uint16
	UID  uint32
	GID  uint32
	// MTime is in whole seconds since 1970, which is all that a layer holds.
	MTime int64
	// Xattrs are those that belong in a layer. Not to be changed once in an inode.
	Xattrs map[string]string
}

// Inode is one file, directory, link or device. Several names with the same
// *Inode are hard links. It must not be changed once it is part of a Tree.
type Inode struct {
	Type Type
	// Shared says that there may be several names for the inode.
	Shared bool
	Meta
	// Size is that of the content; 0 for everything but files.
	Size int64

	body any // Content, *dir, string (link target) or device
}

type device struct{ major, minor uint32 }

// Entry is a name in a directory.
type Entry struct {
	Name  string
	Inode *Inode
}

// dir holds the entries in byte order of names. When load is set they are read on first use.
type dir struct {
	entries []Entry
	load    func() ([]Entry, error)
	once    sync.Once
	err     error
}

// NewFile returns a regular file. content may be nil when size is 0.
func NewFile(m Meta, size int64, content Content) *Inode {
	return &Inode{Type: File, Meta: m, Size: size, body: content}
}

// NewDir returns a directory with the entries given, which need not be in order.
func NewDir(m Meta, entries ...Entry) *Inode {
	sort.Slice(entries, func(i, j int) bool { return entries[i].Name < entries[j].Name })
	return &Inode{Type: Dir, Meta: m, body: &dir{entries: entries}}
}

// NewLazyDir returns a directory whose entries are read when first asked for. load is called
// once at most, its entries need not be in order; its error is returned by every use of the directory.
func NewLazyDir(m Meta, load func() ([]Entry, error)) *Inode {
	return &Inode{Type: Dir, Meta: m, body: &dir{load: load}}
}

// NewSymlink returns a symbolic link.
func NewSymlink(m Meta, target string) *Inode {
	return &Inode{Type: Symlink, Meta: m, body: target}
}

// NewDevice returns a character or block device.
func NewDevice(t Type, m Meta, major, minor uint32) *Inode {
	return &Inode{Type: t, Meta: m, body: device{major, minor}}
}

// NewFifo returns a named pipe.
func NewFifo(m Meta) *Inode { return &Inode{Type: Fifo, Meta: m} }

// With returns a copy of the inode with other metadata: a new identity, so that it is no
// hard link of the old one. A directory's entries are shared.
func (i *Inode) With(m Meta) *Inode {
	c := *i
	c.Meta, c.Shared = m, false
	return &c
}

// Link returns a symbolic link's target.
func (i *Inode) Link() string {
	s, _ := i.body.(string)
	return s
}

// Device returns a device's numbers.
func (i *Inode) Device() (major, minor uint32) {
	d, _ := i.body.(device)
	return d.major, d.minor
}

// Content returns a file's content, nil if it is empty.
func (i *Inode) Content() Content {
	c, _ := i.body.(Content)
	return c
}

// Open opens a file's content for reading.
func (i *Inode) Open() (io.ReadCloser, error) {
	c := i.Content()
	if c == nil {
		return io.NopCloser(eof{}), nil
	}
	return c.Open()
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// Entries returns the names in a directory, in byte order. The slice must not be changed.
func (i *Inode) Entries() ([]Entry, error) {
	d, ok := i.body.(*dir)
	if !ok {
		return nil, ErrNotDir
	}
	if d.load == nil {
		return d.entries, nil
	}
	d.once.Do(func() {
		d.entries, d.err = d.load()
		sort.Slice(d.entries, func(a, b int) bool { return d.entries[a].Name < d.entries[b].Name })
	})
	return d.entries, d.err
}

// Child returns the entry of that name. The error wraps fs.ErrNotExist or ErrNotDir.
func (i *Inode) Child(name string) (*Inode, error) {
	entries, err := i.Entries()
	if err != nil {
		return nil, err
	}
	n := sort.Search(len(entries), func(k int) bool { return entries[k].Name >= name })
	if n < len(entries) && entries[n].Name == name {
		return entries[n].Inode, nil
	}
	return nil, fs.ErrNotExist
}

// SameMeta reports whether two inodes agree in type and in everything a layer's header holds but the
// time: mode, owner, size, link target, device and extended attributes. Contents are not looked at.
func (i *Inode) SameMeta(o *Inode) bool {
	if i.Type != o.Type || i.Mode != o.Mode || i.UID != o.UID || i.GID != o.GID || i.Size != o.Size {
		return false
	}
	if i.Type == Symlink && i.Link() != o.Link() {
		return false
	}
	if (i.Type == CharDevice || i.Type == BlockDevice) && i.body != o.body {
		return false
	}
	return maps.Equal(i.Xattrs, o.Xattrs)
}

// SameContent reads two files to the first difference. It opens nothing if they are one
// inode or differ in size.
func SameContent(a, b *Inode) (bool, error) {
	if a == b || a.Size != b.Size || a.Size == 0 {
		return a.Size == b.Size, nil
	}
	ra, err := a.Open()
	if err != nil {
		return false, err
	}
	defer func() { _ = ra.Close() }()
	rb, err := b.Open()
	if err != nil {
		return false, err
	}
	defer func() { _ = rb.Close() }()
	bufA, bufB := make([]byte, 64<<10), make([]byte, 64<<10)
	for left := a.Size; left > 0; {
		n := min(left, int64(len(bufA)))
		if _, err := io.ReadFull(ra, bufA[:n]); err != nil {
			return false, err
		}
		if _, err := io.ReadFull(rb, bufB[:n]); err != nil {
			return false, err
		}
		if !bytes.Equal(bufA[:n], bufB[:n]) {
			return false, nil
		}
		left -= n
	}
	return true, nil
}

func readContent(i *Inode) ([]byte, error) {
	r, err := i.Open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	b := make([]byte, i.Size)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("read content: %w", err)
	}
	return b, nil
}

// Bytes is Content held in memory, for small files only.
type Bytes []byte

// Open implements Content.
func (b Bytes) Open() (io.ReadCloser, error) {
	return io.NopCloser(&byteReader{b}), nil
}

type byteReader struct{ b []byte }

func (r *byteReader) Read(p []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.b)
	r.b = r.b[n:]
	return n, nil
}

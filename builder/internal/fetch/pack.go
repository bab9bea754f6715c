// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1" //nolint:gosec // git's
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"

	"github.com/kaniko-go/kaniko-go/builder/internal/store"
)

// errPack says that a server sent something that is no pack.
var errPack = errors.New("malformed pack")

// objects are the objects of all repositories of one call, whole and undeltified, one behind the other in a
// nameless file. So nothing has to be held in memory, a chain of deltas costs what its
// objects have in bytes, and a file's content is a range of it. An object's name is
// what its content hashes to, never what a server says.
type objects struct {
	file    *os.File
	w       *bufio.Writer
	end     int64
	max     int64
	most    int
	byHash  map[plumbing.Hash]object
	scratch func() (*os.File, error)
}

type object struct {
	kind      plumbing.ObjectType
	off, size int64
}

func newObjects(s *store.Store, maxBytes int64, most int) (*objects, error) {
	f, err := s.Spool()
	if err != nil {
		return nil, err
	}
	return makeObjects(f, maxBytes, most, s.Spool), nil
}

func makeObjects(f *os.File, maxBytes int64, most int, scratch func() (*os.File, error)) *objects {
	return &objects{
		file: f, w: bufio.NewWriterSize(localWriter{f}, 256<<10),
		max: maxBytes, most: most, byHash: map[plumbing.Hash]object{}, scratch: scratch,
	}
}

func (o *objects) close() error { return o.file.Close() }

// get returns an object that must be there.
func (o *objects) get(h plumbing.Hash) (object, error) {
	obj, ok := o.byHash[h]
	if !ok {
		return object{}, fmt.Errorf("%w: object %s is missing", errPack, h)
	}
	return obj, nil
}

// append writes an object of a size that is known. fill must write exactly that much.
func (o *objects) append(kind plumbing.ObjectType, size int64, fill func(io.Writer) error) (plumbing.Hash, object, error) {
	if size < 0 || size > o.max-o.end {
		return plumbing.ZeroHash, object{}, fmt.Errorf("%w: the repository's objects have more than %d bytes", ErrLimit, o.max)
	}
	obj := object{kind, o.end, size}
	hasher := plumbing.NewHasher(kind, size)
	counted := &countWriter{w: io.MultiWriter(o.w, hasher)}
	err := fill(counted)
	o.end += counted.n
	if err != nil {
		return plumbing.ZeroHash, object{}, err
	}
	if counted.n != size {
		return plumbing.ZeroHash, object{}, fmt.Errorf("%w: an object has %d bytes, not %d", errPack, counted.n, size)
	}
	h := hasher.Sum()
	if old, ok := o.byHash[h]; ok {
		return h, old, nil
	}
	o.byHash[h] = obj
	return h, obj, nil
}

// reader reads an object; what was appended since must have been flushed.
func (o *objects) reader(obj object) *io.SectionReader {
	return io.NewSectionReader(o.file, obj.off, obj.size)
}

// read returns a small object whole.
func (o *objects) read(h plumbing.Hash, kind plumbing.ObjectType, limit int64) ([]byte, error) {
	obj, err := o.get(h)
	if err != nil {
		return nil, err
	}
	if obj.kind != kind {
		return nil, fmt.Errorf("%w: object %s is a %s, not a %s", errPack, h, obj.kind, kind)
	}
	if obj.size > limit {
		return nil, fmt.Errorf("%w: %s %s has %d bytes, more than %d", ErrLimit, kind, h, obj.size, limit)
	}
	b := make([]byte, obj.size)
	if _, err := io.ReadFull(o.reader(obj), b); err != nil {
		return nil, local(err)
	}
	return b, nil
}

// packIndex says where in a pack its objects are.
type packIndex struct {
	checksum plumbing.Hash
	entries  []packEntry
}

type packEntry struct {
	hash   plumbing.Hash
	offset int64
	crc    uint32
}

// unpacker unpacks one pack.
type unpacker struct {
	*objects
	pack     *os.File
	scanner  *packfile.Scanner
	byOffset map[int64]object
	// waiting are the deltas whose base has not come yet, by what they wait for: an offset or a name.
	waiting map[any][]*packfile.ObjectHeader
	// inflated counts the bytes of deltas, which cost time even where they are only skipped.
	inflated int64
	index    packIndex
}

// unpack adds all objects of a pack.
func (o *objects) unpack(ctx context.Context, pack *os.File) (*packIndex, error) {
	if _, err := pack.Seek(0, io.SeekStart); err != nil {
		return nil, local(err)
	}
	u := &unpacker{
		objects: o, pack: pack, scanner: packfile.NewScanner(pack),
		byOffset: map[int64]object{}, waiting: map[any][]*packfile.ObjectHeader{},
	}
	_, count, err := u.scanner.Header()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errPack, err)
	}
	if int64(count) > int64(o.most-len(o.byHash)) {
		return nil, fmt.Errorf("%w: the repository has more than %d objects", ErrLimit, o.most)
	}
	for range count {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := u.next(); err != nil {
			return nil, packError(err)
		}
	}
	if u.index.checksum, err = u.scanner.Checksum(); err != nil && !errors.Is(err, io.EOF) {
		return nil, packError(err)
	}
	if err := u.settle(ctx); err != nil {
		return nil, packError(err)
	}
	if err := o.w.Flush(); err != nil {
		return nil, err
	}
	return &u.index, nil
}

// checkPack compares a pack with the digest at its end. It is for who uses the pack itself: objects are known by their own.
func checkPack(f *os.File, size int64) error {
	h := sha1.New() //nolint:gosec // the format's
	sum := make([]byte, h.Size())
	body := size - int64(len(sum))
	if body < 0 {
		return fmt.Errorf("%w: it is cut off", errPack)
	}
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, body)); err != nil {
		return local(err)
	}
	if _, err := f.ReadAt(sum, body); err != nil {
		return local(err)
	}
	if !bytes.Equal(sum, h.Sum(nil)) {
		return fmt.Errorf("%w: its digest is not that at its end", errPack)
	}
	return nil
}

// packError keeps what is known, and calls the rest a malformed pack.
func packError(err error) error {
	var mine *localError
	if errors.As(err, &mine) || errors.Is(err, ErrLimit) || errors.Is(err, errPack) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%w: %s", errPack, err.Error())
}

// next unpacks the next object of the pack, or puts it aside if it is a delta to something that is still to come.
func (u *unpacker) next() error {
	h, err := u.scanner.NextObjectHeader()
	if err != nil {
		return err
	}
	switch h.Type {
	case plumbing.CommitObject, plumbing.TreeObject, plumbing.BlobObject, plumbing.TagObject:
		return u.whole(h)
	case plumbing.OFSDeltaObject, plumbing.REFDeltaObject:
	default:
		return fmt.Errorf("%w: object of type %d", errPack, h.Type)
	}
	if h.Length < 0 || h.Length > u.max-u.inflated {
		return fmt.Errorf("%w: the repository's deltas have more than %d bytes", ErrLimit, u.max)
	}
	u.inflated += h.Length
	base, key, ok := u.base(h)
	if ok {
		_, err := u.delta(h, base)
		return err
	}
	u.waiting[key] = append(u.waiting[key], h)
	_, _, err = u.scanner.NextObject(io.Discard)
	return err
}

func (u *unpacker) whole(h *packfile.ObjectHeader) error {
	var crc uint32
	hash, obj, err := u.append(h.Type, h.Length, func(w io.Writer) (err error) {
		_, crc, err = u.scanner.NextObject(w)
		return err
	})
	if err != nil {
		return err
	}
	u.done(h, hash, obj, crc)
	return nil
}

func (u *unpacker) done(h *packfile.ObjectHeader, hash plumbing.Hash, obj object, crc uint32) {
	u.byOffset[h.Offset] = obj
	u.index.entries = append(u.index.entries, packEntry{hash, h.Offset, crc})
}

// base finds what a delta is to. key is what to wait for.
func (u *unpacker) base(h *packfile.ObjectHeader) (obj object, key any, ok bool) {
	if h.Type == plumbing.OFSDeltaObject {
		obj, ok = u.byOffset[h.OffsetReference]
		return obj, h.OffsetReference, ok
	}
	obj, ok = u.byHash[h.Reference]
	return obj, h.Reference, ok
}

// settle unpacks the deltas that were put aside.
func (u *unpacker) settle(ctx context.Context) error {
	var ready []*packfile.ObjectHeader
	wake := func(key any) {
		ready = append(ready, u.waiting[key]...)
		delete(u.waiting, key)
	}
	for key, list := range u.waiting {
		if _, _, ok := u.base(list[0]); ok {
			wake(key)
		}
	}
	for len(ready) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		h := ready[len(ready)-1]
		ready = ready[:len(ready)-1]
		if _, err := u.scanner.SeekObjectHeader(h.Offset); err != nil {
			return err
		}
		base, _, _ := u.base(h)
		hash, err := u.delta(h, base)
		if err != nil {
			return err
		}
		wake(h.Offset)
		wake(hash)
	}
	if len(u.waiting) > 0 {
		return fmt.Errorf("%w: it has deltas to objects that are not in it", errPack)
	}
	return nil
}

type countWriter struct {
	w io.Writer
	n int64
}

func (c *countWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

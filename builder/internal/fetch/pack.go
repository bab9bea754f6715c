// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"

	"github.com/go-git/go-git/v6/plumbing"
	formatcfg "github.com/go-git/go-git/v6/plumbing/format/config"
	"github.com/go-git/go-git/v6/plumbing/format/packfile"
	packutil "github.com/go-git/go-git/v6/plumbing/format/packfile/util"
	githash "github.com/go-git/go-git/v6/plumbing/hash"
	gitbinary "github.com/go-git/go-git/v6/utils/binary"
	"github.com/klauspost/compress/zlib"

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
func (o *objects) append(format formatcfg.ObjectFormat, kind plumbing.ObjectType, size int64, fill func(io.Writer) error) (plumbing.Hash, object, error) {
	if size < 0 || size > o.max-o.end {
		return plumbing.ZeroHash, object{}, fmt.Errorf("%w: the repository's objects have more than %d bytes", ErrLimit, o.max)
	}
	obj := object{kind, o.end, size}
	hasher := plumbing.NewHasher(format, kind, size)
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

// newHash is the hash that objects are named by.
func newHash(format formatcfg.ObjectFormat) hash.Hash {
	if format == formatcfg.SHA256 {
		return githash.New(crypto.SHA256)
	}
	return githash.New(crypto.SHA1)
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

// packedObject is an object as it lies in a pack (gitformat-pack(5)).
type packedObject struct {
	kind plumbing.ObjectType
	// offset is where it begins, data where its compressed bytes do.
	offset, data int64
	// size is how many bytes they are when they are not compressed: of the object, or of the delta.
	size int64
	// A delta has as its base what begins at baseOffset, or is named base.
	baseOffset int64
	base       plumbing.Hash
}

// unpacker unpacks one pack. The library has a parser too, but that holds objects in memory, deltas with what
// they are applied to.
type unpacker struct {
	*objects
	pack   *os.File
	size   int64
	format formatcfg.ObjectFormat
	// inflater is used again for each object.
	inflater io.ReadCloser
	byOffset map[int64]object
	// waiting are the deltas whose base has not come yet, by what they wait for: an offset or a name.
	waiting map[any][]*packedObject
	// inflated counts the bytes of deltas, which cost time even where they are only skipped.
	inflated int64
	index    *packIndex
}

// unpack adds all objects of a pack whose names are of a format. It returns what a pack's index lists, if that is asked for.
func (o *objects) unpack(ctx context.Context, pack *os.File, format formatcfg.ObjectFormat, indexed bool) (*packIndex, error) {
	size, err := pack.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, local(err)
	}
	u := &unpacker{
		objects: o, pack: pack, size: size, format: format,
		byOffset: map[int64]object{}, waiting: map[any][]*packedObject{},
	}
	if indexed {
		u.index = &packIndex{}
	}
	if err := u.run(ctx); err != nil {
		return nil, packError(err)
	}
	return u.index, o.w.Flush()
}

func (u *unpacker) run(ctx context.Context) error {
	r := &packReader{section: io.NewSectionReader(u.pack, 0, u.size)}
	r.Reader = bufio.NewReaderSize(r.section, 64<<10)
	var head [12]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	if version := binary.BigEndian.Uint32(head[4:]); string(head[:4]) != "PACK" || version != packfile.VersionSupported {
		return fmt.Errorf("%w: it does not begin as a pack of version %d", errPack, packfile.VersionSupported)
	}
	count := binary.BigEndian.Uint32(head[8:])
	if int64(count) > int64(u.most-len(u.byHash)) {
		return fmt.Errorf("%w: the repository has more than %d objects", ErrLimit, u.most)
	}
	for range count {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := u.next(r); err != nil {
			return err
		}
	}
	if u.index != nil {
		u.index.checksum.ResetBySize(u.format.Size())
		if _, err := u.index.checksum.ReadFrom(r); err != nil {
			return err
		}
	}
	return u.settle(ctx, r)
}

// checkPack compares a pack with the digest at its end. It is for who uses the pack itself: objects are known by their own.
func checkPack(f *os.File, size int64, h hash.Hash) error {
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

// packReader reads a pack and knows where it is.
type packReader struct {
	*bufio.Reader
	section *io.SectionReader
}

// seek goes to an offset.
func (r *packReader) seek(offset int64) {
	_, _ = r.section.Seek(offset, io.SeekStart)
	r.Reset(r.section)
}

func (r *packReader) position() int64 {
	n, _ := r.section.Seek(0, io.SeekCurrent)
	return n - int64(r.Buffered())
}

// header reads what precedes the compressed bytes of the object at which r stands.
func (u *unpacker) header(r *packReader) (*packedObject, error) {
	offset := r.position()
	first, err := r.ReadByte()
	if err != nil {
		return nil, err
	}
	e := &packedObject{kind: packutil.ObjectType(first), offset: offset}
	size, err := packutil.VariableLengthSize(first, r)
	if err != nil {
		return nil, err
	}
	e.size = int64(size)
	switch e.kind {
	case plumbing.CommitObject, plumbing.TreeObject, plumbing.BlobObject, plumbing.TagObject:
	case plumbing.OFSDeltaObject:
		distance, err := gitbinary.ReadVariableWidthInt(r)
		if err != nil {
			return nil, err
		}
		if err := packfile.ValidateOFSDeltaBase(offset, distance); err != nil {
			return nil, err
		}
		e.baseOffset = offset - distance
	case plumbing.REFDeltaObject:
		e.base.ResetBySize(u.format.Size())
		if _, err := e.base.ReadFrom(r); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("%w: object of type %d", errPack, e.kind)
	}
	e.data = r.position()
	if e.size < 0 || e.size > u.max {
		return nil, fmt.Errorf("%w: the repository's objects have more than %d bytes", ErrLimit, u.max)
	}
	return e, nil
}

// inflate writes the bytes at which r stands, which must be exactly so many, and leaves r behind them.
func (u *unpacker) inflate(w io.Writer, r *packReader, size int64) error {
	if u.inflater == nil {
		z, err := zlib.NewReader(r.Reader)
		if err != nil {
			return err
		}
		u.inflater = z
	} else if err := u.inflater.(zlib.Resetter).Reset(r.Reader, nil); err != nil {
		return err
	}
	if n, err := io.CopyN(w, u.inflater, size); errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: an object has %d bytes, not %d", errPack, n, size)
	} else if err != nil {
		return err
	}
	var more [1]byte
	if n, err := io.ReadFull(u.inflater, more[:]); n > 0 {
		return fmt.Errorf("%w: an object has more than %d bytes", errPack, size)
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// next unpacks the next object of the pack, or puts it aside if it is a delta to something that is still to come.
func (u *unpacker) next(r *packReader) error {
	e, err := u.header(r)
	if err != nil {
		return err
	}
	if !e.kind.IsDelta() {
		hash, obj, err := u.append(u.format, e.kind, e.size, func(w io.Writer) error { return u.inflate(w, r, e.size) })
		if err != nil {
			return err
		}
		return u.done(e, r.position(), hash, obj)
	}
	if e.size > u.max-u.inflated {
		return fmt.Errorf("%w: the repository's deltas have more than %d bytes", ErrLimit, u.max)
	}
	u.inflated += e.size
	base, key, ok := u.base(e)
	if ok {
		_, err := u.delta(e, r, base)
		return err
	}
	u.waiting[key] = append(u.waiting[key], e)
	return u.inflate(io.Discard, r, e.size)
}

// done remembers an object that ended in the pack at end.
func (u *unpacker) done(e *packedObject, end int64, hash plumbing.Hash, obj object) error {
	u.byOffset[e.offset] = obj
	if u.index == nil {
		return nil
	}
	sum := crc32.NewIEEE()
	if _, err := io.Copy(sum, io.NewSectionReader(u.pack, e.offset, end-e.offset)); err != nil {
		return local(err)
	}
	u.index.entries = append(u.index.entries, packEntry{hash, e.offset, sum.Sum32()})
	return nil
}

// base finds what a delta is to. key is what to wait for.
func (u *unpacker) base(e *packedObject) (obj object, key any, ok bool) {
	if e.kind == plumbing.OFSDeltaObject {
		obj, ok = u.byOffset[e.baseOffset]
		return obj, e.baseOffset, ok
	}
	obj, ok = u.byHash[e.base]
	return obj, e.base, ok
}

// settle unpacks the deltas that were put aside.
func (u *unpacker) settle(ctx context.Context, r *packReader) error {
	var ready []*packedObject
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
		e := ready[len(ready)-1]
		ready = ready[:len(ready)-1]
		r.seek(e.data)
		base, _, _ := u.base(e)
		hash, err := u.delta(e, r, base)
		if err != nil {
			return err
		}
		wake(e.offset)
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

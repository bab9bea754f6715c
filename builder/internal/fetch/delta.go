// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/go-git/go-git/v6/plumbing"
)

// deltaInMemory is how long a delta may be to be held in memory while it is applied.
const deltaInMemory = 4 << 20

// delta applies a delta, whose bytes come from r.
func (u *unpacker) delta(e *packedObject, r *packReader, base object) (plumbing.Hash, error) {
	var buf bytes.Buffer
	var src io.Reader = &buf
	var sink io.Writer = &buf
	if e.size > deltaInMemory {
		f, err := u.scratch()
		if err != nil {
			return plumbing.ZeroHash, local(err)
		}
		defer func() { _ = f.Close() }()
		sink, src = localWriter{f}, io.NewSectionReader(f, 0, e.size)
	}
	if err := u.inflate(sink, r, e.size); err != nil {
		return plumbing.ZeroHash, err
	}
	end := r.position()
	if err := u.w.Flush(); err != nil {
		return plumbing.ZeroHash, err
	}
	d := bufio.NewReader(src)
	from, err := binary.ReadUvarint(d)
	if err != nil || from != uint64(base.size) {
		return plumbing.ZeroHash, fmt.Errorf("%w: a delta is not for its base", errPack)
	}
	size, err := binary.ReadUvarint(d)
	if err != nil || size > uint64(u.max) {
		return plumbing.ZeroHash, fmt.Errorf("%w: the repository's objects have more than %d bytes", ErrLimit, u.max)
	}
	hash, obj, err := u.append(u.format, base.kind, int64(size), func(w io.Writer) error {
		return patch(w, u.reader(base), d, int64(size))
	})
	if err != nil {
		return plumbing.ZeroHash, err
	}
	return hash, u.done(e, end, hash, obj)
}

// patch carries out the instructions of a delta: copy a range of the base, or insert what follows (gitformat-pack(5)).
func patch(w io.Writer, base *io.SectionReader, r *bufio.Reader, size int64) error {
	buf := make([]byte, 32<<10)
	for {
		op, err := r.ReadByte()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var from io.Reader = r
		n := int64(op)
		switch {
		case op&0x80 != 0:
			off, length, err := copyRange(op, r)
			if err != nil {
				return err
			}
			if off > base.Size() || length > base.Size()-off {
				return fmt.Errorf("%w: a delta copies what its base does not have", errPack)
			}
			from, n = io.NewSectionReader(base, off, length), length
		case op == 0:
			return fmt.Errorf("%w: unknown delta instruction", errPack)
		}
		if size -= n; size < 0 {
			return fmt.Errorf("%w: a delta makes more than it says", errPack)
		}
		if m, err := io.CopyBuffer(w, io.LimitReader(from, n), buf); err != nil {
			return err
		} else if m != n {
			return fmt.Errorf("%w: a delta is cut off", errPack)
		}
	}
}

// copyRange reads the operands of a copy instruction, whose bits say which bytes are there.
func copyRange(op byte, r io.ByteReader) (off, length int64, err error) {
	for i := range 7 {
		if op&(1<<i) == 0 {
			continue
		}
		b, err := r.ReadByte()
		if err != nil {
			return 0, 0, fmt.Errorf("%w: a delta is cut off", errPack)
		}
		if i < 4 {
			off |= int64(b) << (8 * i)
		} else {
			length |= int64(b) << (8 * (i - 4))
		}
	}
	if length == 0 {
		length = 0x10000
	}
	return off, length, nil
}

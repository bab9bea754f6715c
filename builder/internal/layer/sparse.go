// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// tarBlock is what everything in a tar file is padded to.
const tarBlock = 512

// piece is a range of a sparse file that is not a hole: size bytes at offset of the file. In the tar file the pieces lie one
// behind the other.
type piece struct{ offset, size int64 }

// sparseForm says how a file's holes are written down, if it has any.
type sparseForm uint8

const (
	notSparse  sparseForm = iota
	sparseGNU             // in the header and blocks after it
	sparsePAX0            // in PAX records
	sparsePAX1            // at the beginning of the data
)

// formOf decides as archive/tar does.
func formOf(h *tar.Header) sparseForm {
	if h.Typeflag == tar.TypeGNUSparse {
		return sparseGNU
	}
	major, minor := h.PAXRecords["GNU.sparse.major"], h.PAXRecords["GNU.sparse.minor"]
	switch {
	case major == "0" && (minor == "0" || minor == "1"):
		return sparsePAX0
	case major == "1" && minor == "0":
		return sparsePAX1
	case major == "" && minor == "" && h.PAXRecords["GNU.sparse.map"] != "":
		return sparsePAX0
	}
	return notSparse
}

// tape passes a tar file on. It counts, and keeps what is read from a position on: the headers of one entry, which hold
// what archive/tar knows of holes but does not tell.
type tape struct {
	r    io.Reader
	n    int64
	from int64
	kept []byte
}

// maxKept is more than archive/tar reads of the headers of one entry: an extended header and two long names, each of up to
// a mebibyte, and a map of as much.
const maxKept = 5 << 20

func (t *tape) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	if skip := t.from - t.n; skip < int64(n) && len(t.kept) < maxKept {
		t.kept = append(t.kept, p[max(0, skip):n]...)
	}
	t.n += int64(n)
	return n, err
}

// Seek implements io.Seeker for what archive/tar asks for, which is to pass over a content, if the tar file can.
func (t *tape) Seek(offset int64, whence int) (int64, error) {
	s, ok := t.r.(io.Seeker)
	if !ok || whence != io.SeekCurrent || t.n+offset > t.from && offset > 0 {
		return 0, errors.New("a tar file that is read from beginning to end")
	}
	position, err := s.Seek(offset, whence)
	if err == nil {
		t.n += offset
	}
	return position, err
}

// keepFrom forgets what was kept and keeps what comes from a position on.
func (t *tape) keepFrom(position int64) { t.from, t.kept = position, t.kept[:0] }

// header returns the entry's own header, after those that extend it, and what follows it.
func (t *tape) header() (header, rest []byte, err error) {
	b := t.kept[min(len(t.kept), int(-t.from&(tarBlock-1))):]
	for len(b) >= tarBlock {
		header, rest = b[:tarBlock], b[tarBlock:]
		switch header[156] {
		case tar.TypeXHeader, tar.TypeGNULongName, tar.TypeGNULongLink:
			size, err := number(header[124:136])
			if err != nil {
				return nil, nil, err
			}
			b = rest[min(int64(len(rest)), (size+tarBlock-1)&^(tarBlock-1)):]
		default:
			return header, rest, nil
		}
	}
	return nil, nil, errors.New("its header is too long")
}

// number is a field of a header: octal, or binary where the first bit says so.
func number(b []byte) (int64, error) {
	if b[0]&0x80 == 0 {
		return strconv.ParseInt(strings.Trim(string(b), " \x00"), 8, 64)
	}
	wide := append(make([]byte, 16), b...)
	wide[16] &= 0x7f
	wide = wide[len(wide)-16:]
	if binary.BigEndian.Uint64(wide) != 0 || wide[8]&0x80 != 0 {
		return 0, errors.New("a number of more than 63 bits")
	}
	return int64(binary.BigEndian.Uint64(wide[8:])), nil
}

// pieces are the parts of the file with the header h that are not holes, and the sum of their sizes. archive/tar has checked
// that they are in order and inside the file.
func (t *tape) pieces(h *tar.Header, form sparseForm) (pieces []piece, stored int64, err error) {
	header, rest, err := t.header()
	if err != nil {
		return nil, 0, err
	}
	stored, err = number(header[124:136])
	if size, ok := h.PAXRecords["size"]; ok && err == nil {
		stored, err = strconv.ParseInt(size, 10, 64)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("size: %w", err)
	}
	var numbers []int64
	switch form {
	case sparseGNU:
		numbers, err = gnuMap(header, rest)
	case sparsePAX0:
		numbers, err = decimals(strings.Split(h.PAXRecords["GNU.sparse.map"], ","))
	default:
		// The map's blocks are part of the data, and the last thing that was read.
		var blocks []byte
		numbers, blocks, err = paxMap(rest)
		stored -= int64(len(blocks))
	}
	if err != nil {
		return nil, 0, fmt.Errorf("map of a sparse file: %w", err)
	}
	left := stored
	for ; len(numbers) >= 2; numbers = numbers[2:] {
		if numbers[1] == 0 {
			continue
		}
		pieces = append(pieces, piece{numbers[0], numbers[1]})
		if left -= numbers[1]; left < 0 {
			break
		}
	}
	if left != 0 {
		return nil, 0, errors.New("a sparse file that has not the data that its map says")
	}
	return pieces, stored, nil
}

// gnuMap reads four pieces of the header and 21 of each block that follows.
func gnuMap(header, rest []byte) ([]int64, error) {
	var numbers []int64
	block, count, more := header[386:], 4, header[482] != 0
	for {
		for i := 0; i < count && block[24*i] != 0; i++ {
			offset, err := number(block[24*i : 24*i+12])
			if err != nil {
				return nil, err
			}
			size, err := number(block[24*i+12 : 24*i+24])
			if err != nil {
				return nil, err
			}
			numbers = append(numbers, offset, size)
		}
		if !more {
			return numbers, nil
		}
		if len(rest) < tarBlock {
			return nil, io.ErrUnexpectedEOF
		}
		block, rest, count = rest[:tarBlock], rest[tarBlock:], 21
		more = block[504] != 0
	}
}

// paxMap reads lines: how many pieces there are, and of each the offset and the size.
func paxMap(b []byte) (numbers []int64, blocks []byte, err error) {
	line, _, _ := bytes.Cut(b, []byte{'\n'})
	count, err := strconv.Atoi(string(line))
	if err != nil {
		return nil, nil, err
	}
	end := 0
	for range 2*count + 1 {
		i := bytes.IndexByte(b[end:], '\n')
		if i < 0 {
			return nil, nil, io.ErrUnexpectedEOF
		}
		end += i + 1
	}
	lines := strings.Split(string(b[len(line)+1:max(end, len(line)+1)]), "\n")
	numbers, err = decimals(lines[:2*count])
	return numbers, b[:min(len(b), (end+tarBlock-1)&^(tarBlock-1))], err
}

func decimals(text []string) ([]int64, error) {
	numbers := make([]int64, 0, len(text))
	for _, s := range text {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return nil, err
		}
		numbers = append(numbers, n)
	}
	return numbers, nil
}

// sparse is the content of a file with holes. stored holds its pieces, one behind the other; nil if there are none.
type sparse struct {
	stored tree.Content
	size   int64
	pieces []piece
}

func newSparse(place func(off, size int64) tree.Content, at, size int64, pieces []piece) *sparse {
	c := &sparse{size: size, pieces: pieces}
	stored := int64(0)
	for _, p := range pieces {
		stored += p.size
	}
	if stored > 0 {
		c.stored = place(at, stored)
	}
	return c
}

// Open implements tree.Content: holes are read as zeros.
func (c *sparse) Open() (io.ReadCloser, error) {
	r := &holeReader{pieces: c.pieces, size: c.size}
	if c.stored == nil {
		return io.NopCloser(r), nil
	}
	stored, err := c.stored.Open()
	if err != nil {
		return nil, err
	}
	r.stored = stored
	return struct {
		io.Reader
		io.Closer
	}{r, stored}, nil
}

// Pieces calls fn for each range that is not a hole, in order.
func (c *sparse) Pieces(fn func(offset, size int64) error) error {
	for _, p := range c.pieces {
		if err := fn(p.offset, p.size); err != nil {
			return err
		}
	}
	return nil
}

// Stored is the content of all the ranges that are not holes, one behind the other; nil if there are none.
func (c *sparse) Stored() tree.Content { return c.stored }

// holeReader reads pieces and the holes between them.
type holeReader struct {
	stored io.Reader
	pieces []piece
	// at is the position in the file; pieces that lie before it are gone.
	at, size int64
}

func (r *holeReader) Read(b []byte) (int, error) {
	for len(r.pieces) > 0 && r.pieces[0].offset+r.pieces[0].size <= r.at {
		r.pieces = r.pieces[1:]
	}
	if r.at >= r.size {
		return 0, io.EOF
	}
	next := r.size
	if len(r.pieces) > 0 {
		p := r.pieces[0]
		if in := r.at - p.offset; in >= 0 {
			n, err := r.stored.Read(b[:min(int64(len(b)), p.size-in)])
			r.at += int64(n)
			if errors.Is(err, io.EOF) {
				// The last piece may end here; one that ends too early is found when it is read again.
				err = nil
				if n == 0 {
					err = io.ErrUnexpectedEOF
				}
			}
			return n, err
		}
		next = p.offset
	}
	n := min(int64(len(b)), next-r.at)
	clear(b[:n])
	r.at += n
	return int(n), nil
}

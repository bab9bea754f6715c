// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"

	"github.com/kaniko-go/kaniko-go/builder/internal/store"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// IndexMediaType is that of a layer index as a blob: the layer's tar file with the contents of its files left out. After
// zstd it is a sequence of pieces, each two unsigned varints and bytes: how many bytes
// of the tar file are left out, how many follow. Whoever reads a Tree out of it
// does so with the code that reads layers.
const IndexMediaType types.MediaType = "application/vnd.kaniko-go.layer-index.v1+zstd"

const (
	// pieceSize is how much of a tar file is gathered before it is written.
	pieceSize = 64 << 10
	// maxIndexBytes bounds what an index keeps and what is read of one: five million entries have about that.
	maxIndexBytes = 8 << 30
)

// recorder makes the layer index of a tar file that is written to it. Errors are kept for finish: a layer does
// not fail for its index.
type recorder struct {
	blob *store.Blob
	sum  *meter
	z    *zstd.Encoder
	buf  []byte
	// pos is how much of the tar file went by; up to until it is left out; gap is what was left out before buf.
	pos, until, gap int64
	err             error
}

func newRecorder(s *store.Store) *recorder {
	r := &recorder{}
	if r.blob, r.err = s.Create(); r.err != nil {
		return r
	}
	r.sum = newMeter(r.blob)
	r.z, r.err = zstd.NewWriter(r.sum, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true))
	return r
}

// elide leaves out the next n bytes.
func (r *recorder) elide(n int64) { r.until = r.pos + n }

// follow makes a reader of the same tar file say where contents are.
func (r *recorder) follow(rd *reader) {
	place := rd.place
	rd.place = func(off, size int64) tree.Content {
		r.elide(size)
		return place(off, size)
	}
}

// Write implements io.Writer and never fails.
func (r *recorder) Write(p []byte) (int, error) {
	n := len(p)
	if r.err != nil {
		return n, nil //nolint:nilerr // said above
	}
	if r.pos < r.until {
		skip := min(int64(len(p)), r.until-r.pos)
		if len(r.buf) > 0 {
			r.flush()
		}
		r.gap += skip
		r.pos += skip
		p = p[skip:]
	}
	r.buf = append(r.buf, p...)
	r.pos += int64(len(p))
	if len(r.buf) >= pieceSize {
		r.flush()
	}
	return n, nil
}

func (r *recorder) flush() {
	head := binary.AppendUvarint(binary.AppendUvarint(nil, uint64(r.gap)), uint64(len(r.buf)))
	_, err := r.z.Write(append(head, r.buf...))
	r.err = errors.Join(r.err, err)
	r.gap, r.buf = 0, r.buf[:0]
}

// finish puts the index into the store and returns its descriptor.
func (r *recorder) finish() (*v1.Descriptor, error) {
	if r.err == nil && (r.gap > 0 || len(r.buf) > 0) {
		r.flush()
	}
	if r.z != nil {
		r.err = errors.Join(r.err, r.z.Close())
	}
	if r.err != nil {
		return nil, fmt.Errorf("layer index: %w", r.err)
	}
	d := &v1.Descriptor{MediaType: IndexMediaType, Digest: r.sum.sum(), Size: r.sum.n}
	return d, r.blob.Commit(d.Digest)
}

// abort removes what was written. It does nothing after finish has succeeded.
func (r *recorder) abort() {
	if r.blob != nil {
		r.blob.Abort()
	}
}

// decodeIndex reads an index that a recorder made; place gives the contents that were left out.
func decodeIndex(r io.Reader, place func(off, size int64) tree.Content) (*Index, error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(32<<20))
	if err != nil {
		return nil, fmt.Errorf("layer index: %w", err)
	}
	defer z.Close()
	h := &hollow{r: bufio.NewReaderSize(io.LimitReader(z, maxIndexBytes), pieceSize)}
	idx, err := newReader(false, place).index(h)
	if err != nil {
		return nil, fmt.Errorf("layer index: %w", err)
	}
	return idx, nil
}

// hollow is the tar file that a layer index stands for, with zeros for what was left out. It can be sought in
// forwards, from where it is, which is how a tar reader passes over a content.
type hollow struct {
	r         *bufio.Reader
	pos       int64
	gap, data int64
}

// next begins the next piece.
func (h *hollow) next() error {
	for h.gap == 0 && h.data == 0 {
		gap, err := binary.ReadUvarint(h.r)
		if err != nil {
			return err
		}
		data, err := binary.ReadUvarint(h.r)
		if err != nil {
			return io.ErrUnexpectedEOF
		}
		if gap > 1<<62 || data > 1<<62 {
			return errors.New("a piece of impossible size")
		}
		h.gap, h.data = int64(gap), int64(data)
	}
	return nil
}

// Read implements io.Reader.
func (h *hollow) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := h.next(); err != nil {
		return 0, err
	}
	if h.gap > 0 {
		n := int(min(int64(len(p)), h.gap))
		clear(p[:n])
		h.gap -= int64(n)
		h.pos += int64(n)
		return n, nil
	}
	n, err := h.r.Read(p[:min(int64(len(p)), h.data)])
	h.data -= int64(n)
	h.pos += int64(n)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// Seek implements io.Seeker, forwards from the current place only.
func (h *hollow) Seek(offset int64, whence int) (int64, error) {
	if whence != io.SeekCurrent || offset < 0 {
		return 0, errors.New("an index is read forwards")
	}
	for offset > 0 {
		if err := h.next(); err != nil {
			return h.pos, err
		}
		if h.gap > 0 {
			n := min(offset, h.gap)
			h.gap, h.pos, offset = h.gap-n, h.pos+n, offset-n
			continue
		}
		n, err := h.r.Discard(int(min(offset, h.data, 1<<20)))
		h.data, h.pos, offset = h.data-int64(n), h.pos+int64(n), offset-int64(n)
		if err != nil {
			return h.pos, io.ErrUnexpectedEOF
		}
	}
	return h.pos, nil
}

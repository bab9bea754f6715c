// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kaniko-go/kaniko-go/builder/internal/store"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// Ingested is a verified layer of a base image: the blob in the store and what is in it.
type Ingested struct {
	*Layer
	Index *Index
	spool *spoolFile
}

// Ingest downloads l into the store. Size, digest and diffID are checked to the true end before
// anything is returned; a mismatch wraps ErrIntegrity. With spool the uncompressed bytes are
// kept in the same pass, for a layer that is known to be unpacked or read out of order; without, they
// are made from the blob if a content is ever opened.
func Ingest(ctx context.Context, s *store.Store, l v1.Layer, spool bool) (*Ingested, error) {
	out := &Layer{}
	var err error
	if out.digest, err = l.Digest(); err != nil {
		return nil, err
	}
	if out.diffID, err = l.DiffID(); err != nil {
		return nil, err
	}
	if out.size, err = l.Size(); err != nil {
		return nil, err
	}
	if out.mediaType, err = l.MediaType(); err != nil {
		return nil, err
	}
	out.path = s.BlobPath(out.digest)
	in := ingester{store: s, layer: out, spool: &spoolFile{store: s, layer: out}}
	idx, err := in.run(ctx, l, spool)
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", out.digest, err)
	}
	return &Ingested{Layer: out, Index: idx, spool: in.spool}, nil
}

type ingester struct {
	store *store.Store
	layer *Layer
	spool *spoolFile
}

func (in *ingester) run(ctx context.Context, l v1.Layer, keep bool) (*Index, error) {
	blob, err := in.store.Create()
	if err != nil {
		return nil, err
	}
	defer blob.Abort()
	r, err := l.Compressed()
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()

	compressed := newMeter(blob)
	src := io.TeeReader(&limitReader{r: Until(ctx, r), left: in.layer.size}, compressed)
	idx, unwrapErr := in.unwrap(src, keep)
	// A compressor may end, or fail, before the blob does; the rest belongs to the digest, and
	// wrong bytes explain whatever the decompressor had to say of them.
	if _, err := io.Copy(io.Discard, src); err != nil {
		return nil, err
	}
	if compressed.n != in.layer.size {
		return nil, fmt.Errorf("%w: %d bytes, not %d", ErrIntegrity, compressed.n, in.layer.size)
	}
	if got := compressed.sum(); got != in.layer.digest {
		return nil, fmt.Errorf("%w: the bytes have digest %s", ErrIntegrity, got)
	}
	if unwrapErr != nil {
		return nil, unwrapErr
	}
	return idx, blob.Commit(in.layer.digest)
}

// unwrap decompresses src, digests and perhaps spools what comes out and reads the index from it.
// The decompressor runs ahead in a goroutine of its own.
func (in *ingester) unwrap(src io.Reader, keep bool) (*Index, error) {
	pr, pw := io.Pipe()
	inflated := make(chan error, 1)
	go func() {
		z, err := decompress(src)
		if err == nil {
			buf, _ := buffers.Get().(*[]byte)
			_, err = io.CopyBuffer(struct{ io.Writer }{pw}, newExpansion(z, in.layer.size), *buf)
			buffers.Put(buf)
			err = errors.Join(err, z.Close())
		}
		_ = pw.CloseWithError(err)
		inflated <- err
	}()
	idx, sum, err := in.read(pr, keep)
	_ = pr.CloseWithError(err)
	// The goroutine reads src, which the caller goes on to use: wait for it.
	if zerr := <-inflated; zerr != nil && err == nil {
		err = zerr
	}
	if err != nil {
		return nil, err
	}
	if sum != in.layer.diffID {
		return nil, fmt.Errorf("%w: uncompressed it has digest %s, the configuration says %s", ErrIntegrity, sum, in.layer.diffID)
	}
	return idx, nil
}

func (in *ingester) read(r io.Reader, keep bool) (*Index, v1.Hash, error) {
	h := sha256.New()
	w := io.Writer(h)
	var f *os.File
	if keep {
		var err error
		if f, err = in.store.Spool(); err != nil {
			return nil, v1.Hash{}, err
		}
		w = io.MultiWriter(h, f)
	}
	var rec *recorder
	if in.store.Indexes {
		rec = newRecorder(in.store)
		defer rec.abort()
		w = io.MultiWriter(w, rec)
	}
	all := io.TeeReader(r, w)
	rd := newReader(false, in.spool.place)
	if rec != nil {
		rec.follow(rd)
	}
	idx, err := rd.index(all)
	if err == nil {
		// What follows the tar's end belongs to the diffID.
		_, err = io.Copy(io.Discard, all)
	}
	if err == nil && rec != nil {
		in.layer.index, err = rec.finish()
	}
	if err != nil {
		if keep {
			err = errors.Join(err, f.Close())
		}
		return nil, v1.Hash{}, err
	}
	if keep {
		in.spool.keep(f)
	}
	return idx, v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.Sum(nil))}, nil
}

// Until reads from r until ctx ends, so that a build that is told to stop does not read a large file to its end first.
func Until(ctx context.Context, r io.Reader) io.Reader { return &untilReader{ctx, r} }

type untilReader struct {
	ctx context.Context //nolint:containedctx // the reader lives no longer than the call that made it
	r   io.Reader
}

func (u *untilReader) Read(p []byte) (int, error) {
	if u.ctx.Err() != nil {
		return 0, context.Cause(u.ctx)
	}
	return u.r.Read(p)
}

// limitReader stops a source that gives more than its descriptor says.
type limitReader struct {
	r    io.Reader
	left int64
}

func (l *limitReader) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return 0, fmt.Errorf("%w: more bytes than its size", ErrIntegrity)
	}
	return n, err
}

// A compressed file may become so many times larger, or so large in any case.
const (
	maxRatio   = 1000
	ratioFloor = 1 << 30
)

// expansion stops what a compressed file of some size expands to.
type expansion struct {
	r    io.Reader
	size int64
	left int64
}

func newExpansion(r io.Reader, size int64) *expansion {
	return &expansion{r: r, size: size, left: max(ratioFloor, min(size, 1<<50)*maxRatio)}
}

func (e *expansion) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if e.left -= int64(n); e.left < 0 {
		return 0, fmt.Errorf("%d compressed bytes become more than %d times as many, and more than the %d bytes that are always allowed", e.size, maxRatio, ratioFloor)
	}
	return n, err
}

// spoolFile is the uncompressed layer on disk, made at the latest when it is first read.
type spoolFile struct {
	store *store.Store
	layer *Layer
	mu    sync.Mutex
	file  *os.File
}

func (s *spoolFile) open() (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file != nil {
		return s.file, nil
	}
	r, err := s.layer.Uncompressed()
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	f, err := s.store.Spool()
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(f, r); err != nil {
		return nil, errors.Join(fmt.Errorf("spool layer %s: %w", s.layer.digest, err), f.Close())
	}
	s.file = f
	return f, nil
}

// keep takes a file that was spooled already.
func (s *spoolFile) keep(f *os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.file = f
}

// place is the content of a range of the spool.
func (s *spoolFile) place(off, size int64) tree.Content { return &spooled{s, off, size} }

// spooled is a range of a spool. It implements tree.Content and FileRange.
type spooled struct {
	spool     *spoolFile
	off, size int64
}

// Open implements tree.Content.
func (c *spooled) Open() (io.ReadCloser, error) {
	f, err := c.spool.open()
	if err != nil {
		return nil, err
	}
	return io.NopCloser(io.NewSectionReader(f, c.off, c.size)), nil
}

// FileRange gives the file and the place in it, so that the kernel can copy the bytes. The file is not the caller's to close.
func (c *spooled) FileRange() (f *os.File, off int64, err error) {
	f, err = c.spool.open()
	return f, c.off, err
}

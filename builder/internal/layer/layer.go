// SPDX-License-Identifier: Apache-2.0

// Package layer turns changes into layers and layers into changes.
//
// Write streams changes through tar, digest and compressor into a blob of the store: the
// same changes give the same bytes, whatever the machine, the isolation or the
// number of processors. Ingest downloads a layer of a base image, verifies size, digest and diffID
// to the true end, and only then hands out its Index, from which Trees are made.
// Content that must be read out of order is spooled uncompressed, once. A
// layer's bytes are never held in memory.
package layer

import (
	"errors"
	"fmt"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// ErrIntegrity is wrapped by errors that say that bytes are not what their descriptor promised.
var ErrIntegrity = errors.New("content does not match its descriptor")

// Layer is a finished layer: its descriptor, and the blob it lies in. It implements v1.Layer.
type Layer struct {
	digest, diffID v1.Hash
	size           int64
	mediaType      types.MediaType
	path           string
	index          *v1.Descriptor
}

// IndexBlob is the descriptor of the layer index, which is in the store; nil if the store keeps none or there can be none.
func (l *Layer) IndexBlob() *v1.Descriptor { return l.index }

// Digest implements v1.Layer.
func (l *Layer) Digest() (v1.Hash, error) { return l.digest, nil }

// DiffID implements v1.Layer.
func (l *Layer) DiffID() (v1.Hash, error) { return l.diffID, nil }

// Size implements v1.Layer: bytes of the compressed blob.
func (l *Layer) Size() (int64, error) { return l.size, nil }

// MediaType implements v1.Layer.
func (l *Layer) MediaType() (types.MediaType, error) { return l.mediaType, nil }

// Compressed implements v1.Layer.
func (l *Layer) Compressed() (io.ReadCloser, error) { return os.Open(l.path) }

// Uncompressed implements v1.Layer.
func (l *Layer) Uncompressed() (io.ReadCloser, error) {
	f, err := os.Open(l.path)
	if err != nil {
		return nil, err
	}
	r, err := decompress(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &readClosers{Reader: r, closers: []io.Closer{r, f}}, nil
}

type readClosers struct {
	io.Reader
	closers []io.Closer
}

func (r *readClosers) Close() error {
	var errs []error
	for _, c := range r.closers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// decompress finds out by the first bytes how a layer is compressed: gzip (any number of
// members), zstd (any number of frames) or not at all.
func decompress(r io.Reader) (io.ReadCloser, error) {
	head := make([]byte, 4)
	n, err := io.ReadFull(r, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	all := io.MultiReader(&prefix{head[:n]}, r)
	switch {
	case n >= 2 && head[0] == 0x1f && head[1] == 0x8b:
		z, err := gzip.NewReader(all)
		if err != nil {
			return nil, fmt.Errorf("gzip: %w", err)
		}
		return z, nil
	case n == 4 && (head[0] == 0x28 || head[0]&0xf0 == 0x50) && (head[1] == 0xb5 || head[1] == 0x2a):
		z, err := zstd.NewReader(all, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, fmt.Errorf("zstd: %w", err)
		}
		return z.IOReadCloser(), nil
	}
	return io.NopCloser(all), nil
}

type prefix struct{ b []byte }

func (p *prefix) Read(b []byte) (int, error) {
	if len(p.b) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.b)
	p.b = p.b[n:]
	return n, nil
}

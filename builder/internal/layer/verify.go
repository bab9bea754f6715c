// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"context"
	"fmt"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Verify reads a layer to its true end and checks size, digest and diffID. A mismatch wraps ErrIntegrity.
func Verify(ctx context.Context, l v1.Layer, d v1.Descriptor, diffID v1.Hash) error {
	r, err := l.Compressed()
	if err != nil {
		return fmt.Errorf("layer %s: %w", d.Digest, err)
	}
	defer func() { _ = r.Close() }()
	compressed := newMeter(io.Discard)
	src := io.TeeReader(&limitReader{r: Until(ctx, r), left: d.Size}, compressed)
	inflated := newMeter(io.Discard)
	z, unwrapErr := decompress(src)
	if unwrapErr == nil {
		buf, _ := buffers.Get().(*[]byte)
		_, unwrapErr = io.CopyBuffer(struct{ io.Writer }{inflated}, struct{ io.Reader }{z}, *buf)
		buffers.Put(buf)
		_ = z.Close()
	}
	if _, err := io.Copy(io.Discard, src); err != nil {
		return fmt.Errorf("layer %s: %w", d.Digest, err)
	}
	switch {
	case compressed.n != d.Size || compressed.sum() != d.Digest:
		return fmt.Errorf("layer %s: %w: %d bytes with digest %s", d.Digest, ErrIntegrity, compressed.n, compressed.sum())
	case unwrapErr != nil:
		return fmt.Errorf("layer %s: %w: %w", d.Digest, ErrIntegrity, unwrapErr)
	case inflated.sum() != diffID:
		return fmt.Errorf("layer %s: %w: uncompressed it has digest %s, the configuration says %s", d.Digest, ErrIntegrity, inflated.sum(), diffID)
	}
	return nil
}

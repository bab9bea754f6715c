// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"bytes"
	"errors"
	"io"

	"github.com/kaniko-go/kaniko-go/builder/internal/store"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// keepSparse writes a file whose content is not in one piece into a spool of its own, with holes where there are only zeros.
func keepSparse(s *store.Store, r io.Reader, size int64) (tree.Content, error) {
	f, err := s.Spool()
	if err != nil {
		return nil, err
	}
	const block = 64 << 10
	buf, zeros := make([]byte, block), make([]byte, block)
	for off := int64(0); off < size; {
		n := min(size-off, block)
		if _, err := io.ReadFull(r, buf[:n]); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if !bytes.Equal(buf[:n], zeros[:n]) {
			if _, err := f.WriteAt(buf[:n], off); err != nil {
				return nil, errors.Join(err, f.Close())
			}
		}
		off += n
	}
	if err := f.Truncate(size); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	spool := &spoolFile{store: s}
	spool.keep(f)
	return &spooled{spool, 0, size}, nil
}

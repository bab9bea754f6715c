// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/therootcompany/xz"

	"github.com/kaniko-go/kaniko-go/builder/internal/store"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// ReadArchive returns what is in a file that ADD unpacks: a tar file, perhaps compressed with gzip, bzip2, xz or zstd. It
// is told by its content alone; for anything else the Tree is nil. The uncompressed bytes are spooled.
func ReadArchive(s *store.Store, ino *tree.Inode) (*tree.Tree, error) {
	ok, err := isArchive(ino)
	if err != nil || !ok {
		return nil, err
	}
	r, closeAll, err := openArchive(ino)
	if err != nil {
		return nil, err
	}
	defer closeAll()
	f, err := s.Spool()
	if err != nil {
		return nil, err
	}
	spool := &spoolFile{store: s}
	spool.keep(f)
	idx, err := newReader(true, spool.place).index(io.TeeReader(newExpansion(r, ino.Size), f))
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return idx.apply(tree.Empty(), tree.Unset)
}

// isArchive reports whether the first header of a tar file can be read.
func isArchive(ino *tree.Inode) (bool, error) {
	if ino.Size == 0 {
		return false, nil
	}
	r, closeAll, err := openArchive(ino)
	if err != nil {
		// Something that only begins like a compressed file; but one that cannot be opened at all is an error.
		var pe *os.PathError
		if errors.As(err, &pe) {
			return false, err
		}
		return false, nil
	}
	defer closeAll()
	_, err = tar.NewReader(r).Next()
	return err == nil, nil
}

// openArchive opens a file and what decompresses it.
func openArchive(ino *tree.Inode) (io.Reader, func(), error) {
	f, err := ino.Open()
	if err != nil {
		return nil, nil, err
	}
	closeFile := func() { _ = f.Close() }
	z, err := Decompress(f)
	if err != nil {
		closeFile()
		return nil, nil, err
	}
	return z, func() { _ = z.Close(); closeFile() }, nil
}

// maxWindow is how far back zstd and xz may refer, which is the memory that they take. xz -9 refers to half of it.
const maxWindow = 128 << 20

// Decompress finds out by the first bytes how a stream is compressed: with gzip, bzip2, xz or zstd, or not at all. What it
// returns reads r to the end of the compressed data and perhaps beyond.
func Decompress(r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	head, err := b.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte("BZh")):
		return io.NopCloser(bzip2.NewReader(b)), nil
	case bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")):
		z, err := xz.NewReader(b, maxWindow)
		if err != nil {
			return nil, explainXZ(err)
		}
		return io.NopCloser(xzReader{z}), nil
	}
	return decompress(b)
}

// xzReader explains what its reader fails of.
type xzReader struct{ r *xz.Reader }

// Read implements io.Reader.
func (x xzReader) Read(p []byte) (int, error) {
	n, err := x.r.Read(p)
	return n, explainXZ(err)
}

func explainXZ(err error) error {
	if errors.Is(err, xz.ErrMemlimit) {
		return fmt.Errorf("xz: a dictionary of more than %d MiB; that of xz -9 has half of it", maxWindow>>20)
	}
	return err
}

// SPDX-License-Identifier: Apache-2.0

package unpack

import (
	"errors"
	"io"
	"os"

	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// holed is a content with ranges that are only zeros: the others, in order, and what is in them one behind the other.
type holed interface {
	Pieces(fn func(offset, size int64) error) error
	Stored() tree.Content
}

// fillHoles writes what is not a hole and leaves the rest to the file system, so that the disk holds no more than the layer.
func fillHoles(f *os.File, size int64, c holed) error {
	if err := f.Truncate(size); err != nil {
		return err
	}
	stored := c.Stored()
	if stored == nil {
		return nil
	}
	if r, ok := stored.(ranged); ok {
		src, at, err := r.FileRange()
		if err != nil {
			return err
		}
		return c.Pieces(func(offset, n int64) error {
			if _, err := f.Seek(offset, io.SeekStart); err != nil {
				return err
			}
			err := copyRange(f, src, at, n)
			at += n
			return err
		})
	}
	r, err := stored.Open()
	if err != nil {
		return err
	}
	err = c.Pieces(func(offset, n int64) error {
		if _, err := f.Seek(offset, io.SeekStart); err != nil {
			return err
		}
		_, err := io.CopyN(f, r, n)
		return err
	})
	return errors.Join(err, r.Close())
}

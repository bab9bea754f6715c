// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"archive/tar"
	"io"

	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// TarOptions says what becomes of the parts of a tar file that is no layer.
type TarOptions struct {
	// Check is shown every header first. It may change it; an error refuses the file.
	Check func(*tar.Header) error
	// Place gives the Content for a range of the tar file, when no byte of it has been read yet. The header that was checked last
	// is that of the file which has the Content, or a part of it.
	Place func(off, size int64) tree.Content
}

// ReadTar reads a tar file, which is not compressed, to its end mark and returns what is in it. Whiteouts are files like
// any other; names that lead out lead to the root; directories without a header have the time 0. The limits are those of layers. Contents
// are passed over, by Seek where r can.
func ReadTar(r io.Reader, o TarOptions) (*tree.Tree, error) {
	rd := newReader(true, o.Place)
	rd.check = o.Check
	idx, err := rd.index(r)
	if err != nil {
		return nil, err
	}
	return idx.Apply(tree.Empty())
}

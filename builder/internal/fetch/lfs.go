// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"fmt"
	"io"
)

// maxPointer is the size that a file of Git LFS may have, which stands for a larger one that is not in the repository.
const maxPointer = 1024

// smallFile is a file that may be such a pointer. One that nobody reads does no harm.
type smallFile struct {
	*section
	path string
}

// Open implements tree.Content.
func (f *smallFile) Open() (io.ReadCloser, error) {
	head := make([]byte, len(lfsVersion))
	if n, _ := f.file.ReadAt(head, f.off); n == len(head) && f.size > int64(n) && bytes.Equal(head, []byte(lfsVersion)) {
		return nil, fmt.Errorf("%s: the repository has only a pointer of Git LFS to it, and Git LFS is not supported: add the file itself, or fetch the context before the build", escape(f.path))
	}
	return f.section.Open()
}

// lfsVersion is how every pointer begins.
const lfsVersion = "version https://git-lfs.github.com/spec/v1\n"

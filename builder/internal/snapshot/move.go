// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"fmt"
	"os"
	"path"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/kaniko-go/kaniko-go/builder/internal/dirfd"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// Move takes the files that contents of t refer to out of the root, into an empty directory of the same file system,
// which stays open for as long as they are read. The contents know where they are from then on; readers at work are not disturbed. What
// of a file's names is not in t stays in the root. No RUN may be alive.
func Move(root *os.File, t *tree.Tree, into *os.File) error {
	n := 0
	return t.Walk(func(_ string, ino *tree.Inode) error {
		c, ok := ino.Content().(*rootFile)
		if !ok || c.root != root {
			return nil
		}
		if err := c.move(into, strconv.Itoa(n)); err != nil {
			return fmt.Errorf("putting /%s aside: %w", c.path, err)
		}
		n++
		return nil
	})
}

func (c *rootFile) move(into *os.File, name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	dir := path.Dir(c.path)
	if dir == "." {
		dir = ""
	}
	d, err := dirfd.Open(c.root, dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	if err := unix.Renameat(int(d.Fd()), path.Base(c.path), int(into.Fd()), name); err != nil {
		return err
	}
	c.root, c.path, c.moved = into, name, true
	return nil
}

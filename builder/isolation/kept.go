// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
	"github.com/kaniko-go/kaniko-go/builder/internal/unpack"
)

// ErrNotKept says that something of an image could not be applied here: others could apply it, so it is not kept for them.
var ErrNotKept = errors.New("owners or devices of the image cannot be applied here")

// Kept has unpacked images that outlive the build. They are lower directories of overlays, which nobody writes to.
type Kept struct {
	// Dir is where they are.
	Dir string
	// Get gives the directory that holds a Tree, which make makes if it is missing, and which stays until the build ends; "" if there
	// can be none.
	Get func(ctx context.Context, t *tree.Tree, make func(path string) error) string
}

// keptBase is the directory of t that outlives the build, nil for none.
func (n *Namespaces) keptBase(ctx context.Context, t *tree.Tree) (*os.File, error) {
	if n.kept == nil || !n.applicable(t) {
		return nil, nil //nolint:nilnil // said above
	}
	dir := n.kept.Get(ctx, t, func(path string) error { return n.unpackKept(ctx, t, path) })
	if dir == "" {
		return nil, ctx.Err()
	}
	return os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
}

// unpackKept makes a directory that has everything of t.
func (n *Namespaces) unpackKept(ctx context.Context, t *tree.Tree, path string) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	skipped, err := unpack.Apply(ctx, f, tree.Empty(), t, unpack.Lower)
	root := t.Root()
	if err == nil && len(skipped) > 0 {
		err = fmt.Errorf("/%s: %w", skipped[0], ErrNotKept)
	}
	if err == nil {
		err = f.Chown(int(root.UID), int(root.GID))
	}
	if err == nil {
		err = unix.Fchmod(int(f.Fd()), uint32(root.Mode))
	}
	return errors.Join(err, f.Close())
}

// applicable tells whether everything of t can be made here as it is, as far as can be said before.
func (n *Namespaces) applicable(t *tree.Tree) bool {
	return t.Walk(func(_ string, ino *tree.Inode) error {
		if ino.Type == tree.CharDevice || ino.Type == tree.BlockDevice || !contains(n.status.UIDs, ino.UID) || !contains(n.status.GIDs, ino.GID) {
			return ErrNotKept
		}
		return nil
	}) == nil
}

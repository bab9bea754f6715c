// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/kaniko-go/kaniko-go/builder/internal/plan"
	"github.com/kaniko-go/kaniko-go/builder/internal/progress"
	"github.com/kaniko-go/kaniko-go/builder/internal/store"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
	"github.com/kaniko-go/kaniko-go/builder/isolation"
)

// unpackedBases are base images that stay unpacked beyond the build, to be lower directories of overlays and nothing else. nil keeps none.
// Trouble is a warning. It is safe for concurrent use.
type unpackedBases struct {
	dir string
	// ids tells apart whose files they are.
	ids string
	log *progress.Log

	mu sync.Mutex
	// held are claimed until the end of the build, by the key of their image.
	held map[string]*store.Claim
}

// openUnpacked is nil where unpacked images are not asked for or cannot be of use: builds in place would write to them.
func (b *Builder) openUnpacked(r Request, kept *baseCache) *unpackedBases {
	if !r.Cache.Unpacked || kept == nil || kept.ReadOnly() || !b.Isolation.Namespaced || b.Isolation.Choice == isolation.ChooseInPlace {
		return nil
	}
	dir := filepath.Join(kept.Dir(), store.UnpackedDir)
	if err := os.MkdirAll(dir, 0o775); err != nil {
		b.Log.Warn(fmt.Sprintf("unpacked images are not kept: %v", err))
		return nil
	}
	return &unpackedBases{dir: dir, ids: idKind(b.Isolation), log: b.Log, held: map[string]*store.Claim{}}
}

// key names the directory of an image: by its layers.
func (u *unpackedBases) key(i *plan.Image) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "1 %q %q", baseTip(i).known, u.ids))
	return hex.EncodeToString(sum[:])
}

// has tells whether an image is there, and stays until the build ends.
func (u *unpackedBases) has(i *plan.Image) bool {
	if u == nil || len(i.Config.RootFS.DiffIDs) == 0 {
		return false
	}
	claim, err := u.claim(i, nil)
	return err == nil && claim != nil
}

// claim claims the directory of an image, which make makes if it is missing and make is not nil.
func (u *unpackedBases) claim(i *plan.Image, make func(path string) error) (*store.Claim, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	key := u.key(i)
	if c := u.held[key]; c != nil {
		return c, nil
	}
	made := false
	want := store.Want{}
	if make != nil {
		want.Make = func(path string) error {
			made = true
			return make(path)
		}
	}
	c, err := store.ClaimDir(u.dir, key, want)
	if err != nil {
		return nil, err
	}
	if made {
		room := store.Room{Dir: u.dir, Name: key}
		c.Label(store.Label{About: i.Ref, Size: room.Measure()})
	}
	u.held[key] = c
	return c, nil
}

// keep gives the directory of an image, which is made if it is missing; "" where the build has to do with its own.
func (u *unpackedBases) keep(i *plan.Image, make func(path string) error) string {
	c, err := u.claim(i, make)
	switch {
	case err == nil:
		return c.Path
	case errors.Is(err, store.ErrBusy), errors.Is(err, store.ErrMaking), errors.Is(err, isolation.ErrNotKept):
	default:
		u.log.Warn(fmt.Sprintf("image %s is not kept unpacked: %v", i.Ref, err))
	}
	return ""
}

// close lets everything go.
func (u *unpackedBases) close() {
	if u == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, c := range u.held {
		c.Release()
	}
	clear(u.held)
}

// keptBases is where the isolation has the images of the plan unpacked; nil for nowhere.
func (x *executor) keptBases() *isolation.Kept {
	if x.unpacked == nil {
		return nil
	}
	return &isolation.Kept{Dir: x.unpacked.dir, Get: func(_ context.Context, t *tree.Tree, make func(path string) error) string {
		for i, b := range x.bases {
			if b.is(t) {
				return x.unpacked.keep(i, make)
			}
		}
		return ""
	}}
}

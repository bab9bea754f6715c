// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kaniko-go/kaniko-go/builder/internal/store"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// ErrIndex is wrapped by errors that say that a layer is not what its index said.
var ErrIndex = errors.New("the layer is not what its index says")

// Deferred is a layer of which only the index is here. The layer itself is downloaded, verified and spooled
// when a content of it is opened, or Fetch is called; and never if nobody does. It is safe for concurrent use.
type Deferred struct {
	// Index is what is in the layer.
	Index *Index
	// Via, if set, takes the place of Ingest.
	Via func(context.Context, *store.Store, v1.Layer, bool) (*Ingested, error)
	// Wrap, if set, is applied to the error when the layer cannot be had.
	Wrap func(error) error

	ctx     context.Context //nolint:containedctx // that of the build, in which contents are opened
	store   *store.Store
	source  v1.Layer
	indexed v1.Hash

	mu       sync.Mutex
	done     bool
	ingested *Ingested
	err      error
}

// Defer makes a Deferred of a layer and its index, whose bytes have been checked to have the digest indexed. The
// caller vouches that the index is that of the layer; if the layer is ever fetched, that is checked.
func Defer(ctx context.Context, s *store.Store, l v1.Layer, index io.Reader, indexed v1.Hash) (*Deferred, error) {
	d := &Deferred{ctx: ctx, store: s, source: l, indexed: indexed}
	var err error
	d.Index, err = decodeIndex(index, func(off, size int64) tree.Content { return &deferred{d, off, size} })
	return d, err
}

// Fetch downloads the layer unless it is here. Errors are those of Ingest.
func (d *Deferred) Fetch(ctx context.Context) error {
	_, err := d.fetch(ctx)
	return err
}

// Fetched tells whether the layer is in the store.
func (d *Deferred) Fetched() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.done && d.err == nil
}

func (d *Deferred) fetch(ctx context.Context) (*Ingested, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.done {
		return d.ingested, d.err
	}
	via := d.Via
	if via == nil {
		via = Ingest
	}
	in, err := via(ctx, d.store, d.source, true)
	if err == nil && in.index != nil && in.index.Digest != d.indexed {
		err = fmt.Errorf("layer %s: %w", in.digest, ErrIndex)
	}
	if err != nil && d.Wrap != nil {
		err = d.Wrap(err)
	}
	if ctx.Err() == nil || err == nil {
		d.done, d.ingested, d.err = true, in, err
	}
	return in, err
}

// deferred is a range of a Deferred's tar file.
type deferred struct {
	from      *Deferred
	off, size int64
}

// Open implements tree.Content.
func (c *deferred) Open() (io.ReadCloser, error) {
	in, err := c.from.fetch(c.from.ctx)
	if err != nil {
		return nil, err
	}
	return (&spooled{in.spool, c.off, c.size}).Open()
}

// FileRange gives the file and the place in it, as that of a spooled content does.
func (c *deferred) FileRange() (*os.File, int64, error) {
	in, err := c.from.fetch(c.from.ctx)
	if err != nil {
		return nil, 0, err
	}
	return (&spooled{in.spool, c.off, c.size}).FileRange()
}

// DeferredOf is the layer that the content of a file lies in, nil if that is no Deferred.
func DeferredOf(ino *tree.Inode) *Deferred {
	if c, ok := ino.Content().(*deferred); ok {
		return c.from
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"errors"
	"sync"

	"github.com/kaniko-go/kaniko-go/builder/internal/buildcontext"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// contexts are the named build contexts that were asked for. Each is opened once, with its own ignore file.
type contexts struct {
	mu    sync.Mutex
	byDir map[string]*openContext
}

type openContext struct {
	context *buildcontext.Context
	tree    *tree.Tree
}

// open returns the Tree of the directory.
func (c *contexts) open(dir string) (*tree.Tree, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if o := c.byDir[dir]; o != nil {
		return o.tree, nil
	}
	bc, err := buildcontext.Open(dir, "")
	if err != nil {
		return nil, &setupError{err}
	}
	ignore, err := bc.Ignore(nil)
	if err != nil {
		return nil, errors.Join(&setupError{err}, bc.Close())
	}
	if c.byDir == nil {
		c.byDir = map[string]*openContext{}
	}
	o := &openContext{bc, bc.Tree(ignore)}
	c.byDir[dir] = o
	return o.tree, nil
}

func (c *contexts) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, o := range c.byDir {
		errs = append(errs, o.context.Close())
	}
	return errors.Join(errs...)
}

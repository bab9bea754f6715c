// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"context"
	"fmt"

	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// Isolation makes the Roots of a build's stages. It is safe for concurrent use.
type Isolation interface {
	// Root returns a new Root. parent, which may be nil, is the Root of the stage that this one begins with; begin is the
	// Tree that it begins with, and base that of the image at the bottom, which no instruction has changed. Where there is but
	// one, it waits for it, and returns the cause of ctx when that ends first.
	Root(ctx context.Context, parent Root, begin, base *tree.Tree) (Root, error)
	// OneAtATime tells whether all Roots are one and the same, which a stage has until Leave. Whoever has it must wait for
	// nobody: before a stage asks for it, everything that it is going to read from other stages must be there, and before
	// Leave its layers must be written.
	OneAtATime() bool
	// TempDir makes a directory for what is to be the Source of a Mount and cannot be copied: a socket.
	TempDir(pattern string) (string, error)
	// String says on one line what was chosen, and why it is not the better one.
	String() string
	// Close ends all Roots. Contents of their Trees cannot be read any more.
	Close() error
}

// Root is the file system of one stage on disk.
type Root interface {
	// Run makes the root what t says, runs p in it, and returns the Tree afterwards. A command that
	// fails is an *ExitError. Not safe for concurrent use.
	Run(ctx context.Context, t *tree.Tree, p Process) (*tree.Tree, error)
	// Overwrites tells whether the next Run may change files that an earlier Tree's contents refer to. If so,
	// those must have been read by then.
	Overwrites() bool
	// Leave says that no Run follows; t is the last Tree. Its contents stay readable until Close.
	Leave(t *tree.Tree)
	// Close lets go of the directories. Contents of the Trees cannot be read any more.
	Close() error
}

// Options are what a build gives to its Isolation.
type Options struct {
	// TempDir makes directories of the build's store, which is Dir.
	TempDir func(pattern string) (string, error)
	Dir     string
	Times   tree.Times
	// Credentials are files that RUN should not be able to read. Where it shares the root with us they are in memory only until Close.
	Credentials []string
	// Own are further directories that the builder writes to while a RUN runs.
	Own []string
	// Kept has unpacked images that outlive the build, for roots that are overlays; nil for none.
	Kept *Kept
}

// Choice is what the user asked for.
type Choice int

const (
	// ChooseBest takes the best isolation that the container permits.
	ChooseBest Choice = iota
	// ChooseNamespace takes a root of its own or none.
	ChooseNamespace
	// ChooseInPlace takes the container's root or none.
	ChooseInPlace
)

// New chooses the best that the container permits, or what was asked for by name, by doing.
func New(s Status, o Options) (Isolation, error) {
	switch {
	case s.Choice == ChooseInPlace:
		return isolationOf(NewInPlace(s, o))
	case s.Namespaced || s.Choice == ChooseNamespace:
		return isolationOf(NewNamespaces(s, o))
	}
	n, err := NewInPlace(s, o)
	if err != nil {
		return nil, fmt.Errorf("%w; and without namespaces: %w", s.refusal(), err)
	}
	n.why = s.refusal()
	return n, nil
}

// isolationOf keeps a nil pointer from becoming an interface that is not nil.
func isolationOf[T Isolation](i T, err error) (Isolation, error) {
	if err != nil {
		return nil, err
	}
	return i, nil
}

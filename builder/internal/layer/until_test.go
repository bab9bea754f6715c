// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// endless is a content that stops the build when it is first read, and goes on for a terabyte.
type endless struct{ stop func() }

func (e endless) Open() (io.ReadCloser, error) { return io.NopCloser(e), nil }

func (e endless) Read(p []byte) (int, error) {
	e.stop()
	clear(p)
	return len(p), nil
}

// TestWriteStops stops a build in the middle of a file that it would take long to read.
func TestWriteStops(t *testing.T) {
	told := errors.New("told to stop")
	ctx, cancel := context.WithCancelCause(context.Background())
	ino := tree.NewFile(tree.Meta{Mode: 0o644}, 1<<40, endless{func() { cancel(told) }})
	begun := time.Now()
	_, err := Write(ctx, newStore(t), []tree.Change{{Path: "f", Inode: ino}}, Compression{Algorithm: "gzip"})
	if !errors.Is(err, told) {
		t.Errorf("error %v, want the cause", err)
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

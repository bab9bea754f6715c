// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"go.uber.org/zap"

	"github.com/kaniko-go/kaniko-go/builder/internal/progress"
	"github.com/kaniko-go/kaniko-go/builder/registry"
)

// Log is what people see of a build.
type Log = progress.Log

// NewLog makes a Log that writes to z. onStep, which may be nil, is told how many of all instructions are done.
func NewLog(z *zap.Logger, onStep func(done, total int)) *Log { return progress.New(z, onStep) }

// TransferProgress returns the function by which a registry client reports blobs to l.
func TransferProgress(l *Log) func(registry.Event) {
	t := progress.NewTransfers(l)
	return func(e registry.Event) {
		t.Report(e.Op, e.Digest.String(), e.Ref, e.Done, e.Total, e.Finished)
	}
}

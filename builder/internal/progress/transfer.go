// SPDX-License-Identifier: Apache-2.0

package progress

import (
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
)

// interval is how often a long transfer says how far it is.
const interval = 5 * time.Second

// Transfers reports blobs that are pulled or pushed: once when done, and every few seconds before.
type Transfers struct {
	log *Log

	mu   sync.Mutex
	runs map[string]*transfer
}

type transfer struct{ started, said time.Time }

// NewTransfers makes one.
func NewTransfers(l *Log) *Transfers {
	return &Transfers{log: l, runs: map[string]*transfer{}}
}

// Report takes one report about a blob: op is what happens to it ("pull", "push", "mount", "exists"), ref the repository.
// It is safe for concurrent use.
func (t *Transfers) Report(op, digest, ref string, done, total int64, finished bool) {
	key := op + digest + ref
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	run := t.runs[key]
	if run == nil {
		run = &transfer{now, now}
		t.runs[key] = run
	}
	fields := []zap.Field{zap.String("event", op), zap.String("digest", digest), zap.String("repository", ref), zap.Int64("bytes", done), zap.Int64("total", total)}
	short := digest
	if len(short) > 19 {
		short = short[:19]
	}
	switch {
	case finished:
		delete(t.runs, key)
		t.log.Info(finishedLine(op, short, ref, total, now.Sub(run.started)), fields...)
	case now.Sub(run.said) >= interval:
		run.said = now
		t.log.Info(fmt.Sprintf("%s %s: %s of %s", op, short, Bytes(done), Bytes(total)), fields...)
	}
}

func finishedLine(op, digest, ref string, total int64, d time.Duration) string {
	switch op {
	case "exists":
		return fmt.Sprintf("push %s: %s is in %s already", digest, Bytes(total), ref)
	case "mount":
		return fmt.Sprintf("push %s: %s mounted into %s", digest, Bytes(total), ref)
	case "pull":
		return fmt.Sprintf("pull %s: %s from %s in %s", digest, Bytes(total), ref, Duration(d))
	default:
		return fmt.Sprintf("%s %s: %s to %s in %s", op, digest, Bytes(total), ref, Duration(d))
	}
}

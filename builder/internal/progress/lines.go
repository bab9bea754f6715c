// SPDX-License-Identifier: Apache-2.0

package progress

import (
	"bytes"
	"fmt"
	"sync"
	"time"
)

// lineLimit is the most of one line that is kept together.
const lineLimit = 64 << 10

// A command may write outputBurst bytes at once and outputRate bytes a second in the long run; what is more is dropped, and how much
// that was is said.
const (
	outputBurst = 2 << 20
	outputRate  = 200 << 10
)

// Lines cuts what is written to it into lines. It is safe for concurrent use.
type Lines struct {
	emit func(string)
	// mask replaces secrets in a line. The longest has hold bytes: so many are held back where a line must be cut.
	mask func(string) string
	hold func() int
	now  func() time.Time

	mu  sync.Mutex
	buf []byte
	// spent is how much of the burst is used up, as of last; clipped is what was dropped since the last line.
	spent   float64
	last    time.Time
	clipped int64
	// tail is the end of what was dropped: a command says last why it fails.
	tail      []string
	tailBytes int
}

// tailLimit is how much of dropped output is kept for the end.
const tailLimit = 4 << 10

// Write implements io.Writer and never fails.
func (w *Lines) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = append(w.buf, p...)
	rest := w.buf
	for {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			break
		}
		w.line(string(rest[:i]))
		rest = rest[i+1:]
	}
	w.buf = append(w.buf[:0], rest...)
	w.cut()
	return len(p), nil
}

// cut emits the beginning of a line that is too long to wait for its end. A secret that may not be complete yet stays.
func (w *Lines) cut() {
	hold := max(w.hold()-1, 0)
	if len(w.buf) < lineLimit+hold {
		return
	}
	masked := w.mask(string(w.buf))
	end := max(len(masked)-hold, 0)
	for i := 0; i < end; i += lineLimit {
		w.line(masked[i:min(i+lineLimit, end)])
	}
	w.buf = append(w.buf[:0], masked[end:]...)
}

// line emits one line. Of a progress bar that draws over itself only what would be left on a terminal.
func (w *Lines) line(text string) {
	b := bytes.TrimRight([]byte(text), "\r")
	if i := bytes.LastIndexByte(b, '\r'); i >= 0 {
		b = b[i+1:]
	}
	if w.affords(len(b) + 1) {
		w.say()
		w.tail, w.tailBytes = nil, 0
		w.emit(w.mask(string(b)))
		return
	}
	w.tail, w.tailBytes = append(w.tail, w.mask(string(b[:min(len(b), tailLimit)]))), w.tailBytes+len(b)
	for len(w.tail) > 1 && w.tailBytes > tailLimit {
		w.tail, w.tailBytes = w.tail[1:], w.tailBytes-len(w.tail[0])
	}
}

// affords takes n bytes from what the command may write. Once there was nothing left, it waits for enough to be worth going on.
func (w *Lines) affords(n int) bool {
	now := w.now()
	if !w.last.IsZero() {
		w.spent = max(0, w.spent-now.Sub(w.last).Seconds()*outputRate)
	}
	w.last = now
	most := float64(outputBurst)
	if w.clipped > 0 {
		most -= lineLimit
	}
	if w.spent+float64(n) > most {
		w.clipped += int64(n)
		return false
	}
	w.spent += float64(n)
	return true
}

// say reports what was dropped.
func (w *Lines) say() {
	if w.clipped > 0 {
		w.emit(fmt.Sprintf("[%s of output left out: more than %s at once or %s a second]", Bytes(w.clipped), Bytes(outputBurst), Bytes(outputRate)))
		w.clipped = 0
	}
}

// Close emits what is left.
func (w *Lines) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.buf) > 0 {
		w.line(string(w.buf))
		w.buf = nil
	}
	w.say()
	for _, line := range w.tail {
		w.emit(line)
	}
	w.tail = nil
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// watchdog ends a request during which the other side moves no byte for too
// long: while it takes our body, until it answers, and while it sends its own.
// The time that our own side needs to produce or consume bytes does not count.
type watchdog struct {
	next   http.RoundTripper
	timing Timing
}

// RoundTrip sends the request under the watchdog, which stays until the answer's
// body is closed.
func (w *watchdog) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	answer := w.timing.ResponseHeader
	if isCommit(req) {
		answer = max(answer, w.timing.Commit)
	}
	// Until a connection stands, dialler and TLS have limits of their own; these
	// come on top so that they do not cut one another short.
	answer += w.timing.Connect
	if b, ok := ctx.Value(budgetKey{}).(*budget); ok && b.answer > 0 && !isCommit(req) {
		answer = b.answer
	}
	dog := &leash{cancel: cancel}
	sent := req.Clone(ctx)
	if req.Body != nil && req.Body != http.NoBody {
		sent.Body = &watchedUpload{body: req.Body, leash: dog, each: w.timing.NoProgress, last: answer}
	}
	dog.start(answer)
	resp, err := w.next.RoundTrip(sent)
	dog.stop()
	if err != nil {
		cause := context.Cause(ctx)
		cancel(nil)
		if errors.Is(cause, errStalled) {
			return nil, fmt.Errorf("%s %s: %w", req.Method, req.URL.Host, errStalled)
		}
		return nil, err
	}
	resp.Body = &watchedDownload{body: resp.Body, leash: dog, each: w.timing.NoProgress, ctx: ctx}
	return resp, nil
}

// leash is a timer that ends a request; it can be started and stopped often.
type leash struct {
	mu     sync.Mutex
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

func (l *leash) start(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer == nil {
		l.timer = time.AfterFunc(d, func() { l.cancel(errStalled) })
		return
	}
	l.timer.Reset(d)
}

func (l *leash) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
	}
}

// watchedUpload is the body that we send: the transport asks for more when the
// network has taken what it got.
type watchedUpload struct {
	body       io.ReadCloser
	leash      *leash
	each, last time.Duration
}

func (u *watchedUpload) Read(p []byte) (int, error) {
	u.leash.stop()
	n, err := u.body.Read(p)
	if err != nil {
		u.leash.start(u.last)
		return n, err //nolint:wrapcheck // io.EOF must stay itself
	}
	u.leash.start(u.each)
	return n, nil
}

func (u *watchedUpload) Close() error { return u.body.Close() }

// watchedDownload is the body that we receive.
type watchedDownload struct {
	body  io.ReadCloser
	leash *leash
	each  time.Duration
	ctx   context.Context //nolint:containedctx // the request's own, to learn why it ended
}

func (d *watchedDownload) Read(p []byte) (int, error) {
	d.leash.start(d.each)
	n, err := d.body.Read(p)
	d.leash.stop()
	if err != nil && !errors.Is(err, io.EOF) && errors.Is(context.Cause(d.ctx), errStalled) {
		err = errStalled
	}
	return n, err //nolint:wrapcheck // io.EOF must stay itself
}

func (d *watchedDownload) Close() error {
	d.leash.stop()
	err := d.body.Close()
	d.leash.cancel(nil)
	return err //nolint:wrapcheck // a body's own
}

// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"
)

// Timing holds the waits and limits of a Client. A zero field means its default.
type Timing struct {
	Connect        time.Duration // to open a connection, TLS included for itself; 10 s
	ResponseHeader time.Duration // from the end of a request to the beginning of its answer; 60 s
	Commit         time.Duration // the same where a registry may hash a whole blob first; 10 min
	NoProgress     time.Duration // without a byte in a body, either way; 60 s
	RetryBudget    time.Duration // all waits and fruitless attempts of one operation; 5 min
	ConnectBudget  time.Duration // the same while no connection can be made; 1 min
	MirrorBudget   time.Duration // both, for a mirror that has another one or the origin behind it; 10 s
	FirstDelay     time.Duration // before the first retry, then doubled up to 15 s; 500 ms
	RetryAfterCap  time.Duration // the most that a registry's Retry-After is followed; 120 s
	ReadBack       time.Duration // how long a manifest or tag just written may be absent; 30 s
}

func (t Timing) withDefaults() Timing {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&t.Connect, 10 * time.Second},
		{&t.ResponseHeader, time.Minute},
		{&t.Commit, 10 * time.Minute},
		{&t.NoProgress, time.Minute},
		{&t.RetryBudget, 5 * time.Minute},
		{&t.ConnectBudget, time.Minute},
		{&t.MirrorBudget, 10 * time.Second},
		{&t.FirstDelay, 500 * time.Millisecond},
		{&t.RetryAfterCap, 2 * time.Minute},
		{&t.ReadBack, 30 * time.Second},
	} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	return t
}

const maxDelay = 15 * time.Second

// Clock is how a Client waits between attempts, so that hours of trouble can be tried in a moment. The limits of single requests, which the
// network keeps, go by the real time. A nil field means the real one. Both are called concurrently.
type Clock struct {
	Now   func() time.Time
	Sleep func(context.Context, time.Duration) error // returns the cause when the context ends first
}

func (c Clock) withDefaults() Clock {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Sleep == nil {
		c.Sleep = sleep
	}
	return c
}

// budget bounds the retries of one operation, however many requests it makes.
// It counts waits and attempts that failed. It is safe for concurrent use.
type budget struct {
	mu       sync.Mutex
	spent    time.Duration
	failures int

	total, connect time.Duration
	most           int // retries; 0 means as many as the time allows, negative none
	first, cap     time.Duration
	answer         time.Duration // the most that an attempt waits for its answer, connection included; 0: as always
}

// spend reports how long to wait before the next attempt, and whether there may
// be one, after an attempt of the given length failed.
func (b *budget) spend(attempt, retryAfter time.Duration, connecting bool) (time.Duration, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failures++
	wait := min(b.first<<min(b.failures-1, 16), maxDelay)
	// Half to one and a half of it, so that builds that failed together do not
	// come back together.
	wait = wait/2 + rand.N(wait+1) //nolint:gosec // jitter, not a secret
	if retryAfter > 0 {
		wait = min(retryAfter, b.cap) + rand.N(b.first+1) //nolint:gosec // jitter, not a secret
	}
	limit := b.total
	if connecting {
		limit = min(limit, b.connect)
	}
	b.spent += attempt + wait
	return wait, b.spent <= limit && b.most >= 0 && (b.most == 0 || b.failures <= b.most)
}

// progress forgets earlier trouble: the operation has come further.
func (b *budget) progress() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spent, b.failures = 0, 0
}

type budgetKey struct{}

// withBudget makes all requests under the context share b.
func withBudget(ctx context.Context, b *budget) context.Context {
	return context.WithValue(ctx, budgetKey{}, b)
}

// withoutRetries makes each request under the context the only one of its kind.
func (c *Client) withoutRetries(ctx context.Context) context.Context {
	none := c.newBudget(pushing)
	none.most = -1
	if b, ok := ctx.Value(budgetKey{}).(*budget); ok {
		none.answer = b.answer
	}
	return withBudget(ctx, none)
}

// retrier repeats what failed for a passing reason. It is below ggcr's transports,
// whose own retries ignore Retry-After and which are used without them.
type retrier struct {
	next   http.RoundTripper
	budget func() *budget
	sleep  func(context.Context, time.Duration) error
	log    *zap.Logger
}

// RoundTrip sends the request until an answer is final, the budget is spent or
// the context ends. Parts of an upload session are sent once: only who knows the
// session can tell what of it arrived.
func (r *retrier) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	b, ok := ctx.Value(budgetKey{}).(*budget)
	if !ok {
		b = r.budget()
	}
	once := uploadPart(req) || (req.Body != nil && req.Body != http.NoBody && req.GetBody == nil)
	for {
		start := time.Now()
		resp, err := r.send(req)
		reason, retryAfter := trouble(resp, err)
		if reason == "" || once || ctx.Err() != nil {
			return resp, err
		}
		wait, again := b.spend(time.Since(start), retryAfter, isConnecting(err))
		if !again {
			return resp, err
		}
		if resp != nil {
			discard(resp)
		}
		r.log.Info(fmt.Sprintf("%s: %s, asking again in %s", req.URL.Host, reason, wait.Round(time.Millisecond)),
			zap.String("method", req.Method), zap.String("path", req.URL.Path))
		if err := r.sleep(ctx, wait); err != nil {
			return nil, err
		}
	}
}

// persist repeats work that failed for a passing reason after its answer had begun,
// or in a part of an upload. All requests of it share one budget.
func (c *Client) persist(ctx context.Context, d direction, work func(context.Context) error) error {
	b, ok := ctx.Value(budgetKey{}).(*budget)
	if !ok {
		b = c.newBudget(d)
		ctx = withBudget(ctx, b)
	}
	for {
		start := time.Now()
		err := work(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		passing, retryAfter := temporary(err), time.Duration(0)
		var status *statusError
		if errors.As(err, &status) {
			passing, retryAfter = isPassing(status.status), status.retryAfter
		}
		if !passing {
			return err
		}
		// The requests have counted their own time, but for the parts of uploads, which only who is impatient counts.
		var spent time.Duration
		if b.answer > 0 {
			spent = time.Since(start)
		}
		wait, again := b.spend(spent, retryAfter, isConnecting(err))
		if !again {
			return err
		}
		c.log.Info(fmt.Sprintf("%s, trying again in %s", escape(err.Error()), wait.Round(time.Millisecond)))
		if err := c.o.Clock.Sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// send makes one attempt with a body of its own: whoever called may send the same
// request again after a token expired, and its body would be used up.
func (r *retrier) send(req *http.Request) (*http.Response, error) {
	attempt := req.Clone(req.Context())
	if req.GetBody != nil {
		body, err := req.GetBody()
		if err != nil {
			return nil, &sourceError{err}
		}
		if req.Body != nil {
			_ = req.Body.Close() // never read
		}
		attempt.Body = body
	}
	return r.next.RoundTrip(attempt)
}

// uploadPart reports whether the request carries or commits blob content.
func uploadPart(req *http.Request) bool {
	return req.Method == http.MethodPatch || isCommit(req)
}

func isCommit(req *http.Request) bool {
	return req.Method == http.MethodPut && req.URL.Query().Has("digest")
}

// trouble says why an attempt should be repeated ("" for: it should not), and
// how long the registry asks to wait.
func trouble(resp *http.Response, err error) (reason string, retryAfter time.Duration) {
	if err != nil {
		if temporary(err) {
			return escape(err.Error()), 0
		}
		return "", 0
	}
	if !isPassing(resp.StatusCode) {
		return "", 0
	}
	reason = strings.TrimSpace(strconv.Itoa(resp.StatusCode) + " " + http.StatusText(resp.StatusCode))
	return reason, parseRetryAfter(resp.Header.Get("Retry-After"), time.Now())
}

// isPassing lists the statuses that are worth another try: 499 is nginx's, 52x are
// Cloudflare's.
func isPassing(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, 499,
		http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout,
		520, 521, 522, 523, 524:
		return true
	}
	return false
}

// parseRetryAfter understands both forms, seconds and a date. What is absent,
// malformed or past is 0.
func parseRetryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseInt(value, 10, 64); err == nil {
		return time.Duration(min(max(seconds, 0), int64(24*time.Hour/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}

// isConnecting reports whether no connection was made at all.
func isConnecting(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect")
}

// temporary reports whether a request that got no answer may get one later.
func temporary(err error) bool {
	var judged *finding
	if errors.As(err, &judged) {
		return judged.passing
	}
	var source *sourceError
	var alert tls.AlertError
	if errors.As(err, &source) || errors.As(err, &alert) || errors.Is(err, http.ErrSchemeMismatch) {
		return false
	}
	for _, passing := range []error{
		errStalled, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed,
		syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED, syscall.ECONNREFUSED, syscall.ETIMEDOUT,
		syscall.EHOSTUNREACH, syscall.ENETUNREACH,
	} {
		if errors.Is(err, passing) {
			return true
		}
	}
	var op *net.OpError
	var dns *net.DNSError
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(err, &dns): // an absent name too: the network of a pod comes up late
		return true
	case errors.As(err, &op) && op.Op == "dial":
		return true
	case errors.As(err, &timeout) && timeout.Timeout():
		return true
	}
	// The standard library does not export these two.
	return strings.Contains(err.Error(), "server closed idle connection") ||
		strings.Contains(err.Error(), "transport connection broken")
}

// discard reads the little that is left of an answer so that its connection can
// be used again.
func discard(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, maxErrorBody)
	_ = resp.Body.Close()
}

// sleep waits unless the context ends first.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

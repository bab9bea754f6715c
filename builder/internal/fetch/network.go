// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Network says how servers are reached. The zero value means the defaults.
type Network struct {
	// RootCAs are the certificate authorities trusted for https; nil means the system's.
	RootCAs *x509.CertPool
	// InsecureTLS leaves out the check of a server's certificate.
	InsecureTLS bool
	// Proxy chooses the proxy of a request; nil means what the environment says.
	Proxy func(*http.Request) (*url.URL, error)
	// UserAgent is sent with downloads; git has its own, which servers tell it by.
	UserAgent string
	// OnRetry, if it is not nil, is told before every wait why and how long it is.
	OnRetry func(reason string, wait time.Duration)
	Timing  Timing
}

// Timing holds waits and limits. A zero field means its default.
type Timing struct {
	Connect        time.Duration // to open a connection, TLS counted for itself; 10 s
	ResponseHeader time.Duration // from the end of a request to the beginning of its answer; 60 s
	NoProgress     time.Duration // without a byte of an answer; 60 s
	RetryBudget    time.Duration // all waits and fruitless attempts of one download; 2 min
	ConnectBudget  time.Duration // the same while no connection can be made; 30 s
	FirstDelay     time.Duration // before the first retry, then doubled up to 15 s; 500 ms
}

func (t Timing) withDefaults() Timing {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&t.Connect, 10 * time.Second},
		{&t.ResponseHeader, time.Minute},
		{&t.NoProgress, time.Minute},
		{&t.RetryBudget, 2 * time.Minute},
		{&t.ConnectBudget, 30 * time.Second},
		{&t.FirstDelay, 500 * time.Millisecond},
	} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	return t
}

const (
	maxRedirects = 5
	maxDelay     = 15 * time.Second
	maxErrorBody = 64 << 10
)

var (
	errStalled   = errors.New("no byte came for too long")
	errRedirects = fmt.Errorf("%w: more than %d redirects", ErrForbidden, maxRedirects)
	errDowngrade = fmt.Errorf("%w: redirect from https to http", ErrForbidden)
)

// wire is the http.RoundTripper below all downloads: it keeps them to permitted
// addresses and ends those that stall.
type wire struct {
	next   *http.Transport
	proxy  func(*http.Request) (*url.URL, error)
	agent  string
	timing Timing
}

func newWire(n Network) *wire {
	w := &wire{proxy: n.Proxy, agent: n.UserAgent, timing: n.Timing.withDefaults()}
	if w.proxy == nil {
		w.proxy = http.ProxyFromEnvironment
	}
	dialer := &net.Dialer{Timeout: w.timing.Connect, KeepAlive: 30 * time.Second, ControlContext: checkDial}
	w.next = &http.Transport{
		Proxy:                 w.proxy,
		DialContext:           dialer.DialContext,
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: n.RootCAs, InsecureSkipVerify: n.InsecureTLS}, //nolint:gosec // only where the user says so
		TLSHandshakeTimeout:   w.timing.Connect,
		ResponseHeaderTimeout: w.timing.ResponseHeader,
		ForceAttemptHTTP2:     true,
	}
	return w
}

func (w *wire) close() { w.next.CloseIdleConnections() }

// RoundTrip implements http.RoundTripper.
func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	if s := req.URL.Scheme; s != "http" && s != "https" {
		return nil, fmt.Errorf("%w: scheme %q is neither http nor https", ErrForbidden, escape(s))
	}
	h := hop{journey: journeyOf(ctx), redirected: isRedirected(ctx, req.URL)}
	if p, err := w.proxy(req); err == nil && p != nil {
		h.proxied = true
	}
	if err := h.checkName(req.URL.Hostname()); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(context.WithValue(ctx, hopKey{}, h))
	req = req.Clone(ctx)
	if w.agent != "" && req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", w.agent)
	}
	resp, err := w.next.RoundTrip(req)
	h.journey.note(resp, err)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	body := watch(resp.Body, w.timing.NoProgress, cancel)
	body.ctx = ctx
	resp.Body = body
	if resp.StatusCode >= http.StatusMultipleChoices {
		resp.Body = limitBody(body, maxErrorBody)
	}
	return resp, nil
}

func limitBody(b io.ReadCloser, n int64) io.ReadCloser {
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(b, n), b}
}

// watched is a body that cancels its request when no byte comes for too long.
type watched struct {
	io.ReadCloser
	ctx    context.Context //nolint:containedctx // it is only asked why it ended
	timer  *time.Timer
	wait   time.Duration
	cancel context.CancelCauseFunc
}

func watch(r io.ReadCloser, wait time.Duration, cancel context.CancelCauseFunc) *watched {
	return &watched{
		ReadCloser: r, wait: wait, cancel: cancel,
		timer: time.AfterFunc(wait, func() { cancel(errStalled) }),
	}
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if n > 0 {
		w.timer.Reset(w.wait)
	}
	if err != nil && !errors.Is(err, io.EOF) && errors.Is(context.Cause(w.ctx), errStalled) {
		err = errStalled
	}
	return n, err
}

func (w *watched) Close() error {
	w.timer.Stop()
	err := w.ReadCloser.Close()
	w.cancel(nil)
	return err
}

// checkRedirect decides whether a redirect is followed. A credential stays only as long as no hop has
// left the scheme, host and port that it was given for.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return errRedirects
	}
	if via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return errDowngrade
	}
	for _, r := range append([]*http.Request{req}, via[1:]...) {
		if !sameOrigin(r.URL, via[0].URL) {
			req.Header.Del("Authorization")
			req.Header.Del("Cookie")
			req.URL.User = nil
			break
		}
	}
	req.Header.Del("Referer")
	return nil
}

func sameOrigin(a, b *url.URL) bool {
	return strings.EqualFold(a.Scheme, b.Scheme) && strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b)
}

func port(u *url.URL) string {
	switch p := u.Port(); {
	case p != "":
		return p
	case strings.EqualFold(u.Scheme, "http"):
		return "80"
	case strings.EqualFold(u.Scheme, "https"):
		return "443"
	default:
		return ""
	}
}

// retry repeats work while it fails for a passing reason and the budget lasts.
func retry(ctx context.Context, network Network, work func() (retryAfter time.Duration, err error)) error {
	t := network.Timing.withDefaults()
	var spent time.Duration
	for n := 0; ; n++ {
		start := time.Now()
		after, err := work()
		if err == nil || ctx.Err() != nil || !temporary(err) {
			return err
		}
		wait := min(t.FirstDelay<<min(n, 16), maxDelay)
		// Half to one and a half, so that builds that failed together do not come back together.
		wait = max(wait/2+rand.N(wait+1), min(after, 2*time.Minute)) //nolint:gosec // jitter, not a secret
		limit := t.RetryBudget
		if isConnecting(err) {
			limit = min(limit, t.ConnectBudget)
		}
		if spent += time.Since(start) + wait; spent > limit {
			return err
		}
		if network.OnRetry != nil {
			network.OnRetry(err.Error(), wait)
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// isConnecting reports whether no connection was made at all.
func isConnecting(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect")
}

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

// temporary reports whether the same may work a little later.
func temporary(err error) bool {
	var known *Error
	if errors.As(err, &known) {
		return known.Temporary
	}
	var mine *localError
	var alert tls.AlertError
	var verify *tls.CertificateVerificationError
	if errors.As(err, &mine) || errors.As(err, &alert) || errors.As(err, &verify) || errors.Is(err, http.ErrSchemeMismatch) {
		return false
	}
	for _, final := range []error{ErrChecksum, ErrLimit, ErrForbidden, context.Canceled} {
		if errors.Is(err, final) {
			return false
		}
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
	var dns *net.DNSError // an absent name too: the network of a pod comes up late
	var timeout interface{ Timeout() bool }
	return errors.As(err, &dns) || isConnecting(err) ||
		errors.As(err, &timeout) && timeout.Timeout() ||
		strings.Contains(err.Error(), "server closed idle connection")
}

// isPassing lists the statuses that are worth another try.
func isPassing(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, 499, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout, 520, 521, 522, 523, 524:
		return true
	}
	return false
}

// retryAfter understands both forms of the header, seconds and a date.
func retryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseInt(value, 10, 64); err == nil {
		return time.Duration(min(max(seconds, 0), int64(24*time.Hour/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}

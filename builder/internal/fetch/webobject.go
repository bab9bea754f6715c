// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// webObject is a file of a web server.
type webObject struct {
	*download
	wire *wire
}

// WebObject is the file at an http or https address. Of the options, Checksum is not for it.
func WebObject(rawURL string, o HTTPOptions) (Object, error) {
	d, err := newDownload(rawURL, o)
	if err != nil {
		return nil, err
	}
	w := &webObject{d, newWire(o.Network)}
	d.client = &http.Client{Transport: w.wire, CheckRedirect: checkRedirect}
	return w, nil
}

// Where implements Object.
func (w *webObject) Where() string { return w.where }

// Close implements Object.
func (w *webObject) Close() { w.wire.close() }

// Get implements Object.
func (w *webObject) Get(ctx context.Context, off int64, version string) (*Part, error) {
	ctx = withJourney(ctx, &journey{host: w.url.Host})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url.String(), nil)
	if err != nil {
		return nil, err
	}
	if w.auth != "" {
		req.Header.Set("Authorization", w.auth)
	}
	// Offsets are those of the bytes as they come: nothing may be compressed for the way.
	req.Header.Set("Accept-Encoding", "identity")
	if off > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", off))
		req.Header.Set("If-Range", version)
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return nil, err
	}
	p, err := w.part(resp, off, version)
	if err != nil {
		_ = resp.Body.Close()
		return nil, err
	}
	p.Body = &endless{ReadCloser: p.Body, left: w.max - off, err: w.tooLarge()}
	return p, nil
}

// endless is a body that may never end: only some servers say how long it is.
type endless struct {
	io.ReadCloser
	left int64
	err  error
}

func (e *endless) Read(p []byte) (int, error) {
	if e.left < 0 {
		return 0, e.err
	}
	n, err := e.ReadCloser.Read(p[:min(int64(len(p)), e.left+1)])
	e.left -= int64(n)
	return n, err
}

// part understands an answer. A server that has no ranges gives all of it again, of which the beginning is passed over.
func (w *webObject) part(resp *http.Response, off int64, version string) (*Part, error) {
	p := &Part{Body: resp.Body, Size: resp.ContentLength, Version: versionOf(resp.Header)}
	switch {
	case resp.StatusCode == http.StatusPartialContent && off > 0:
		at, total, err := contentRange(resp.Header.Get("Content-Range"))
		if err != nil || at != off {
			return nil, &Error{URL: w.where, Reason: "the server answers with another range than it was asked for"}
		}
		if p.Size = total; p.Version != "" && p.Version != version {
			return nil, changed(w.where)
		}
		return p, nil
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && off > 0:
		return nil, changed(w.where)
	case resp.StatusCode != http.StatusOK:
		e := w.refused(resp)
		if after := retryAfter(resp.Header.Get("Retry-After"), time.Now()); after > 0 && temporary(e) {
			return nil, &delayedError{e, after}
		}
		return nil, e
	case p.Size > w.max:
		return nil, w.tooLarge()
	case version != "" && p.Version != version:
		return nil, changed(w.where)
	}
	if off > 0 {
		if _, err := io.CopyN(io.Discard, resp.Body, off); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// versionOf is a strong validator, as If-Range demands: an entity tag, or else the time of the last change.
func versionOf(h http.Header) string {
	if tag := h.Get("ETag"); tag != "" && !strings.HasPrefix(tag, "W/") {
		return tag
	}
	return h.Get("Last-Modified")
}

// contentRange reads "bytes FIRST-LAST/TOTAL"; a total of "*" is -1.
func contentRange(s string) (first, total int64, err error) {
	span, all, ok := strings.Cut(strings.TrimPrefix(s, "bytes "), "/")
	from, _, ok2 := strings.Cut(span, "-")
	if !ok || !ok2 {
		return 0, 0, fmt.Errorf("not a range: %s", escape(s))
	}
	if first, err = strconv.ParseInt(from, 10, 64); err != nil || all == "*" {
		return first, -1, err
	}
	total, err = strconv.ParseInt(all, 10, 64)
	return first, total, err
}

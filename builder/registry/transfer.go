// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// smallBlob is what goes with the request that ends the upload.
const smallBlob = 1 << 20

// transfer sends the bytes and commits them: POST, one PATCH, PUT, which all
// registries but a few know; those get the bytes with the PUT. Small blobs are sent so to all, which saves a request, but to
// the few that want PATCH.
func (u *upload) transfer(ctx context.Context, location *url.URL) error {
	host := canonicalHost(u.s.repo.RegistryStr())
	if u.s.client.isMonolithic(host) {
		return u.commit(ctx, location, u.body)
	}
	if u.size >= smallBlob || u.s.client.isPiecewise(host) {
		return u.inPieces(ctx, host, location)
	}
	err := u.commit(ctx, location, u.body)
	if !refusesBody(err) {
		return err
	}
	u.s.abandon(ctx, location)
	again, _, err := u.s.begin(ctx, v1.Hash{}, "")
	if err != nil {
		return err
	}
	if err := u.inPieces(ctx, host, again); err != nil {
		u.s.abandon(ctx, again)
		return err
	}
	u.s.client.setPiecewise(host)
	return nil
}

// refusesBody tells whether a PUT may have failed because it had the bytes.
func refusesBody(err error) bool {
	var status *statusError
	if !errors.As(err, &status) {
		return false
	}
	switch status.status {
	case http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusLengthRequired,
		http.StatusUnsupportedMediaType, http.StatusRequestedRangeNotSatisfiable, http.StatusNotImplemented:
		return true
	}
	return false
}

// inPieces sends the bytes before the commit.
func (u *upload) inPieces(ctx context.Context, host string, location *url.URL) error {
	resp, err := u.send(ctx, http.MethodPatch, location, u.body, http.StatusAccepted, http.StatusNoContent, http.StatusCreated, http.StatusOK)
	var status *statusError
	if errors.As(err, &status) && (status.status == http.StatusMethodNotAllowed || status.status == http.StatusNotImplemented) {
		u.s.client.setMonolithic(host)
		return u.commit(ctx, location, u.body)
	}
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	next := location
	if resp.Header.Get("Location") != "" {
		if next, err = u.s.location(resp); err != nil {
			return err
		}
	}
	return u.commit(ctx, next, nil)
}

// commit ends the upload; body is nil when the bytes were sent before.
func (u *upload) commit(ctx context.Context, location *url.URL, body func() (io.ReadCloser, error)) error {
	to := *location
	q := to.Query()
	q.Set("digest", u.digest.String())
	to.RawQuery = q.Encode()
	resp, err := u.send(ctx, http.MethodPut, &to, body, http.StatusCreated, http.StatusOK, http.StatusAccepted, http.StatusNoContent)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	answered, err := v1.NewHash(resp.Header.Get("Docker-Content-Digest"))
	if err == nil && answered != u.digest && answered.Algorithm == u.digest.Algorithm {
		return integrity("blob %s was stored as %s", u.digest, answered)
	}
	return nil
}

func (u *upload) send(ctx context.Context, method string, to *url.URL, body func() (io.ReadCloser, error), allowed ...int) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, to.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	if body != nil && u.size > 0 {
		req.ContentLength = u.size
		req.GetBody = body
		req.Body = unread{} // every attempt takes its own from GetBody
	}
	return u.s.send(req, allowed...)
}

// unread stands for a body that is never read.
type unread struct{}

func (unread) Read([]byte) (int, error) { return 0, errors.New("body was not replaced") }
func (unread) Close() error             { return nil }

// body opens the layer and checks what is read from it on the way.
func (u *upload) body() (io.ReadCloser, error) {
	rc, err := u.layer.Compressed()
	if err != nil {
		return nil, &sourceError{err}
	}
	h, err := v1.Hasher(u.digest.Algorithm)
	if err != nil {
		_ = rc.Close()
		return nil, &sourceError{err}
	}
	return &uploadBody{upload: u, rc: rc, hash: h}, nil
}

// uploadBody reads the layer for the network. The registry checks the digest too,
// but content that changed on our side must be ours to report.
type uploadBody struct {
	*upload
	rc       io.ReadCloser
	hash     hash.Hash
	done     int64
	reported int64
}

func (b *uploadBody) Read(p []byte) (int, error) {
	n, err := b.rc.Read(p)
	_, _ = b.hash.Write(p[:n]) // a hash never fails
	b.done += int64(n)
	if b.done-b.reported >= reportEvery {
		b.reported = b.done
		b.report("push", b.done, false)
	}
	if b.done > b.size || (errors.Is(err, io.EOF) && (b.done != b.size || fmt.Sprintf("%x", b.hash.Sum(nil)) != b.digest.Hex)) {
		return 0, &sourceError{integrity("layer %s changed since it was made", b.digest)}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return n, &sourceError{err}
	}
	return n, err //nolint:wrapcheck // io.EOF must stay itself
}

func (b *uploadBody) Close() error { return b.rc.Close() }

func (c *Client) isMonolithic(host string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.monolithic[host]
}

func (c *Client) isPiecewise(host string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.piecewise[host]
}

func (c *Client) setPiecewise(host string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.piecewise[host] = true
}

func (c *Client) setMonolithic(host string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.monolithic[host] = true
}

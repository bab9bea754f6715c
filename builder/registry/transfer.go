// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// smallBlob is what goes with the request that ends the upload.
const smallBlob = 1 << 20

// transfer sends the bytes and commits them: POST, PATCH, PUT, which all
// registries but a few know; those get the bytes with the PUT. Small blobs are sent so to all, which saves a request, but to
// the few that want PATCH. One PATCH takes everything unless the registry, or what is before it, refused that much.
func (u *upload) transfer(ctx context.Context, at place) error {
	if u.s.client.isMonolithic(u.host()) {
		return u.commit(ctx, at.location, u.part(0, u.size))
	}
	if u.size >= smallBlob || u.s.client.isPiecewise(u.host()) {
		return u.inPieces(ctx, at)
	}
	err := u.commit(ctx, at.location, u.part(0, u.size))
	smaller := u.takeLess(err, u.size, at.least)
	if !smaller && !refusesBody(err) {
		return err
	}
	u.giveUp(ctx)
	again, err := u.s.begin(ctx, v1.Hash{}, "")
	if err != nil {
		return err
	}
	if err := u.inPieces(ctx, again); err != nil {
		return err
	}
	if !smaller {
		u.s.client.setPiecewise(u.host())
	}
	return nil
}

func (u *upload) host() string { return canonicalHost(u.s.repo.RegistryStr()) }

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

// inPieces sends the bytes from a place of the upload on, before the commit.
func (u *upload) inPieces(ctx context.Context, at place) error {
	for at.offset < u.size || u.size == 0 {
		u.open = at // what of the next part arrives can be asked here
		n := u.s.client.piece(u.host(), u.size-at.offset, at.least)
		next, err := u.patch(ctx, at, n)
		var status *statusError
		switch {
		case err == nil:
		case errors.As(err, &status) && (status.status == http.StatusMethodNotAllowed || status.status == http.StatusNotImplemented) && at.offset == 0:
			u.s.client.setMonolithic(u.host())
			return u.commit(ctx, at.location, u.part(0, u.size))
		case u.misplaced(err):
			// A proxy has sent it twice, perhaps: the first may have arrived.
			if on, ok := u.goOn(ctx); ok {
				next = on
			} else if next, err = u.s.begin(ctx, v1.Hash{}, ""); err != nil {
				return err
			}
		case u.takeLess(err, n, at.least):
			// Nobody knows what became of the session.
			u.giveUp(ctx)
			if next, err = u.s.begin(ctx, v1.Hash{}, ""); err != nil {
				return err
			}
		default:
			return err
		}
		at = next
		if u.size == 0 {
			break
		}
	}
	return u.commit(ctx, at.location, nil)
}

// patch sends n bytes and tells where the upload goes on.
func (u *upload) patch(ctx context.Context, at place, n int64) (place, error) {
	header := http.Header{}
	if at.offset > 0 || n < u.size {
		header.Set("Content-Range", fmt.Sprintf("%d-%d", at.offset, at.offset+n-1)) // OCI's form, without a unit or a total
	}
	resp, err := u.send(ctx, http.MethodPatch, at.location, header, n, u.part(at.offset, n), http.StatusAccepted, http.StatusNoContent, http.StatusCreated, http.StatusOK)
	if err != nil {
		return at, err
	}
	defer func() { _ = resp.Body.Close() }()
	next := place{location: at.location, offset: at.offset + n, least: at.least}
	if resp.Header.Get("Location") != "" {
		if next.location, err = u.s.location(resp); err != nil {
			return at, err
		}
	}
	// Who was sent a part may have taken less of it.
	if kept, told := rangeEnd(resp.Header.Get("Range")); told && n < u.size && kept < next.offset {
		if kept <= at.offset {
			return at, fmt.Errorf("%w: it took none of %d bytes", errNoProgress, n)
		}
		next.offset = kept
	}
	return next, nil
}

// commit ends the upload; body is nil when the bytes were sent before.
func (u *upload) commit(ctx context.Context, location *url.URL, body func() (io.ReadCloser, error)) error {
	to := *location
	q := to.Query()
	q.Set("digest", u.digest.String())
	to.RawQuery = q.Encode()
	size := u.size
	if body == nil {
		size = 0
	}
	resp, err := u.send(ctx, http.MethodPut, &to, http.Header{}, size, body, http.StatusCreated, http.StatusOK, http.StatusAccepted, http.StatusNoContent)
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

func (u *upload) send(ctx context.Context, method string, to *url.URL, header http.Header, size int64, body func() (io.ReadCloser, error), allowed ...int) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, to.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header = header
	req.Header.Set("Content-Type", "application/octet-stream")
	if body != nil && size > 0 {
		req.ContentLength = size
		req.GetBody = body
		req.Body = unread{} // every attempt takes its own from GetBody
	}
	return u.s.send(req, allowed...)
}

// unread stands for a body that is never read.
type unread struct{}

func (unread) Read([]byte) (int, error) { return 0, errors.New("body was not replaced") }
func (unread) Close() error             { return nil }

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

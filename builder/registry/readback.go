// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"
)

// newBodyRequest makes a request that can be sent again.
func newBodyRequest(ctx context.Context, method, url string, body []byte) (*http.Request, error) {
	return http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
}

// unreadable reports whether the answer means: you may not look, or nobody can.
func unreadable(err error) bool {
	var status *statusError
	if !errors.As(err, &status) {
		return false
	}
	switch status.status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusMethodNotAllowed:
		return true
	}
	return false
}

func absent(err error) bool {
	var status *statusError
	return errors.As(err, &status) && status.status == http.StatusNotFound
}

// settle asks until the answer is final or the time for a registry to become
// consistent is over; ask returns whether to ask again. After half of it lets again
// send the content once more, for registries that answered 201 and lost it, and asks after that even if the time is over: one
// answer may have taken all of it.
func (c *Client) settle(ctx context.Context, ask func() (wait bool, err error), again func() error) error {
	total := c.o.Timing.ReadBack
	deadline := c.o.Clock.Now().Add(total)
	delay := min(250*time.Millisecond, total/8)
	repeated := again == nil
	for {
		wait, err := ask()
		if !wait || ctx.Err() != nil {
			return err
		}
		left := deadline.Sub(c.o.Clock.Now())
		switch {
		case !repeated && left < total/2:
			repeated = true
			if err := again(); err != nil {
				return err
			}
			left = max(left, delay)
		case left <= 0:
			return err
		}
		if err := c.o.Clock.Sleep(ctx, min(delay, left)); err != nil {
			return err
		}
		delay = min(2*delay, 4*time.Second)
	}
}

// readBack makes sure that a manifest is there, byte for byte. It is pushed when
// it only seemed to be there (written is false then).
func (p *publication) readBack(ctx context.Context, s *session, doc document, answered v1.Hash, written bool) error {
	push := func() error {
		_, err := s.put(ctx, doc.digest.String(), doc)
		return err
	}
	return p.client.settle(ctx, func() (bool, error) {
		got, err := s.manifest(ctx, doc.digest.String())
		switch {
		case err == nil && !bytes.Equal(got.raw, doc.raw):
			return false, integrity("manifest %s reads back different", doc.digest)
		case unreadable(err):
			return false, p.trustAnswer(s, doc.digest, answered)
		case absent(err) && !written:
			written = true
			err := push()
			return err == nil, err
		case absent(err):
			return true, integrity("the registry accepted manifest %s and does not have it", doc.digest)
		}
		return false, err
	}, push)
}

// trustAnswer decides where reading is not allowed: what the registry answered to
// the push must be the digest. One warning for all of a publication.
func (p *publication) trustAnswer(s *session, want, answered v1.Hash) error {
	if answered != want {
		return integrity("the push of %s cannot be verified: reading is not allowed and the registry answered no digest", want)
	}
	p.mu.Lock()
	warned := p.unread
	p.unread = true
	p.mu.Unlock()
	if !warned {
		p.warn(fmt.Sprintf("%s does not allow reading what was pushed; trusting the digest that it answered", s.repo.RegistryStr()))
	}
	return nil
}

// checkBlobs makes sure that every blob can be read: the first byte is asked for,
// because registries are known that affirm a HEAD for what they do not have. One that was mounted had been kept
// and served before.
func (p *publication) checkBlobs(ctx context.Context, s *session) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelUploads)
	for _, l := range p.image.blobs {
		g.Go(func() error {
			d, err := l.Digest()
			if err != nil {
				return err
			}
			if p.client.affirmed(s.repo, d) {
				return nil
			}
			size, err := l.Size()
			if err != nil {
				return err
			}
			return p.client.settle(ctx, func() (bool, error) {
				err := s.firstByte(ctx, d, size)
				switch {
				case unreadable(err):
					return false, nil // the manifests told, and were warned about
				case absent(err):
					return true, integrity("the registry accepted blob %s and does not have it", d)
				}
				return false, err
			}, func() error { return p.client.place(ctx, s.repo, l, insist) })
		})
	}
	return g.Wait()
}

// firstByte reads the beginning of a blob. A size that contradicts ours is an
// integrity error.
func (s *session) firstByte(ctx context.Context, d v1.Hash, size int64) error {
	resp, err := s.do(ctx, http.MethodGet, s.url("blobs", d.String()), http.Header{"Range": {"bytes=0-0"}},
		http.StatusOK, http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusOK && resp.ContentLength >= 0 && resp.ContentLength != size {
		return integrity("blob %s has %d bytes in the registry instead of %d", d, resp.ContentLength, size)
	}
	return nil
}

// readBack makes sure that the tag points to the new digest.
func (m *move) readBack(ctx context.Context) error {
	if m.kept {
		return nil
	}
	want := m.p.image.root().digest
	var third v1.Hash
	err := m.p.client.settle(ctx, func() (bool, error) {
		got, err := m.s.manifest(ctx, m.tag.TagStr())
		switch {
		case unreadable(err):
			return false, m.p.trustAnswer(m.s, want, m.answered)
		case !m.written && (absent(err) || (err == nil && got.digest != want)):
			// It only seemed to point there before.
			err := m.write(ctx)
			return err == nil, err
		case absent(err):
			return true, integrity("the registry accepted the tag and does not have it")
		case err != nil:
			return false, err
		case got.digest == want:
			return false, nil
		case got.digest == m.before:
			return true, integrity("the tag still points to %s after it was moved to %s", m.before, want)
		}
		third = got.digest
		return false, nil
	}, func() error { return m.write(ctx) })
	if err == nil && third != (v1.Hash{}) {
		m.p.warn(fmt.Sprintf("%s points to %s instead of %s: somebody else pushed it too", m.tag.Name(), third, want))
	}
	return err
}

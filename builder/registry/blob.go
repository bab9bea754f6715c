// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const (
	// reportEvery keeps progress reports rare against the bytes they report.
	reportEvery = 1 << 20
	// realProgress is how much must arrive before earlier trouble is forgotten;
	// less would let a server keep us for ever with a byte at a time.
	realProgress = 1 << 20
)

// blobReader reads a blob and verifies it. A transfer that breaks off goes on
// where it was. The last byte is handed out only after size and digest are right.
type blobReader struct {
	client *Client
	ctx    context.Context //nolint:containedctx // io.Reader knows no context
	s      *session
	ref    string
	desc   v1.Descriptor
	budget *budget

	body     io.ReadCloser
	hash     hash.Hash
	done     int64 // bytes hashed
	reported int64
	steady   int64 // bytes since the last trouble
	err      error // final
}

// openBlob begins to read a blob; its errors are the caller's, as Read's are.
func (c *Client) openBlob(ctx context.Context, s *session, ref string, d v1.Descriptor) (io.ReadCloser, error) {
	h, err := v1.Hasher(d.Digest.Algorithm)
	if err != nil {
		return nil, fmt.Errorf("pull %s: blob %s: %w", ref, d.Digest, err)
	}
	b := &blobReader{client: c, ctx: ctx, s: s, ref: ref, desc: d, budget: c.newBudget(pulling), hash: h}
	if given, ok := ctx.Value(budgetKey{}).(*budget); ok {
		b.budget = given
	}
	b.ctx = withBudget(ctx, b.budget)
	if d.Size == 0 {
		return b, nil
	}
	if err := b.open(); err != nil {
		return nil, b.fail(err)
	}
	return b, nil
}

func (b *blobReader) fail(err error) error {
	a := attempt{op: "pull", ref: b.ref, host: b.s.repo.RegistryStr(), credential: b.s.credential}
	return a.fail(b.ctx, fmt.Errorf("blob %s: %w", b.desc.Digest, err))
}

// open asks for what is missing. A server that does not know ranges sends all of
// it, and what we had is skipped; the digest still is over what was handed out.
func (b *blobReader) open() error {
	var header http.Header
	if b.done > 0 {
		header = http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", b.done, b.desc.Size-1)}}
	}
	resp, err := b.s.do(b.ctx, http.MethodGet, b.s.url("blobs", b.desc.Digest.String()), header, http.StatusOK, http.StatusPartialContent)
	if err != nil {
		return err
	}
	if err := b.position(resp); err != nil {
		_ = resp.Body.Close()
		return err
	}
	b.body = resp.Body
	return nil
}

func (b *blobReader) position(resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		if resp.ContentLength >= 0 && resp.ContentLength != b.desc.Size {
			return integrity("the registry has %d bytes, the manifest says %d", resp.ContentLength, b.desc.Size)
		}
		_, err := io.CopyN(io.Discard, resp.Body, b.done)
		return b.short(err)
	}
	var from, to int64
	var total string
	if _, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-%d/%s", &from, &to, &total); err != nil ||
		from != b.done || to != b.desc.Size-1 || (total != "*" && total != fmt.Sprint(b.desc.Size)) {
		return integrity("asked for bytes %d-%d, the registry answered %q", b.done, b.desc.Size-1, escape(resp.Header.Get("Content-Range")))
	}
	return nil
}

// Read implements [io.Reader].
func (b *blobReader) Read(p []byte) (int, error) {
	for b.err == nil {
		n, err := b.once(p)
		if err != nil && b.err == nil {
			b.err = b.fail(err)
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, b.err
}

// once reads from the present connection, opening one when there is none. An
// error is final; b.err is io.EOF at the verified end.
func (b *blobReader) once(p []byte) (int, error) {
	if b.done == b.desc.Size {
		return 0, b.end()
	}
	if len(p) == 0 {
		return 0, errors.New("read into an empty buffer")
	}
	if b.body == nil {
		if err := b.open(); err != nil {
			return 0, b.recover(err)
		}
	}
	n, err := b.body.Read(p[:min(int64(len(p)), b.desc.Size-b.done)])
	_, _ = b.hash.Write(p[:n]) // a hash never fails
	b.done += int64(n)
	if b.steady += int64(n); b.steady >= realProgress {
		b.steady = 0
		b.budget.progress()
	}
	if b.done == b.desc.Size {
		if err := b.verify(); err != nil {
			return 0, err
		}
	} else if err != nil {
		if err := b.recover(b.short(err)); err != nil {
			return 0, err
		}
	}
	b.report(false)
	return n, nil
}

// recover prepares for another connection, or says that there is no point.
func (b *blobReader) recover(err error) error {
	if b.body != nil {
		_ = b.body.Close()
		b.body = nil
	}
	b.steady = 0
	if !temporary(err) || b.ctx.Err() != nil {
		return err
	}
	wait, again := b.budget.spend(0, 0, isConnecting(err))
	if !again {
		return err
	}
	b.client.log.Info(fmt.Sprintf("%s broke off at byte %d of %d: %s, going on in %s", b.desc.Digest, b.done, b.desc.Size, escape(err.Error()), wait))
	return b.client.o.Clock.Sleep(b.ctx, wait)
}

// short turns an orderly end before the blob's into what it is: content that does
// not match, unless it comes out right when asked again.
func (b *blobReader) short(err error) error {
	if err == nil || !errors.Is(err, io.EOF) {
		return err
	}
	return &finding{class: Integrity, text: fmt.Sprintf("it ends before its %d bytes", b.desc.Size), passing: true}
}

// verify checks digest and that nothing follows.
func (b *blobReader) verify() error {
	if got := fmt.Sprintf("%x", b.hash.Sum(nil)); got != b.desc.Digest.Hex {
		return integrity("it is %s:%s", b.desc.Digest.Algorithm, got)
	}
	if b.body != nil {
		if n, _ := io.ReadFull(b.body, make([]byte, 1)); n > 0 {
			return integrity("it goes on after %d bytes", b.desc.Size)
		}
	}
	return nil
}

// end is reached after everything was verified, or at once for an empty blob.
func (b *blobReader) end() error {
	if b.desc.Size == 0 {
		if err := b.verify(); err != nil {
			return err
		}
	}
	b.report(true)
	b.err = io.EOF
	return nil
}

func (b *blobReader) report(finished bool) {
	if !finished && b.done-b.reported < reportEvery {
		return
	}
	b.reported = b.done
	b.client.report(Event{Op: "pull", Digest: b.desc.Digest, Ref: b.s.repo.Name(), Done: b.done, Total: b.desc.Size, Finished: finished})
}

// Close ends the transfer.
func (b *blobReader) Close() error {
	if b.err == nil {
		b.err = fmt.Errorf("pull %s: blob %s: read after close", b.ref, b.desc.Digest)
	}
	if b.body == nil {
		return nil
	}
	body := b.body
	b.body = nil
	return body.Close()
}

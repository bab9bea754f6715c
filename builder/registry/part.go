// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"errors"
	"fmt"
	"hash"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// part gives the bytes of the layer from offset on, n of them, as often as it is called. Parts that are read whole one after the other
// read the layer once.
func (u *upload) part(offset, n int64) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) {
		r, err := u.reader(offset)
		if err != nil {
			return nil, err
		}
		p := &part{partReader: r, left: n, last: offset+n == u.size}
		p.keep = func() {
			u.mu.Lock()
			defer u.mu.Unlock()
			u.kept = r
		}
		return p, nil
	}
}

// reader opens the layer at offset, or goes on with the one that is there already.
func (u *upload) reader(offset int64) (*partReader, error) {
	u.mu.Lock()
	kept := u.kept
	u.kept = nil
	u.mu.Unlock()
	if kept != nil && kept.done == offset {
		return kept, nil
	}
	if kept != nil {
		_ = kept.rc.Close()
	}
	rc, err := u.layer.Compressed()
	if err != nil {
		return nil, &sourceError{err}
	}
	h, err := v1.Hasher(u.digest.Algorithm)
	if err != nil {
		_ = rc.Close()
		return nil, &sourceError{err}
	}
	s := &partReader{upload: u, rc: rc, hash: h, reported: offset}
	// The digest is of everything, so what is not sent again is read.
	if _, err := io.CopyN(io.Discard, s, offset); err != nil {
		_ = rc.Close()
		return nil, err //nolint:wrapcheck // it says all there is
	}
	return s, nil
}

// closeReader ends what no part goes on with.
func (u *upload) closeReader() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.kept != nil {
		_ = u.kept.rc.Close()
		u.kept = nil
	}
}

// part is one body. Once it is read to its end the next part may go on with its reader; a transport that has got
// everything reads no more, whenever it closes.
type part struct {
	*partReader
	left int64
	last bool
	keep func()
	over bool
}

func (p *part) Read(b []byte) (int, error) {
	if p.last {
		return p.partReader.Read(b) // to the end of the layer, where its digest is looked at
	}
	if p.left == 0 {
		return 0, io.EOF
	}
	n, err := p.partReader.Read(b[:min(int64(len(b)), p.left)])
	p.left -= int64(n)
	if errors.Is(err, io.EOF) && p.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// Close is called once or more, perhaps while the next part is being made.
func (p *part) Close() error {
	if p.over {
		return nil
	}
	p.over = true
	if !p.last && p.left == 0 {
		p.keep()
		return nil
	}
	return p.rc.Close()
}

// partReader reads the layer for the network. The registry checks the digest too,
// but content that changed on our side must be ours to report.
type partReader struct {
	*upload
	rc       io.ReadCloser
	hash     hash.Hash
	done     int64
	reported int64
}

func (b *partReader) Read(p []byte) (int, error) {
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

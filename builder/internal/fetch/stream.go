// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"
)

// Object is a file that a server can be asked for from any offset on: on a web server, or in a store of objects.
type Object interface {
	// Where is how the object appears in messages, without credentials.
	Where() string
	// Get asks for the bytes from offset off to the end. With a version, the answer must be of the very same one. An
	// error that is not an *Error is the network's.
	Get(ctx context.Context, off int64, version string) (*Part, error)
	// Close lets go of connections.
	Close()
}

// Part is an answer: the rest of an object.
type Part struct {
	Body io.ReadCloser
	// Size is that of the whole object; -1 if the server does not say.
	Size int64
	// Version tells this content from every other that the object has had or will have; "" if the server gives nothing
	// of the kind. Then a connection that breaks cannot be gone on with.
	Version string
	// Sums are what the server says of the whole object's bytes; only those of the first answer count.
	Sums []Sum
}

// Sum is a checksum that a server keeps of an object.
type Sum struct {
	Name string
	Hash hash.Hash
	Want []byte
}

// maxResumes is how often one reading goes on after a connection broke.
const maxResumes = 200

// delayedError is trouble of a server that says when it may be asked again.
type delayedError struct {
	error
	after time.Duration
}

// Stream is an object that is read from beginning to end. When a connection breaks it goes on where it was, if the object
// is still the same. It is for one goroutine.
type Stream struct {
	ctx     context.Context //nolint:containedctx // the stream lives no longer than what it is read for
	object  Object
	network Network

	body    io.ReadCloser
	off     int64
	size    int64
	version string
	sums    []Sum
	begun   bool
	resumes int
	broken  error
	done    bool
}

// OpenObject asks for an object. Errors, also those of Read, are *Error, except where ctx has ended. A checksum that does
// not fit wraps ErrChecksum.
func OpenObject(ctx context.Context, o Object, network Network) (*Stream, error) {
	s := &Stream{ctx: ctx, object: o, network: network, size: -1}
	if err := s.connect(); err != nil {
		return nil, err
	}
	return s, nil
}

// Version is that of the object, "" if it has none.
func (s *Stream) Version() string { return s.version }

// Size is that of the object, -1 if it is not known before the end.
func (s *Stream) Size() int64 { return s.size }

// Again opens the object a second time; that it is the same is certain.
func (s *Stream) Again() (*Stream, error) {
	again := &Stream{ctx: s.ctx, object: s.object, network: s.network, size: s.size, version: s.version, begun: true}
	return again, again.connect()
}

// AgainReader is Again for who needs no more than a reader.
func (s *Stream) AgainReader() (io.ReadCloser, error) { return s.Again() }

// Close ends the connection. The object stays open for Again.
func (s *Stream) Close() error {
	if s.body == nil {
		return nil
	}
	err := s.body.Close()
	s.body = nil
	return err
}

// connect asks for what is left of the object.
func (s *Stream) connect() error {
	where := s.object.Where()
	var final error
	err := retry(s.ctx, s.network, func() (time.Duration, error) {
		p, err := s.object.Get(s.ctx, s.off, s.version)
		if errors.Is(err, errChanged) {
			// It is worth another build, but not another question.
			final = err
			return 0, nil
		}
		if err != nil {
			var later *delayedError
			if errors.As(err, &later) {
				return later.after, fail(s.ctx, where, later.error)
			}
			return 0, fail(s.ctx, where, err)
		}
		if !s.begun {
			s.begun, s.size, s.version, s.sums = true, p.Size, p.Version, p.Sums
		}
		if p.Size >= 0 && s.size >= 0 && p.Size != s.size {
			_ = p.Body.Close()
			final = changed(where)
			return 0, nil
		}
		s.body = p.Body
		return 0, nil
	})
	if final != nil {
		return final
	}
	return err
}

// errChanged is an object that is another one in the middle of its being read.
var errChanged = errors.New("it changed while it was read")

func changed(where string) error {
	return &Error{URL: where, Reason: errChanged.Error(), Temporary: true, Err: errChanged}
}

// Read implements io.Reader.
func (s *Stream) Read(p []byte) (int, error) {
	if s.done {
		return 0, io.EOF
	}
	if s.broken != nil {
		if err := s.resume(); err != nil {
			return 0, err
		}
	}
	n, err := s.body.Read(p)
	s.off += int64(n)
	for _, sum := range s.sums {
		_, _ = sum.Hash.Write(p[:n])
	}
	switch {
	case s.size >= 0 && s.off > s.size:
		return 0, changed(s.object.Where())
	case err == nil:
		return n, nil
	case errors.Is(err, io.EOF) && (s.size < 0 || s.off == s.size):
		s.done = true
		if err := s.check(); err != nil {
			return 0, err
		}
		return n, io.EOF
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	s.broken = err
	if n > 0 {
		return n, nil
	}
	return s.Read(p)
}

// resume goes on after a connection broke.
func (s *Stream) resume() error {
	err := s.broken
	_ = s.body.Close()
	s.resumes++
	switch {
	case s.ctx.Err() != nil, !temporary(err):
		return fail(s.ctx, s.object.Where(), err)
	case s.off > 0 && s.version == "":
		return &Error{URL: s.object.Where(), Temporary: true, Err: err, Reason: fmt.Sprintf(
			"the connection broke after %d bytes, and the server does not say whether what is left belongs to them: %s", s.off, escape(err.Error()))}
	case s.resumes > maxResumes:
		return &Error{URL: s.object.Where(), Temporary: true, Err: err, Reason: fmt.Sprintf("the connection broke %d times: %s", s.resumes, escape(err.Error()))}
	}
	if s.network.OnRetry != nil {
		s.network.OnRetry(fmt.Sprintf("%s: the connection broke after %d bytes: %s", s.object.Where(), s.off, escape(err.Error())), 0)
	}
	if err := s.connect(); err != nil {
		return err
	}
	s.broken = nil
	return nil
}

// check compares the sums at the end. Those of a second reading are not: it may leave out what it does not need.
func (s *Stream) check() error {
	for _, sum := range s.sums {
		if got := sum.Hash.Sum(nil); string(got) != string(sum.Want) {
			return &Error{URL: s.object.Where(), Err: ErrChecksum, Reason: fmt.Sprintf("its %s is %x, the server has %x", sum.Name, got, sum.Want)}
		}
	}
	return nil
}

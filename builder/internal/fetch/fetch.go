// SPDX-License-Identifier: Apache-2.0

// Package fetch gets from the network what ADD and build contexts name by URL:
// single files over http and https, and directories of git repositories.
//
// Everything a server sends is hostile until proven otherwise: it is bounded while it
// arrives, checked before anything is handed out, and lies in nameless files of the
// store, never in memory. Nothing is executed. A credential goes to the exact host it
// was given for and follows no redirect. Images and their layers are not fetched here
// but by package registry.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Errors that callers tell apart; they are wrapped in an *Error.
var (
	// ErrChecksum says that what came is not what the checksum promises.
	ErrChecksum = errors.New("checksum mismatch")
	// ErrLimit says that there is more of something than is accepted.
	ErrLimit = errors.New("limit exceeded")
	// ErrForbidden says that a server led to where we do not go, or named what we do not accept.
	ErrForbidden = errors.New("refused")
)

// Error says what could not be fetched from where. A URL in it has neither credentials nor a
// query, and what a server said is cut and escaped.
type Error struct {
	URL    string
	Status int    // HTTP status of the answer; 0 when there was none or it was not the trouble
	Reason string // one line
	// Temporary says that the same may work later: network trouble or an overloaded server.
	Temporary bool
	// Refused says that the server did not accept who we are, or we not it.
	Refused bool
	Err     error // for errors.Is and errors.As; may be nil
}

// Error returns one line.
func (e *Error) Error() string {
	if e.Status != 0 {
		s := fmt.Sprintf("%s: invalid response status %d %s", e.URL, e.Status, http.StatusText(e.Status))
		if e.Reason != "" {
			s += ": " + e.Reason
		}
		return s
	}
	return e.URL + ": " + e.Reason
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// fail makes an Error of a cause whose text holds no credentials. A context that has ended is the cause of
// everything that failed since.
func fail(ctx context.Context, where string, err error) error {
	var done *Error
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", where, context.Cause(ctx))
	case errors.As(err, &done):
		return err
	}
	var mine *localError
	if errors.As(err, &mine) {
		if mine.placed {
			return err
		}
		return &localError{fmt.Errorf("%s: %w", where, err), true}
	}
	var u *url.Error
	reason := err
	if errors.As(err, &u) { // its text has the address, and the query may be a signature
		reason = u.Err
	}
	return &Error{URL: where, Reason: escape(reason.Error()), Temporary: temporary(err), Err: err}
}

// localError is trouble of our own disk, which must not be taken for the network's.
type localError struct {
	err error
	// placed says that the text has the address that it happened for.
	placed bool
}

func (e *localError) Error() string { return e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

func local(err error) error {
	if err == nil {
		return nil
	}
	return &localError{err: err}
}

// localWriter marks the errors of a writer as local.
type localWriter struct{ w io.Writer }

func (l localWriter) Write(p []byte) (int, error) {
	n, err := l.w.Write(p)
	return n, local(err)
}

// section is a range of a file of the store: tree.Content that any number of readers share.
type section struct {
	file      *os.File
	off, size int64
}

// Open implements tree.Content.
func (s *section) Open() (io.ReadCloser, error) {
	return io.NopCloser(io.NewSectionReader(s.file, s.off, s.size)), nil
}

// Shown is how an address appears in messages: without credentials and query.
func Shown(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "URL"
	}
	return shown(u)
}

// shown is how an address appears in messages.
func shown(u *url.URL) string {
	v := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}
	return escape(v.String())
}

const maxReason = 256

// escape cuts s and makes control characters visible, so that a server cannot write to the
// terminal or forge lines of the log.
func escape(s string) string {
	s = strings.TrimSpace(s)
	if len(s) > maxReason {
		s = s[:maxReason] + "..."
	}
	var b strings.Builder
	for _, r := range s {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

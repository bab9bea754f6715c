// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"time"
	"unicode"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kaniko-go/kaniko-go/builder/internal/store"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// maxDownload is the size that a download may have where nothing else is said.
const maxDownload = 10 << 30

// HTTPOptions says what is expected of a download and how it is made.
type HTTPOptions struct {
	// Checksum is ALGORITHM:HEX with sha256, sha384 or sha512; "" if there is none. Nothing is
	// handed out before it was checked.
	Checksum string
	// Header and Token return, for the host of the URL without its port, the value of an Authorization header and
	// a bearer token, "" if there is none. The token wins. Both may be nil.
	Header, Token func(host string) string
	// MaxBytes is how much is accepted; 0 means 10 GiB.
	MaxBytes int64
	Network  Network
}

// File is a download.
type File struct {
	// Name is the last element of the URL's path, or "__unnamed__". What a server or a redirect
	// calls it does not count.
	Name string
	// Inode is a regular file, mode 0600, owner 0:0, with the time of the Last-Modified header or 0.
	// Its content lies in a nameless file of the store and lives as long as the Inode.
	Inode *tree.Inode
	// Digest is the sha256 of the content.
	Digest v1.Hash
}

// HTTP downloads a file. The error is an *Error, except where the caller's context has ended
// or our own disk failed; a wrong checksum wraps ErrChecksum, too much ErrLimit. A body that the server
// compressed for the way is decompressed, as by every builder.
func HTTP(ctx context.Context, s *store.Store, rawURL string, o HTTPOptions) (*File, error) {
	d, err := newDownload(rawURL, o)
	if err != nil {
		return nil, err
	}
	f, err := s.Spool()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.where, err)
	}
	wire := newWire(o.Network)
	defer wire.close()
	d.client = &http.Client{Transport: wire, CheckRedirect: checkRedirect}
	ctx = withJourney(ctx, &journey{host: d.url.Host})
	var file *File
	err = retry(ctx, o.Network, func() (after time.Duration, err error) {
		file, after, err = d.try(ctx, f)
		return after, fail(ctx, d.where, err)
	})
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return file, nil
}

// BasicAuthorization is the value of an Authorization header with a user and a password (RFC 7617).
func BasicAuthorization(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

type download struct {
	url    *url.URL
	where  string
	auth   string
	sum    *checksum
	max    int64
	client *http.Client
}

func newDownload(rawURL string, o HTTPOptions) (*download, error) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Host == "" || u.Opaque != "" {
		// The parser's own error may quote credentials.
		return nil, &Error{URL: "URL", Reason: "not a valid http or https URL"}
	}
	d := &download{url: u, where: shown(u), max: o.MaxBytes}
	if u.Scheme != "http" && u.Scheme != "https" {
		return nil, &Error{URL: d.where, Reason: "only http and https URLs can be downloaded", Err: ErrForbidden}
	}
	if o.Checksum != "" {
		if d.sum, err = parseChecksum(o.Checksum); err != nil {
			return nil, &Error{URL: d.where, Reason: err.Error(), Err: err}
		}
	}
	if d.max <= 0 {
		d.max = maxDownload
	}
	if o.Header != nil {
		d.auth = o.Header(u.Hostname())
	}
	if o.Token != nil {
		if t := o.Token(u.Hostname()); t != "" {
			d.auth = "Bearer " + t
		}
	}
	if u.User != nil && d.auth == "" {
		// As a header, which also follows a redirect on the same server.
		password, _ := u.User.Password()
		d.auth = BasicAuthorization(u.User.Username(), password)
	}
	u.User = nil
	if strings.ContainsAny(d.auth, "\r\n\x00") {
		return nil, &Error{URL: d.where, Reason: "the credential for " + u.Hostname() + " holds a line break"}
	}
	return d, nil
}

// try makes one attempt, from the beginning.
func (d *download) try(ctx context.Context, f *os.File) (*File, time.Duration, error) {
	if err := restart(f); err != nil {
		return nil, 0, local(err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url.String(), nil)
	if err != nil {
		return nil, 0, err
	}
	if d.auth != "" {
		req.Header.Set("Authorization", d.auth)
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode < http.StatusOK || resp.StatusCode >= http.StatusMultipleChoices {
		return nil, retryAfter(resp.Header.Get("Retry-After"), time.Now()), d.refused(resp)
	}
	if resp.ContentLength > d.max {
		return nil, 0, d.tooLarge()
	}
	h := sha256.New()
	w := io.MultiWriter(localWriter{f}, h)
	if d.sum != nil {
		d.sum.hash.Reset()
		w = io.MultiWriter(localWriter{f}, h, d.sum.hash)
	}
	size, err := io.Copy(w, io.LimitReader(resp.Body, d.max+1))
	switch {
	case err != nil:
		return nil, 0, err
	case size > d.max:
		return nil, 0, d.tooLarge()
	}
	if d.sum != nil {
		if err := d.sum.check(d.where); err != nil {
			return nil, 0, err
		}
	}
	return d.file(resp, f, size, h), 0, nil
}

func (d *download) file(resp *http.Response, f *os.File, size int64, h hash.Hash) *File {
	meta := tree.Meta{Mode: 0o600}
	if t, err := http.ParseTime(resp.Header.Get("Last-Modified")); err == nil {
		meta.MTime = t.Unix()
	}
	return &File{
		Name:   nameOf(d.url),
		Inode:  tree.NewFile(meta, size, &section{file: f, size: size}),
		Digest: v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.Sum(nil))},
	}
}

// refused is an answer that is no file.
func (d *download) refused(resp *http.Response) error {
	e := &Error{URL: d.where, Status: resp.StatusCode, Temporary: isPassing(resp.StatusCode)}
	if final := resp.Request.URL; !sameOrigin(final, d.url) {
		e.Reason = "from " + escape(final.Host) + ", to which it was redirected"
	}
	if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden {
		hint := "no credential was given for " + d.url.Hostname()
		if d.auth != "" {
			hint = "the credential for " + d.url.Hostname() + " was not accepted"
		}
		e.Reason, e.Refused = strings.TrimPrefix(e.Reason+"; "+hint, "; "), true
	}
	return e
}

func (d *download) tooLarge() error {
	return &Error{URL: d.where, Reason: fmt.Sprintf("more than the limit of %d bytes", d.max), Err: ErrLimit}
}

func restart(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.Seek(0, io.SeekStart)
	return err
}

// nameOf is the name that ADD gives to a download.
func nameOf(u *url.URL) string {
	base := path.Base(u.Path)
	if base == "." || base == ".." || base == "/" || strings.ContainsFunc(base, unicode.IsControl) {
		return "__unnamed__"
	}
	return base
}

// checksum is a digest that is expected.
type checksum struct {
	algorithm, hex string
	hash           hash.Hash
}

func parseChecksum(s string) (*checksum, error) {
	algorithm, value, _ := strings.Cut(s, ":")
	c := &checksum{algorithm: algorithm, hex: value}
	switch algorithm {
	case "sha256":
		c.hash = sha256.New()
	case "sha384":
		c.hash = sha512.New384()
	case "sha512":
		c.hash = sha512.New()
	default:
		return nil, fmt.Errorf("checksum %q: unsupported digest algorithm", escape(s))
	}
	if b, err := hex.DecodeString(value); err != nil || len(b) != c.hash.Size() || strings.ToLower(value) != value {
		return nil, fmt.Errorf("checksum %q: invalid checksum digest format", escape(s))
	}
	return c, nil
}

func (c *checksum) check(where string) error {
	got := hex.EncodeToString(c.hash.Sum(nil))
	if got == c.hex {
		return nil
	}
	reason := fmt.Sprintf("digest mismatch: %s:%s (expected: %s:%s)", c.algorithm, got, c.algorithm, c.hex)
	return &Error{URL: where, Reason: reason, Err: ErrChecksum}
}

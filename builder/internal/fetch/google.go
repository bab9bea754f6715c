// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"crypto/md5" //nolint:gosec // what the server keeps, against accidents
	"encoding/base64"
	"fmt"
	"hash"
	"hash/crc32"
	"net/http"
	"net/url"
	"strings"
)

// GoogleOptions say how Google's object store is reached.
type GoogleOptions struct {
	// Endpoint is the address of another server that speaks like it, with or without http://; "" for Google's.
	Endpoint string
}

// googleObject is an object of a bucket, by the store's JSON interface.
type googleObject struct {
	bucket, key string
	url         *url.URL
	token       func(context.Context) (string, error)
	client      *http.Client
	wire        *wire
	// nobody is what is said where there is no token.
	nobody string
}

// GoogleObject is an object of a bucket. token gives an access token, "" for none, as often as one is needed.
func GoogleObject(bucket, key string, o GoogleOptions, token func(context.Context) (string, error), network Network) (Object, error) {
	endpoint, nobody := o.Endpoint, "no credential was given"
	switch {
	case endpoint == "":
		endpoint = "https://storage.googleapis.com"
		nobody += ": GOOGLE_APPLICATION_CREDENTIALS and the metadata service were looked for"
	case !strings.Contains(endpoint, "://"):
		endpoint = "http://" + endpoint
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, &Error{URL: "gs://" + escape(bucket), Reason: "the address of the storage service is not an http or https URL"}
	}
	u = u.JoinPath("storage", "v1", "b", url.PathEscape(bucket), "o", url.PathEscape(key))
	u.RawQuery = "alt=media"
	g := &googleObject{bucket: bucket, key: key, url: u, token: token, wire: newWire(network), nobody: nobody}
	g.client = &http.Client{Transport: g.wire, CheckRedirect: checkRedirect}
	return g, nil
}

// Where implements Object.
func (o *googleObject) Where() string { return escape("gs://" + o.bucket + "/" + o.key) }

// Close implements Object.
func (o *googleObject) Close() { o.wire.close() }

// Get implements Object. The version is the object's generation.
func (o *googleObject) Get(ctx context.Context, off int64, version string) (*Part, error) {
	u := *o.url
	if version != "" {
		u.RawQuery += "&generation=" + url.QueryEscape(version)
	}
	ctx = withJourney(ctx, &journey{host: u.Host})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	token, err := o.token(ctx)
	if err != nil {
		return nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	// The stored bytes are asked for, also of an object that is stored with gzip: sums and sizes are theirs.
	req.Header.Set("Accept-Encoding", "gzip")
	if off > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", off))
	}
	resp, err := o.client.Do(req)
	if err != nil {
		return nil, err
	}
	p, err := o.part(resp, off, token != "")
	if err != nil {
		_ = resp.Body.Close()
	}
	return p, err
}

func (o *googleObject) part(resp *http.Response, off int64, known bool) (*Part, error) {
	p := &Part{Body: resp.Body, Size: resp.ContentLength, Version: resp.Header.Get("X-Goog-Generation")}
	switch {
	case off > 0 && resp.StatusCode == http.StatusPartialContent:
		at, total, err := contentRange(resp.Header.Get("Content-Range"))
		if err != nil || at != off {
			return nil, &Error{URL: o.Where(), Reason: "the server answers with another range than it was asked for"}
		}
		p.Size = total
		return p, nil
	case off > 0 && resp.StatusCode == http.StatusOK:
		return nil, &Error{URL: o.Where(), Reason: "the server gives no ranges, so that a connection that broke cannot be gone on with", Temporary: true}
	case off > 0 && resp.StatusCode == http.StatusNotFound:
		return nil, changed(o.Where()) // of that generation there is nothing any more
	case resp.StatusCode == http.StatusOK:
		p.Sums = googleSums(resp.Header)
		return p, nil
	}
	e := &Error{URL: o.Where(), Status: resp.StatusCode, Temporary: isPassing(resp.StatusCode)}
	if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden {
		e.Reason, e.Refused = o.nobody, true
		if known {
			e.Reason = "the credential was not accepted"
		}
	}
	return nil, e
}

// googleSums reads "crc32c=BASE64,md5=BASE64", which may be several headers.
func googleSums(h http.Header) []Sum {
	var sums []Sum
	for _, line := range h.Values("X-Goog-Hash") {
		for item := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(item), "=")
			want, err := base64.StdEncoding.DecodeString(value)
			if err != nil || len(want) == 0 {
				continue
			}
			var sum hash.Hash
			switch name {
			case "crc32c":
				sum = crc32.New(crc32.MakeTable(crc32.Castagnoli))
			case "md5":
				sum = md5.New() //nolint:gosec // as above
			default:
				continue
			}
			sums = append(sums, Sum{Name: name, Hash: sum, Want: want})
		}
	}
	return sums
}

// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
)

// shop serves one file and breaks every connection after some bytes of it.
type shop struct {
	data []byte
	// header is what every answer has; ranges says that Range is understood.
	header http.Header
	ranges bool
	limit  int
	asked  []string
}

func (s *shop) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.asked = append(s.asked, r.Header.Get("Range"))
	for k, v := range s.header {
		w.Header()[k] = v
	}
	rest := s.data
	var off int
	if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &off); err == nil && s.ranges {
		rest = s.data[off:]
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, len(s.data)-1, len(s.data)))
		w.Header().Set("Content-Length", fmt.Sprint(len(rest)))
		w.WriteHeader(http.StatusPartialContent)
	} else {
		w.Header().Set("Content-Length", fmt.Sprint(len(rest)))
	}
	_, _ = w.Write(rest[:min(len(rest), s.limit)])
	if len(rest) > s.limit {
		s.limit *= 2 // so that a server without ranges comes to an end
		panic(http.ErrAbortHandler)
	}
}

func noToken(context.Context) (string, error) { return "", nil }

func TestStream(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 10_000)
	sum := md5.Sum(data)
	tests := []struct {
		name   string
		header http.Header
		ranges bool
		limit  int
		google bool
		want   string // of the error
		is     error
	}{
		{name: "whole", limit: len(data)},
		{name: "tag", header: http.Header{"Etag": {`"1"`}}, ranges: true, limit: 30_000},
		{name: "time", header: http.Header{"Last-Modified": {"Wed, 01 Jan 2020 00:00:00 GMT"}}, ranges: true, limit: 30_000},
		{name: "without ranges", header: http.Header{"Etag": {`"1"`}}, limit: 30_000},
		{name: "without versions", ranges: true, limit: 30_000, want: "does not say whether"},
		{name: "weak tag", header: http.Header{"Etag": {`W/"1"`}}, ranges: true, limit: 30_000, want: "does not say whether"},
		{name: "google", google: true, header: http.Header{"X-Goog-Generation": {"7"}, "X-Goog-Hash": {"md5=" + base64.StdEncoding.EncodeToString(sum[:])}}, ranges: true, limit: 30_000},
		{name: "wrong sum", google: true, header: http.Header{"X-Goog-Generation": {"7"}, "X-Goog-Hash": {"crc32c=AAAAAA=="}}, ranges: true, limit: 30_000, is: ErrChecksum, want: "crc32c"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := &shop{data: data, header: tt.header, ranges: tt.ranges, limit: tt.limit}
			srv := serve(t, s.ServeHTTP)
			object, err := WebObject(srv.URL+"/x", HTTPOptions{Network: network()})
			if tt.google {
				object, err = GoogleObject("b", "x", GoogleOptions{Endpoint: srv.URL}, noToken, network())
			}
			if err != nil {
				t.Fatal(err)
			}
			defer object.Close()
			r, err := OpenObject(t.Context(), object, network())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = r.Close() }()
			got, err := io.ReadAll(r)
			if tt.want == "" {
				if err != nil || !bytes.Equal(got, data) {
					t.Fatalf("%d bytes, %v, asked for %q", len(got), err, s.asked)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

// TestStreamWithoutEnd has a server that does not say how long its file is, and goes on and on.
func TestStreamWithoutEnd(t *testing.T) {
	srv := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 10_000)); err != nil {
				return
			}
		}
	})
	object, err := WebObject(srv.URL+"/x", HTTPOptions{Network: network(), MaxBytes: 50_000})
	if err != nil {
		t.Fatal(err)
	}
	defer object.Close()
	r, err := OpenObject(t.Context(), object, network())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if n, err := io.Copy(io.Discard, r); !errors.Is(err, ErrLimit) || n > 50_001 {
		t.Errorf("%d bytes, error %v", n, err)
	}
}

func TestStreamOfS3(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 10_000)
	sum := md5.Sum(data)
	for _, tt := range []struct {
		name, tag string
		wrong     bool
	}{
		{"MD5", fmt.Sprintf(`"%x"`, sum), false},
		{"of parts", `"0123456789abcdef0123456789abcdef-2"`, false},
		{"wrong", `"0123456789abcdef0123456789abcdef"`, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &shop{data: data, header: http.Header{"Etag": {tt.tag}}, ranges: true, limit: 30_000}
			srv := serve(t, s.ServeHTTP)
			c := aws.Config{Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("k", "s", "")}
			r, err := OpenObject(t.Context(), S3Object(c, "b", "x", S3Options{Endpoint: srv.URL, PathStyle: true}, network()), network())
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r)
			if tt.wrong {
				if !errors.Is(err, ErrChecksum) {
					t.Errorf("error %v", err)
				}
				return
			}
			if err != nil || !bytes.Equal(got, data) || len(s.asked) < 2 {
				t.Errorf("%d bytes, %v, asked for %q", len(got), err, s.asked)
			}
		})
	}
}

// clouds are an object in each of the stores that an SDK asks.
func clouds(t *testing.T, url string, n Network) map[string]Object {
	t.Helper()
	azure, err := AzureObject(url+"/account/b/x", AzureOptions{Endpoint: url + "/account", Key: "a2V5"}, n)
	if err != nil {
		t.Fatal(err)
	}
	c := aws.Config{Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("k", "s", "session")}
	return map[string]Object{"s3": S3Object(c, "b", "x", S3Options{Endpoint: url, PathStyle: true}, n), "azure": azure}
}

// TestStreamOfAStore does what the stores' SDKs would not do by themselves: it goes on when a server falls silent, and follows redirects
// with care.
func TestStreamOfAStore(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 10_000)
	t.Run("silent", func(t *testing.T) {
		n := network()
		n.Timing.NoProgress = 200 * time.Millisecond
		done := make(chan struct{})
		s := &shop{data: data, header: http.Header{"Etag": {`"1"`}}, ranges: true, limit: len(data)}
		srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range")+r.Header.Get("X-Ms-Range") != "" {
				if r.Header.Get("Range") == "" {
					r.Header.Set("Range", r.Header.Get("X-Ms-Range"))
				}
				s.ServeHTTP(w, r)
				return
			}
			w.Header().Set("Etag", `"1"`)
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
			_, _ = w.Write(data[:30_000])
			_ = http.NewResponseController(w).Flush()
			<-done
		})
		defer close(done)
		for name, o := range clouds(t, srv.URL, n) {
			r, err := OpenObject(t.Context(), o, n)
			if err != nil {
				t.Fatal(name, err)
			}
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s: %d bytes, %v", name, len(got), err)
			}
		}
	})
	t.Run("stored compressed", func(t *testing.T) {
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		_, _ = z.Write(data)
		_ = z.Close()
		sum := md5.Sum(packed.Bytes())
		s := &shop{data: packed.Bytes(), header: http.Header{
			"Etag": {fmt.Sprintf(`"%x"`, sum)}, "Content-Md5": {base64.StdEncoding.EncodeToString(sum[:])}, "Content-Encoding": {"gzip"},
		}, limit: packed.Len()}
		srv := serve(t, s.ServeHTTP)
		for name, o := range clouds(t, srv.URL, network()) {
			r, err := OpenObject(t.Context(), o, network())
			if err != nil {
				t.Fatal(name, err)
			}
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, packed.Bytes()) {
				t.Errorf("%s: %d bytes, not %d as they are stored; %v", name, len(got), packed.Len(), err)
			}
		}
	})
	t.Run("redirected", func(t *testing.T) {
		srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://169.254.169.254/latest", http.StatusTemporaryRedirect)
		})
		for name, o := range clouds(t, srv.URL, network()) {
			if _, err := OpenObject(t.Context(), o, network()); !errors.Is(err, ErrForbidden) || !strings.Contains(err.Error(), "169.254.169.254 is a link-local or metadata address") {
				t.Errorf("%s: error %v", name, err)
			}
		}
	})
}

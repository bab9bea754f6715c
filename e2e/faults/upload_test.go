// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kaniko-go/kaniko-go/builder/registry"
)

// recorder writes down what PATCH and PUT were sent, and lets a limit be set to the length of their bodies.
type recorder struct {
	mu    sync.Mutex
	lines []string
	limit int64 // of a body; 0: none
	cutAt int   // the number of the PATCH whose second half is lost; 0: none
	sent  int
}

func (c *recorder) fault(r *Registry, w http.ResponseWriter, req *http.Request) {
	c.mu.Lock()
	c.sent++
	cut := c.sent == c.cutAt
	c.lines = append(c.lines, strings.TrimSpace(fmt.Sprintf("%s %d %s", req.Method, req.ContentLength, req.Header.Get("Content-Range"))))
	c.mu.Unlock()
	switch {
	case c.limit > 0 && req.ContentLength > c.limit:
		_, _ = io.Copy(io.Discard, req.Body)
		w.WriteHeader(http.StatusRequestEntityTooLarge)
	case cut:
		within(r, w, req)
	default:
		r.answer(w, req)
	}
}

// counted counts how often a layer is opened, and its bytes that are read.
type counted struct {
	v1.Layer
	mu    sync.Mutex
	opens int
}

func (l *counted) Compressed() (io.ReadCloser, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.opens++
	return l.Layer.Compressed()
}

func TestUploads(t *testing.T) {
	const size = 20 << 20
	tests := []struct {
		name    string
		limit   int64
		cutAt   int
		silent  bool // the registry tells nothing of interrupted uploads
		size    int
		want    []string
		opens   int
		another []string // what a second layer of 1.5 MiB then makes
	}{
		{name: "one part", size: size, want: []string{"PATCH 20971520"}, opens: 1, another: []string{"PATCH 1572864"}},
		{name: "cut", size: size, cutAt: 1, want: []string{"PATCH 20971520", "PATCH 10485760 10485760-20971519"}, opens: 2, another: []string{"PATCH 1572864"}},
		{name: "cut, and nothing told", size: size, cutAt: 1, silent: true, want: []string{"PATCH 20971520", "PATCH 20971520"}, opens: 2, another: []string{"PATCH 1572864"}},
		{
			name: "10 MB at the most", size: size, limit: 10_000_000, want: []string{"PATCH 20971520", "PATCH 8388608 0-8388607", "PATCH 8388608 8388608-16777215", "PATCH 4194304 16777216-20971519"},
			opens: 2, another: []string{"PATCH 1572864"},
		},
		{
			name: "10 MB at the most, and cut", size: size, limit: 10_000_000, cutAt: 3,
			want:  []string{"PATCH 20971520", "PATCH 8388608 0-8388607", "PATCH 8388608 8388608-16777215", "PATCH 8388608 12582912-20971519"},
			opens: 3, another: []string{"PATCH 1572864"},
		},
		{name: "1 MB at the most", size: 1 << 20, limit: 1_000_000, want: []string{"PATCH 1048576", "PATCH 524288 0-524287", "PATCH 524288 524288-1048575"}, opens: 2, another: []string{
			"PATCH 524288 0-524287", "PATCH 524288 524288-1048575", "PATCH 524288 1048576-1572863",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := New(t, true)
			c := &recorder{limit: tt.limit, cutAt: tt.cutAt}
			r.Break(Point{Kind: "patch"}, c.fault)
			if tt.silent {
				r.Silence()
			}
			now := &clock{}
			client, err := registry.New(registry.Options{Clock: registry.Clock{Now: now.Now, Sleep: now.Sleep}, Proxy: func(*http.Request) (*url.URL, error) { return nil, nil }})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			upload := func(size int) int {
				b := bytes.Repeat([]byte("0123456789abcdef"), size/16)
				l := &counted{Layer: static.NewLayer(b, types.OCILayer)}
				if err := client.Upload(t.Context(), r.Host+"/app:1", l); err != nil {
					t.Fatal(err)
				}
				d, err := l.Digest()
				if err != nil {
					t.Fatal(err)
				}
				if got := content(t, r.blob(t, "app", d)); !bytes.Equal(got, b) {
					t.Errorf("%d bytes are stored, and others", len(got))
				}
				return l.opens
			}
			opens := upload(tt.size)
			if d := cmp.Diff(tt.want, c.lines); d != "" || opens != tt.opens {
				t.Errorf("sent (-want +got):\n%s\nthe layer was opened %d times, want %d", d, opens, tt.opens)
			}
			c.lines = nil
			upload(3 << 19)
			if d := cmp.Diff(tt.another, c.lines); d != "" {
				t.Errorf("then sent (-want +got):\n%s", d)
			}
		})
	}
}

// blob is what is stored.
func (r *Registry) blob(t *testing.T, repo string, d v1.Hash) v1.Layer {
	t.Helper()
	rc, err := r.Backend.GetBlob(t.Context(), repo, ociregistry.Digest(d.String()))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(rc)
	if err != nil {
		t.Fatal(err)
	}
	return static.NewLayer(b, types.OCILayer)
}

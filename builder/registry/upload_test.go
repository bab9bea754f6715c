// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// events collects the operations that finished.
type events struct {
	mu  sync.Mutex
	ops []string
	max int64
}

func (e *events) add(ev Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.max = max(e.max, ev.Done)
	if ev.Finished {
		e.ops = append(e.ops, ev.Op)
	}
}

func randomLayer(t *testing.T, size int64) v1.Layer {
	t.Helper()
	l, err := random.Layer(size, types.OCILayer)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestUploadOnce(t *testing.T) {
	f := newFake(t)
	var seen events
	c := newClient(t, Options{Progress: seen.add})
	l := randomLayer(t, 3<<20)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := c.Upload(context.Background(), f.Host+"/a:1", l); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := f.count("PATCH", ""); n != 1 {
		t.Errorf("sent %d times", n)
	}
	if diff := cmp.Diff([]string{"push"}, seen.ops); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	// Another client finds it there.
	var again events
	if err := newClient(t, Options{Progress: again.add}).Upload(context.Background(), f.Host+"/a", l); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"exists"}, again.ops); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// mounting is a registry that mounts, or that fails to in its way.
func mounting(status int) fault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost || r.URL.Query().Get("mount") == "" {
			return false
		}
		if status == http.StatusAccepted {
			w.Header().Set("Location", r.URL.Path+"12345")
		}
		w.WriteHeader(status)
		return true
	}
}

func TestMount(t *testing.T) {
	tests := []struct {
		name   string
		status int
		want   string
	}{
		{"mounted", 201, "mount"},
		{"session instead", 202, "push"},
		{"401", 401, "push"},
		{"403", 403, "push"},
		{"404", 404, "push"},
		{"405", 405, "push"},
		{"500", 500, "push"},
		{"429", 429, "push"},
	}
	for _, tt := range tests {
		for _, known := range []bool{true, false} {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				f := newFake(t, mounting(tt.status))
				img := randomImage(t, 1000, 1)
				publish(t, f.Host+"/base:1", img)
				var seen events
				c := newClient(t, Options{Progress: seen.add})
				layers, err := img.Layers()
				if err != nil {
					t.Fatal(err)
				}
				l := layers[0]
				if known {
					if _, err := c.Resolve(context.Background(), f.Host+"/base:1", amd64); err != nil {
						t.Fatal(err)
					}
				} else {
					ref, err := name.ParseReference(f.Host + "/base:1")
					if err != nil {
						t.Fatal(err)
					}
					l = &remote.MountableLayer{Layer: l, Reference: ref}
				}
				// The in-process registry has one set of blobs for all repositories.
				f.add(times(1, "HEAD", "/v2/app/blobs/", 404))
				if err := c.Upload(context.Background(), f.Host+"/app:1", l); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff([]string{tt.want}, seen.ops); diff != "" {
					t.Errorf("events (-want +got):\n%s", diff)
				}
				if n := f.count("POST", "mount="); n != 1 {
					t.Errorf("%d attempts to mount, want 1", n)
				}
				if f.count("POST", "from=base") != 1 {
					t.Error("not mounted from base")
				}
			})
		}
	}
}

// A part of an upload that fails begins the upload again, and the session is given
// back.
func TestUploadFaults(t *testing.T) {
	cut := func(n int) fault {
		var mu sync.Mutex
		return func(_ http.ResponseWriter, r *http.Request) bool {
			mu.Lock()
			defer mu.Unlock()
			if r.Method != http.MethodPatch || n == 0 {
				return false
			}
			n--
			_, _ = io.CopyN(io.Discard, r.Body, 100_000)
			panic(http.ErrAbortHandler) // the connection is cut
		}
	}
	tests := []struct {
		name  string
		fault fault
		class Class
		sent  int
	}{
		{"cut twice", cut(2), 0, 3},
		{"cut for ever", cut(always), Transient, 0},
		{"500 on PATCH", times(2, "PATCH", "/uploads/", 500), 0, 3},
		{"503 with Retry-After on PATCH", times(1, "PATCH", "/uploads/", 503, "Retry-After", "1"), 0, 2},
		{"500 on commit", times(1, "PUT", "/uploads/", 500), 0, 2},
		{"HEAD not known", times(always, "HEAD", "/blobs/", 405), 0, 1},
		{"session lost", times(1, "PATCH", "/uploads/", 404), Refused, 1},
		{"digest refused", deny("PUT", "/uploads/", 400, `{"errors":[{"code":"DIGEST_INVALID"}]}`), Integrity, 1},
		{"stored as another", wrongDigest("/uploads/"), Integrity, 1},
		{"Location with another scheme", func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPost {
				w.Header().Set("Location", "ftp://")
				w.WriteHeader(http.StatusAccepted)
				return true
			}
			return false
		}, Refused, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t, tt.fault)
			err := newClient(t, Options{}).Upload(context.Background(), f.Host+"/a:1", randomLayer(t, 1<<20))
			if tt.class != 0 {
				wantError(t, err, tt.class, f.Host)
			} else if err != nil {
				t.Fatal(err)
			}
			if n := f.count("PATCH", ""); tt.sent != 0 && n != tt.sent {
				t.Errorf("sent %d times, want %d", n, tt.sent)
			}
			if sessions, ended := f.count("POST", "/uploads/"), f.count("DELETE", "/uploads/")+f.count("PUT", "/uploads/"); tt.class == 0 && ended < sessions {
				t.Errorf("%d sessions, %d ended", sessions, ended)
			}
		})
	}
}

// brokenLayer fails or lies while it is read.
type brokenLayer struct {
	v1.Layer
	read func() (io.ReadCloser, error)
}

func (b brokenLayer) Compressed() (io.ReadCloser, error) { return b.read() }

func TestUploadBrokenLayer(t *testing.T) {
	f := newFake(t)
	l := randomLayer(t, 1000)
	size, err := l.Size()
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, Options{})
	up := func(read func() (io.ReadCloser, error)) error {
		return c.Upload(context.Background(), f.Host+"/a:1", brokenLayer{l, read})
	}
	err = up(func() (io.ReadCloser, error) { return nil, os.ErrNotExist })
	var e *Error
	if !errors.Is(err, os.ErrNotExist) || errors.As(err, &e) {
		t.Errorf("missing file: %v", err)
	}
	other := strings.Repeat("x", int(size))
	for name, content := range map[string]string{"changed": other, "longer": other + "x", "shorter": other[1:]} {
		err = up(func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil })
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		wantError(t, err, Integrity, "changed since it was made")
	}
	f.forget()
	var again events
	if err := newClient(t, Options{Progress: again.add}).Upload(context.Background(), f.Host+"/a:1", l); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"push"}, again.ops); diff != "" {
		t.Errorf("a broken layer was committed (-want +got):\n%s", diff)
	}
}

func TestUploadEndsWithContext(t *testing.T) {
	started, over := make(chan struct{}), make(chan struct{})
	f := newFake(t, func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPatch {
			close(started)
			<-over // its own context does not end while the body is not read
			return true
		}
		return false
	})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-started
		cancel()
	}()
	err := newClient(t, Options{}).Upload(ctx, f.Host+"/a:1", randomLayer(t, 8<<20))
	close(over)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v, want canceled", err)
	}
	if f.count("DELETE", "/uploads/") != 1 {
		t.Error("the session was not given back")
	}
}

func TestCheckPush(t *testing.T) {
	f := newFake(t)
	c := newClient(t, Options{})
	for range 2 {
		if err := c.CheckPush(context.Background(), f.Host+"/a:1"); err != nil {
			t.Fatal(err)
		}
	}
	if posts, deletes := f.count("POST", ""), f.count("DELETE", ""); posts != 1 || deletes != 1 {
		t.Errorf("%d sessions begun, %d given back, want 1 and 1", posts, deletes)
	}
	denied := newFake(t, deny("POST", "/uploads/", 403, `{"errors":[{"code":"DENIED","message":"read only"}]}`))
	wantError(t, c.CheckPush(context.Background(), denied.Host+"/a:1"), Refused, "check push to "+denied.Host+"/a:1", "read only")
}

// The registry comes up only after the first attempts, as in a fresh pod.
func TestCheckPushWaitsForTheNetwork(t *testing.T) {
	f := newFake(t)
	f.Close()
	c := newClient(t, Options{})
	err := c.CheckPush(context.Background(), f.Host+"/a:1")
	wantError(t, err, Transient, "cannot reach "+f.Host, "connection refused")

	timing := fast
	timing.ConnectBudget = timing.RetryBudget
	late := newClient(t, Options{Timing: timing})
	done := make(chan error, 1)
	go func() { done <- late.CheckPush(context.Background(), f.Host+"/a:1") }()
	back := &http.Server{Handler: f.handler()}
	ln := listen(t, f.Host)
	t.Cleanup(func() { _ = back.Close() })
	go func() { _ = back.Serve(ln) }()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

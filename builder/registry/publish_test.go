// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

func TestPublishImage(t *testing.T) {
	f, g := newFake(t), newFake(t)
	img := randomImage(t, 4096, 3)
	c := newClient(t, Options{})
	res, err := c.Publish(context.Background(), []string{f.Host + "/a:one", f.Host + "/a:two", f.Host + "/b", g.Host + "/c:x", f.Host + "/a:one"}, img)
	if err != nil {
		t.Fatal(err)
	}
	d := digestOf(t, img).String()
	var refs []string
	for _, r := range res.Refs {
		refs = append(refs, r.String())
	}
	want := []string{f.Host + "/a:one@" + d, f.Host + "/a:two@" + d, f.Host + "/b:latest@" + d, g.Host + "/c:x@" + d}
	if diff := cmp.Diff(want, refs); diff != "" {
		t.Errorf("refs (-want +got):\n%s", diff)
	}
	if len(res.Warnings) > 0 {
		t.Errorf("warnings: %q", res.Warnings)
	}
	for _, r := range want {
		ref, err := name.ParseReference(r)
		if err != nil {
			t.Fatal(err)
		}
		back, err := remote.Image(ref)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Image(back); err != nil {
			t.Error(err)
		}
	}
}

func TestPublishIndex(t *testing.T) {
	f := newFake(t)
	idx, err := random.Index(1024, 2, 3)
	if err != nil {
		t.Fatal(err)
	}
	publish(t, f.Host+"/idx:v1", idx)
	ref, err := name.ParseReference(f.Host + "/idx:v1")
	if err != nil {
		t.Fatal(err)
	}
	back, err := remote.Index(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(back); err != nil {
		t.Error(err)
	}
}

// A second run with the same bytes changes nothing and sends nothing.
func TestPublishAgainOnlyLooks(t *testing.T) {
	f := newFake(t)
	img := randomImage(t, 1024, 2)
	publish(t, f.Host+"/a:v1", img)
	f.forget()
	publish(t, f.Host+"/a:v1", img)
	for _, method := range []string{"PUT", "POST", "PATCH", "DELETE"} {
		if n := f.count(method, ""); n != 0 {
			t.Errorf("%d %s requests in the second run", n, method)
		}
	}
}

// The tags move after every blob and manifest is in place in every repository.
func TestTagsMoveLast(t *testing.T) {
	f := newFake(t)
	publish(t, f.Host+"/a:v1", randomImage(t, 64, 1))
	f.forget()
	res, err := newClient(t, Options{}).Publish(context.Background(), []string{f.Host + "/a:v1", f.Host + "/b:v1"}, randomImage(t, 1024, 3))
	if err != nil {
		t.Fatal(err)
	}
	lastContent, firstTag := -1, -1
	for i, r := range f.requests {
		switch {
		case strings.HasPrefix(r, "PUT ") && strings.HasSuffix(r, "/manifests/v1"):
			if firstTag < 0 {
				firstTag = i
			}
		case strings.HasPrefix(r, "PUT "), strings.HasPrefix(r, "PATCH "), strings.HasPrefix(r, "POST "):
			lastContent = i
		}
	}
	if lastContent < 0 || firstTag < lastContent {
		t.Errorf("first tag is request %d, last content %d:\n%s", firstTag, lastContent, strings.Join(f.requests, "\n"))
	}
	if got := f.count("GET "+manifestPath("b", res.Digest.String()), ""); got == 0 {
		t.Error("the manifest was not read back by digest")
	}
	if got := f.count("GET "+manifestPath("b", "v1"), ""); got == 0 {
		t.Error("the tag was not read back")
	}
}

func TestPublishFaults(t *testing.T) {
	old := randomImage(t, 64, 1)
	other := randomImage(t, 65, 1)
	img := randomImage(t, 4096, 2)
	digest := digestOf(t, img).String()
	otherRaw, err := other.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		fault   fault
		class   Class // 0: success
		says    []string
		warning string
	}{
		{name: "429 with Retry-After, then fine", fault: times(1, "PUT", "/manifests/", 429, "Retry-After", "1")},
		{name: "500 twice on every kind of request", fault: func() fault {
			left := map[string]int{}
			var busy atomic.Bool
			return func(w http.ResponseWriter, r *http.Request) bool {
				for !busy.CompareAndSwap(false, true) {
					time.Sleep(time.Millisecond)
				}
				defer busy.Store(false)
				if left[r.Method]++; left[r.Method] > 2 || r.URL.Path == "/v2/" {
					return false
				}
				w.WriteHeader(500)
				return true
			}
		}()},
		{name: "503 for ever", fault: times(always, "PUT", "/manifests/", 503), class: Transient, says: []string{"503 Service Unavailable"}},
		{
			name: "denied at the upload", fault: deny("POST", "/blobs/uploads/", 403, `{"errors":[{"code":"DENIED","message":"no push for you\u001b[31m"}]}`),
			class: Refused, says: []string{"403 Forbidden", "DENIED: no push for you", `\x1b[31m`},
		},
		{
			name: "immutable tag", fault: deny("PUT", "/manifests/v1", 400, `{"errors":[{"code":"TAG_INVALID","message":"immutable"}]}`),
			class: Refused, says: []string{"TAG_INVALID", digestOf(t, old).String(), digest, "immutable"},
		},
		{name: "quota", fault: deny("PUT", "/uploads/", 507, ""), class: Refused, says: []string{"quota"}},
		{name: "413 from a proxy", fault: deny("PUT", "/uploads/", 413, "<html>\n<body>too big"), class: Refused, says: []string{"413", "proxy"}},
		{name: "manifest accepted and lost", fault: swallow("/manifests/" + digest), class: Integrity, says: []string{"accepted manifest", digest}},
		{name: "tag keeps its old digest", fault: swallow("/manifests/v1"), class: Integrity, says: []string{"still points to", digestOf(t, old).String()}},
		{name: "manifest reads back different", fault: answerGet("/manifests/"+digest, 200, otherRaw), class: Integrity},
		{name: "somebody else pushed", fault: answerGet("/manifests/v1", 200, otherRaw), warning: "somebody else"},
		{name: "reading not allowed", fault: answerGet("/", 403, nil), warning: "does not allow reading"},
		{name: "reading not allowed and no digest answered", fault: hideDigest(answerGet("/", 405, nil)), class: Integrity, says: []string{"cannot be verified"}},
		{name: "manifest stored as another digest", fault: wrongDigest("/manifests/"), class: Integrity, says: []string{"was stored as"}},
		{name: "PATCH not known", fault: monolithic()},
		{name: "wrong HEAD for blobs", fault: lyingHead(), class: 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			publish(t, f.Host+"/a:v1", old)
			f.add(tt.fault)
			res, err := newClient(t, unhurried()).Publish(context.Background(), []string{f.Host + "/a:v1"}, img)
			if tt.class != 0 {
				wantError(t, err, tt.class, append(tt.says, f.Host+"/a")...)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(res.Warnings, "\n"); (tt.warning == "" && got != "") || !strings.Contains(got, tt.warning) || len(res.Warnings) > 1 {
				t.Errorf("warnings %q, want one with %q", res.Warnings, tt.warning)
			}
			f.heal()
			ref, err := name.ParseReference(f.Host + "/a@" + digest)
			if err != nil {
				t.Fatal(err)
			}
			back, err := remote.Image(ref)
			if err != nil {
				t.Fatal(err)
			}
			if err := validate.Image(back); err != nil {
				t.Error(err)
			}
		})
	}
}

// unhurried are options under which nothing depends on how busy the machine is: waits pass at once, and attempts may take long.
func unhurried() Options {
	var passed atomic.Int64
	start := time.Now()
	return Options{
		Timing: Timing{FirstDelay: fast.FirstDelay, RetryAfterCap: fast.RetryAfterCap},
		Clock: Clock{
			Now: func() time.Time { return start.Add(time.Duration(passed.Load())) },
			Sleep: func(ctx context.Context, d time.Duration) error {
				passed.Add(int64(d))
				return context.Cause(ctx)
			},
		},
	}
}

func deny(method, part string, status int, body string) fault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != method || !strings.Contains(r.URL.Path, part) {
			return false
		}
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
		return true
	}
}

// swallow answers 201 to a PUT and forgets it.
func swallow(part string) fault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut || !strings.HasSuffix(r.URL.Path, part) {
			return false
		}
		w.WriteHeader(http.StatusCreated)
		return true
	}
}

// answerGet answers reads (and HEADs, when they are forbidden) of a path.
func answerGet(part string, status int, body []byte) fault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/v2/" || !strings.Contains(r.URL.Path, part) || (r.Method != http.MethodGet && (status == 200 || r.Method != http.MethodHead)) {
			return false
		}
		w.Header().Set("Content-Type", "application/vnd.docker.distribution.manifest.v2+json")
		w.WriteHeader(status)
		_, _ = w.Write(body)
		return true
	}
}

// hideDigest removes what a PUT would tell about the digest.
func hideDigest(inner fault) fault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/") {
			w.WriteHeader(http.StatusCreated)
			return true
		}
		return inner(w, r)
	}
}

func wrongDigest(part string) fault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut || !strings.Contains(r.URL.Path, part) {
			return false
		}
		w.Header().Set("Docker-Content-Digest", "sha256:"+strings.Repeat("0", 64))
		w.WriteHeader(http.StatusCreated)
		return true
	}
}

// monolithic is a registry that takes the bytes with the PUT only. The in-process
// one does not, so that the PUT is translated for it.
func monolithic() fault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.Method == http.MethodPatch && r.Header.Get("X-Translated") == "":
			w.WriteHeader(http.StatusMethodNotAllowed)
			return true
		case r.Method == http.MethodPut && r.URL.Query().Has("digest") && r.ContentLength > 0:
			patch := httptest.NewRequest(http.MethodPatch, "http://"+r.Host+r.URL.Path, r.Body)
			patch.Header.Set("X-Translated", "yes")
			patch.RequestURI = ""
			patch.ContentLength = r.ContentLength
			// Through the server again: its handler is not known here.
			resp, err := http.DefaultClient.Do(patch)
			if err != nil {
				w.WriteHeader(http.StatusTeapot)
				return true
			}
			_ = resp.Body.Close()
			r.Body, r.ContentLength = http.NoBody, 0
		}
		return false
	}
}

// lyingHead affirms every blob; the manifest is refused while one is missing.
func lyingHead() fault {
	var sent atomic.Int32
	return func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.Method == http.MethodHead && strings.Contains(r.URL.Path, "/blobs/"):
			w.WriteHeader(http.StatusOK)
			return true
		case r.Method == http.MethodPut && r.URL.Query().Has("digest"):
			sent.Add(1)
		case r.Method == http.MethodPut && sent.Load() == 0:
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown"}]}`)
			return true
		}
		return false
	}
}

// A registry that accepts blobs and loses them is found out before a tag moves.
func TestLostBlob(t *testing.T) {
	f := newFake(t)
	img := randomImage(t, 512, 1)
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	lost := digestOf(t, layers[0]).String()
	f.add(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, lost) {
			w.WriteHeader(http.StatusNotFound)
			return true
		}
		return false
	})
	_, err = newClient(t, Options{}).Publish(context.Background(), []string{f.Host + "/a:v1"}, img)
	wantError(t, err, Integrity, "accepted blob", lost)
	if n := f.count("PUT", "/manifests/v1"); n != 0 {
		t.Error("a tag moved")
	}
}

// The failure of a later tag says which tags have moved.
func TestMovedTagsAreNamed(t *testing.T) {
	f := newFake(t, deny("PUT", "/manifests/two", 403, `{"errors":[{"code":"DENIED","message":"protected"}]}`))
	_, err := newClient(t, Options{}).Publish(context.Background(), []string{f.Host + "/a:one", f.Host + "/a:two"}, randomImage(t, 64, 1))
	e := wantError(t, err, Refused, "DENIED", f.Host+"/a:two")
	if diff := cmp.Diff([]string{f.Host + "/a:one"}, e.Moved); diff != "" {
		t.Errorf("moved (-want +got):\n%s", diff)
	}
}

func TestBadDestinations(t *testing.T) {
	c := newClient(t, Options{})
	for _, dest := range []string{"host/x@sha256:" + strings.Repeat("a", 64), "host/x:1@sha256:" + strings.Repeat("a", 64), "UPPER/Case:1", "a b"} {
		_, err := c.Publish(context.Background(), []string{dest}, randomImage(t, 8, 1))
		wantError(t, err, Invalid)
	}
	_, err := c.Publish(context.Background(), nil, randomImage(t, 8, 1))
	wantError(t, err, Invalid, "no destination")
}

// An image whose parts do not belong together is not pushed.
func TestIncoherentImage(t *testing.T) {
	img := randomImage(t, 64, 1)
	_, err := newClient(t, Options{}).Publish(context.Background(), []string{"localhost:1/a"}, swapped{img, randomImage(t, 65, 1)})
	wantError(t, err, Integrity, "names the config")
}

type swapped struct {
	v1.Image
	other v1.Image
}

func (s swapped) RawConfigFile() ([]byte, error) {
	other, err := mutate.Canonical(s.other)
	if err != nil {
		return nil, err
	}
	return other.RawConfigFile()
}

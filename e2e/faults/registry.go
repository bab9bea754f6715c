// SPDX-License-Identifier: Apache-2.0

// Package faults is a registry that does what the OCI distribution specification says until a script makes it fail: at the n-th request
// of one kind it breaks the connection, lies, repeats itself or answers what registries and the proxies before them answer on bad
// days. Its tests push and pull through such failures and look at what is left. With faults off it passes the specification's own
// conformance suite. It keeps everything in memory, asks for tokens, and is for tests only.
package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"cuelabs.dev/go/oci/ociregistry"
	"cuelabs.dev/go/oci/ociregistry/ocimem"
	"cuelabs.dev/go/oci/ociregistry/ociserver"
)

// Kind is a class of requests, as [KindOf] names it.
type Kind string

// KindOf names what a request is for: "PUT tag", "GET blob", "mount", ...
func KindOf(r *http.Request) Kind {
	path := r.URL.Path
	last := path[strings.LastIndexByte(path, '/')+1:]
	switch {
	case path == "/token":
		return "token"
	case path == "/v2/":
		return "ping"
	case strings.HasSuffix(path, "/blobs/uploads/") && r.URL.Query().Has("mount"):
		return "mount"
	case strings.HasSuffix(path, "/blobs/uploads/"):
		return "begin"
	case strings.Contains(path, "/blobs/uploads/"):
		return Kind(map[string]string{http.MethodPatch: "patch", http.MethodPut: "commit", http.MethodGet: "status", http.MethodDelete: "cancel"}[r.Method])
	case strings.Contains(path, "/blobs/"):
		return Kind(r.Method + " blob")
	case strings.Contains(path, "/manifests/") && strings.HasPrefix(last, "sha256:"):
		return Kind(r.Method + " manifest")
	case strings.Contains(path, "/manifests/"):
		return Kind(r.Method + " tag")
	}
	return Kind(r.Method + " other")
}

// Point is when a fault happens: at the Nth request of a kind below a repository, counted from 1; at every one for 0.
type Point struct {
	Kind Kind
	Repo string // the beginning of the repository's name; "" for any, and for requests that name none
	Nth  int
}

func (p Point) String() string {
	when := "every"
	if p.Nth > 0 {
		when = fmt.Sprint(p.Nth)
	}
	return strings.TrimSpace(fmt.Sprintf("%s %s %s", p.Repo, p.Kind, when))
}

// User may do everything here, with Password.
const (
	User     = "user"
	Password = "Passw0rd-of-the-faulty-registry"
)

// Registry is the registry. Its methods may be called while it serves.
type Registry struct {
	Host string
	// Backend is what is really stored.
	Backend ociregistry.Interface

	server *httptest.Server
	inner  http.Handler

	mu       sync.Mutex
	point    Point
	fault    Fault
	seen     int // requests that the point is about
	happened int
	silent   bool
	tokens   map[string]bool
	requests []string
}

// New starts an empty one, which ends with the test. A registry that is open asks nobody who they are.
func New(t *testing.T, open bool) *Registry {
	t.Helper()
	r := &Registry{}
	r.Reset()
	handler := http.Handler(http.HandlerFunc(r.serve))
	if !open {
		handler = http.HandlerFunc(r.guarded)
	}
	r.server = httptest.NewServer(handler)
	r.Host = strings.TrimPrefix(r.server.URL, "http://")
	t.Cleanup(r.server.Close)
	return r
}

// Reset empties it and makes it faultless. Nobody may be asking it something.
func (r *Registry) Reset() {
	backend := ocimem.NewWithConfig(&ocimem.Config{LaxChildReferences: true}) // it refuses too much; see conform
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Backend, r.inner = backend, ociserver.New(backend, nil)
	r.point, r.fault, r.seen, r.happened, r.tokens, r.requests = Point{}, nil, 0, 0, map[string]bool{}, nil
}

// Break makes it fail at a point.
func (r *Registry) Break(p Point, f Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.point, r.fault, r.seen, r.happened = p, f, 0, 0
}

// Happened counts the faults that there were, and lists all requests.
func (r *Registry) Happened() (faults int, requests []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.happened, append([]string{}, r.requests...)
}

// Silence makes it tell nothing of uploads that are under way.
func (r *Registry) Silence() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.silent = true
}

// Expire makes all tokens worthless.
func (r *Registry) Expire() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tokens = map[string]bool{}
}

// Has returns what is stored under a digest or a tag, and whether there is anything.
func (r *Registry) Has(ctx context.Context, repo, tag string) (digest string, ok bool) {
	d, err := r.Backend.ResolveTag(ctx, repo, tag)
	return string(d.Digest), err == nil
}

// guarded lets in who has a token, and gives tokens.
func (r *Registry) guarded(w http.ResponseWriter, req *http.Request) {
	if req.URL.Path == "/token" {
		r.serve(w, req)
		return
	}
	token := strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")
	r.mu.Lock()
	valid := r.tokens[token]
	r.mu.Unlock()
	if !valid && !r.due(req, false) {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf("Bearer realm=%q,service=\"faults\"", "http://"+r.Host+"/token"))
		refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
		return
	}
	r.serve(w, req)
}

// due tells whether the fault happens at a request, which is counted if count says so: one is looked at before its token is.
func (r *Registry) due(req *http.Request, count bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.point
	if r.fault == nil || p.Kind != KindOf(req) || p.Repo != "" && !strings.HasPrefix(req.URL.Path, "/v2/"+p.Repo) {
		return false
	}
	seen := r.seen + 1
	if count {
		r.seen = seen
		r.requests = append(r.requests, "fault:")
	}
	hit := p.Nth == 0 || p.Nth == seen
	if hit && count {
		r.happened++
	}
	return hit
}

func (r *Registry) serve(w http.ResponseWriter, req *http.Request) {
	hit := r.due(req, true)
	r.mu.Lock()
	fault := r.fault
	r.requests = append(r.requests, req.Method+" "+req.URL.RequestURI())
	r.mu.Unlock()
	if hit {
		fault(r, w, req)
		return
	}
	r.answer(w, req)
}

// answer does what is right.
func (r *Registry) answer(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	silent := r.silent
	r.mu.Unlock()
	switch {
	case req.URL.Path == "/token":
		r.token(w, req)
	case silent && KindOf(req) == "status":
		refuse(w, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "no such upload")
	default:
		r.conform(w, req)
	}
}

func (r *Registry) token(w http.ResponseWriter, req *http.Request) {
	if user, password, _ := req.BasicAuth(); user != User || password != Password {
		refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "wrong password")
		return
	}
	r.mu.Lock()
	token := fmt.Sprintf("token-%d", len(r.requests))
	r.tokens[token] = true
	r.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "expires_in": 300})
}

// refuse answers in the specification's form.
func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": []map[string]string{{"code": code, "message": message}}})
}

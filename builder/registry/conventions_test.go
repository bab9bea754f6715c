// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	ggcrregistry "github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// convention is what a registry may do in its own way.
type convention struct {
	name     string
	login    string // basic; token, of the registry itself; realm, of another host; "": nobody has to
	location string // absolute; path; other, a path that is not below /v2/
	state    bool   // Location has a query that is new with every answer and must come back
	mount    int    // what a mount is answered; 201: it mounts
	patch    int    // what a PATCH is answered; 405: it has none
	received string // the Range of that answer, where END is that of the part; "": none
	piecewise,
	redirects, // blobs come from another host, which takes no login
	headless, // HEAD is not allowed
	silent bool // nothing tells a digest
}

// conventions are what is known of these services: from their documentation, and from what other clients had to learn. None of them is
// asked here.
func conventions() []convention {
	return []convention{
		{name: "Docker Hub", login: "realm", location: "absolute", state: true, mount: 201, patch: 202, received: "0-END", redirects: true},
		{name: "GHCR", login: "token", location: "path", mount: 202, patch: 202, received: "0-END", redirects: true},
		{name: "GitLab", login: "realm", location: "absolute", state: true, mount: 201, patch: 202, received: "0-END", redirects: true},
		{name: "Harbor", login: "token", location: "path", state: true, mount: 201, patch: 202, received: "0-END"},
		{name: "Quay", login: "token", location: "absolute", mount: 202, patch: 202, received: "bytes=0-END", redirects: true},
		{name: "Artifactory", login: "basic", location: "absolute", mount: 405, patch: 202, piecewise: true, received: "0-END"},
		{name: "ECR", login: "basic", location: "absolute", mount: 202, patch: 201, received: "0-END", redirects: true},
		{name: "ECR Public", login: "token", location: "absolute", mount: 202, patch: 202, received: "0-0", redirects: true},
		{name: "Artifact Registry", login: "token", location: "other", mount: 201, patch: 202, received: "0-END", redirects: true},
		{name: "ACR", login: "token", location: "path", state: true, mount: 201, patch: 202, received: "0-END", redirects: true},
		{name: "without PATCH", location: "path", mount: 201, patch: 405},
		{name: "without HEAD, digests and ranges", login: "basic", location: "path", mount: 404, patch: 204, headless: true, silent: true},
		{name: "that refuses every mount", location: "path", mount: 403, patch: 200},
	}
}

// ways is a registry with a convention. Its repositories have blobs of their own, as real ones do.
type ways struct {
	convention
	inner http.Handler
	host  string
	realm string // host of its token server
	store string // host of its blobs

	mu     sync.Mutex
	blobs  map[string]bool // "repository digest"
	states map[string]int  // by path of the upload
	leaks  []string        // credentials that reached the host of the blobs
	tokens int
}

func (c convention) start(t *testing.T) *ways {
	t.Helper()
	w := &ways{
		convention: c, blobs: map[string]bool{}, states: map[string]int{},
		inner: ggcrregistry.New(ggcrregistry.Logger(quiet())),
	}
	serve := func(h http.HandlerFunc) string {
		s := httptest.NewUnstartedServer(h)
		s.Config.ErrorLog = quiet()
		s.Start()
		t.Cleanup(s.Close)
		return strings.TrimPrefix(s.URL, "http://")
	}
	w.host, w.store = serve(w.serve), serve(w.serveBlob)
	w.realm = w.host
	if c.login == "realm" {
		w.realm = "localhost" + strings.TrimPrefix(serve(w.serveToken), "127.0.0.1")
	}
	return w
}

const (
	user     = "me"
	password = "secret"
)

// options know the one login, and the token server of another host.
func (w *ways) options(seen *events) Options {
	o := unhurried()
	o.Progress = seen.add
	if w.login != "" {
		o.AuthJSON = authJSON(w.host, user, password)
	}
	if w.login == "realm" {
		o.TokenRealms = []string{w.realm}
	}
	return o
}

func (w *ways) serveToken(out http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Basic "+basic(user, password) {
		out.WriteHeader(http.StatusUnauthorized)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tokens++
	_, _ = io.WriteString(out, `{"access_token":"t"}`) // some say access_token, some token, some both
}

func (w *ways) serveBlob(out http.ResponseWriter, r *http.Request) {
	if auth := r.Header.Get("Authorization"); auth != "" {
		w.mu.Lock()
		w.leaks = append(w.leaks, auth)
		w.mu.Unlock()
	}
	if r.URL.Query().Get("signature") != "s" {
		out.WriteHeader(http.StatusForbidden)
		return
	}
	w.inner.ServeHTTP(out, r)
}

// admits sends those away who are not logged in.
func (w *ways) admits(out http.ResponseWriter, r *http.Request) bool {
	auth := r.Header.Get("Authorization")
	switch w.login {
	case "":
		return true
	case "basic":
		if auth == "Basic "+basic(user, password) {
			return true
		}
		out.Header().Set("WWW-Authenticate", `Basic realm="Registry Realm"`)
	default:
		if auth == "Bearer t" {
			return true
		}
		out.Header().Set("WWW-Authenticate", fmt.Sprintf("Bearer realm=%q,service=%q", "http://"+w.realm+"/token", w.host))
	}
	out.WriteHeader(http.StatusUnauthorized)
	return false
}

func (w *ways) serve(out http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/token" {
		w.serveToken(out, r)
		return
	}
	if !w.admits(out, r) {
		return
	}
	if rest, other := strings.CutPrefix(r.URL.Path, "/artifacts-uploads/"); other {
		r.URL.Path = "/v2/" + rest
	}
	repo, rest, isBlob := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/blobs/")
	q := r.URL.Query()
	switch {
	case r.Method == http.MethodHead && w.headless:
		out.WriteHeader(http.StatusMethodNotAllowed)
	case !isBlob:
		w.forward(out, r, 0)
	case r.Method == http.MethodPost && q.Has("mount"):
		w.serveMount(out, r, repo)
	case strings.HasPrefix(rest, "uploads/"):
		w.serveUpload(out, r, repo)
	case !w.has(repo, rest):
		out.WriteHeader(http.StatusNotFound)
	case r.Method == http.MethodGet && w.redirects:
		out.Header().Set("Location", "http://"+w.store+r.URL.Path+"?signature=s")
		out.WriteHeader(http.StatusTemporaryRedirect)
	default:
		w.forward(out, r, 0)
	}
}

func (w *ways) has(repo, digest string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.blobs[repo+" "+digest]
}

func (w *ways) serveMount(out http.ResponseWriter, r *http.Request, repo string) {
	q := r.URL.Query()
	digest := q.Get("mount")
	switch {
	case w.mount == http.StatusAccepted:
		r.URL.RawQuery = ""
		w.forward(out, r, 0)
	case w.mount == http.StatusCreated && w.has(q.Get("from"), digest):
		w.mu.Lock()
		w.blobs[repo+" "+digest] = true
		w.mu.Unlock()
		out.Header().Set("Location", "/v2/"+repo+"/blobs/"+digest)
		out.WriteHeader(http.StatusCreated)
	default:
		out.WriteHeader(w.mount)
	}
}

func (w *ways) serveUpload(out http.ResponseWriter, r *http.Request, repo string) {
	q := r.URL.Query()
	id := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	w.mu.Lock()
	stale := w.state && id != "" && q.Get("_state") != fmt.Sprint(w.states[id])
	w.mu.Unlock()
	switch {
	case stale:
		out.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(out, `{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}`)
	case r.Method == http.MethodPatch && w.patch == http.StatusMethodNotAllowed:
		out.WriteHeader(w.patch)
	case r.Method == http.MethodPut && w.piecewise && r.ContentLength > 0:
		out.WriteHeader(http.StatusBadRequest)
	case r.Method == http.MethodPatch:
		w.forward(out, r, w.patch)
	case r.Method == http.MethodPut:
		if w.forward(out, r, 0) == http.StatusCreated {
			w.mu.Lock()
			w.blobs[repo+" "+q.Get("digest")] = true
			w.mu.Unlock()
		}
	default:
		w.forward(out, r, 0)
	}
}

// forward answers in the registry's way; success is the status when nothing was wrong, 0 for the same.
func (w *ways) forward(out http.ResponseWriter, r *http.Request, success int) int {
	rec := httptest.NewRecorder()
	w.inner.ServeHTTP(rec, r)
	for k, v := range rec.Header() {
		out.Header()[k] = v
	}
	if w.silent {
		out.Header().Del("Docker-Content-Digest")
		if rec.Code == http.StatusCreated {
			out.Header().Del("Location")
		}
	}
	if at := rec.Header().Get("Location"); at != "" && rec.Code == http.StatusAccepted {
		out.Header().Set("Location", w.locate(at))
	}
	if r.Method == http.MethodPatch {
		out.Header().Del("Range")
		if w.received != "" {
			out.Header().Set("Range", strings.ReplaceAll(w.received, "END", strconv.FormatInt(r.ContentLength-1, 10)))
		}
	}
	status := rec.Code
	if success != 0 && status < 300 {
		status = success
	}
	out.WriteHeader(status)
	_, _ = out.Write(rec.Body.Bytes())
	return rec.Code
}

func (w *ways) locate(path string) string {
	if w.state {
		id := path[strings.LastIndexByte(path, '/')+1:]
		w.mu.Lock()
		w.states[id]++
		path += fmt.Sprintf("?_nouploadcache=false&_state=%d", w.states[id])
		w.mu.Unlock()
	}
	switch w.location {
	case "absolute":
		return "http://" + w.host + path
	case "other":
		return "/artifacts-uploads/" + strings.TrimPrefix(path, "/v2/")
	}
	return path
}

// Each convention by the whole way: probe, push to two repositories, pull, push again, move a tag.
func TestConventions(t *testing.T) {
	for _, c := range conventions() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := c.start(t)
			ctx := context.Background()
			var first, again events
			client := newClient(t, w.options(&first))
			if err := client.CheckPush(ctx, w.host+"/team/base:1"); err != nil {
				t.Fatal(err)
			}
			img := randomImage(t, 3<<19, 2) // of a size that is sent by PATCH
			res, err := client.Publish(ctx, []string{w.host + "/team/base:1", w.host + "/team/deep/er/app:1"}, img)
			if err != nil || len(res.Warnings) > 0 {
				t.Fatalf("%v, warnings %q", err, res.Warnings)
			}
			want := map[string]int{"push": 6}
			if c.mount == http.StatusCreated {
				want = map[string]int{"push": 3, "mount": 3}
			}
			for _, op := range []string{"push", "mount", "exists"} {
				if n := count(first.ops, op); n != want[op] {
					t.Errorf("%d blobs by %s, want %d: %v", n, op, want[op], first.ops)
				}
			}
			fresh := newClient(t, w.options(&again))
			back, err := fresh.Resolve(ctx, w.host+"/team/deep/er/app:1", amd64)
			if err != nil {
				t.Fatal(err)
			}
			if err := validate.Image(back.Image); err != nil || back.Digest != digestOf(t, img) {
				t.Errorf("%s came back as %s: %v", digestOf(t, img), back.Digest, err)
			}
			if _, err := fresh.Publish(ctx, []string{w.host + "/team/deep/er/app:1"}, img); err != nil {
				t.Fatal(err)
			}
			if n := count(again.ops, "push"); n != 0 && !c.headless {
				t.Errorf("%d blobs were sent again", n)
			}
			res, err = fresh.Publish(ctx, []string{w.host + "/team/base:1"}, randomImage(t, 100, 1))
			if err != nil || len(res.Warnings) > 0 {
				t.Errorf("%v, warnings %q", err, res.Warnings)
			}
			if byToken := c.login == "token" || c.login == "realm"; byToken != (w.tokens > 0) {
				t.Errorf("%d tokens", w.tokens)
			}
			if len(w.leaks) > 0 {
				t.Errorf("the host of the blobs got %q", w.leaks)
			}
		})
	}
}

// Every status has one class wherever it is met, and so one exit code. docs/registries.md has the same table.
func TestStatuses(t *testing.T) {
	refused := []int{300, 304, 400, 401, 402, 403, 405, 406, 409, 410, 411, 412, 415, 418, 422, 423, 431, 451, 501, 505, 507}
	passing := []int{408, 429, 499, 500, 502, 503, 504, 520, 521, 522, 523, 524, 530}
	img := randomImage(t, 100, 1)
	for _, where := range []struct{ method, part string }{{"GET", "/manifests/v1"}, {"POST", "/uploads/"}, {"PUT", "/manifests/sha256:"}, {"PUT", "/manifests/v1"}} {
		for _, status := range slices.Concat(refused, passing) {
			class := Refused
			if slices.Contains(passing, status) {
				class = Transient
			}
			t.Run(fmt.Sprintf("%s %s %d", where.method, where.part, status), func(t *testing.T) {
				t.Parallel()
				f := newFake(t)
				o := unhurried()
				o.PushRetries, o.PullRetries = -1, -1
				publish(t, f.Host+"/a:v1", img)
				f.add(times(always, where.method, where.part, status))
				var err error
				if where.method == "GET" {
					_, err = newClient(t, o).Resolve(context.Background(), f.Host+"/a:v1", amd64)
				} else {
					_, err = newClient(t, o).Publish(context.Background(), []string{f.Host + "/a:v1"}, randomImage(t, 101, 1))
				}
				if e := wantError(t, err, class, fmt.Sprint(status)); e.Status != status {
					t.Errorf("status %d", e.Status)
				}
			})
		}
	}
}

// refusal is what a registry says, and what becomes of it.
type refusal struct {
	name         string
	method, part string
	status       int
	body         string
	class        Class
	says         []string
}

func said(code, message string) string {
	return fmt.Sprintf(`{"errors":[{"code":%q,"message":%q,"detail":null}]}`, code, message)
}

// refusals are answers of these services; those to tags that do not move are in TestKeepImmutable.
func refusals() []refusal {
	pull, probe, commit := "/manifests/v1", "/blobs/uploads/", "/manifests/sha256:"
	return []refusal{
		{"Docker Hub, rate of pulls", "GET", pull, 429, said("TOOMANYREQUESTS", "You have reached your unauthenticated pull rate limit."), Transient, []string{"TOOMANYREQUESTS: You have reached", "authenticate, use a mirror, or try later"}},
		{"Docker Hub, absent or private", "GET", pull, 401, said("UNAUTHORIZED", "authentication required"), Refused, []string{"UNAUTHORIZED", "no credentials for"}},
		{"GHCR, scope of a token", "POST", probe, 403, said("DENIED", "permission_denied: The token provided does not match expected scopes."), Refused, []string{"DENIED: permission_denied", "does not allow this"}},
		{"GitLab, outside of a project", "POST", probe, 403, said("DENIED", "requested access to the resource is denied"), Refused, []string{"DENIED"}},
		{"GitLab, read-only for maintenance", "POST", probe, 503, said("UNAVAILABLE", "service unavailable"), Transient, []string{"UNAVAILABLE"}},
		{"Harbor, no project", "POST", probe, 404, said("NOT_FOUND", "project nope not found"), Refused, []string{"project nope not found", "check the name"}},
		{"Harbor, quota", "PUT", commit, 403, said("DENIED", "adding 12.0 MiB of storage resource, which when updated to current usage of 90.0 MiB will exceed the configured upper limit of 100.0 MiB."), Refused, []string{"will exceed the configured upper limit"}},
		{"Harbor, vulnerable", "GET", pull, 412, said("PROJECTPOLICYVIOLATION", "current image without vulnerability scanning cannot be pulled due to configured policy"), Refused, []string{"412", "PROJECTPOLICYVIOLATION"}},
		{"Quay, nested repository", "POST", probe, 404, said("NAME_INVALID", "Invalid repository name"), Refused, []string{"NAME_INVALID: Invalid repository name"}},
		{"Artifactory, a message without a code", "POST", probe, 403, `{"errors":[{"status":403,"message":"The repository 'docker-remote' rejected the artifact due to its settings"}]}`, Refused, []string{"403 Forbidden: The repository 'docker-remote' rejected"}},
		{"ECR, no repository", "POST", probe, 404, said("NAME_UNKNOWN", "The repository with name 'app' does not exist in the registry with id '123456789012'"), Refused, []string{"does not exist in the registry with id", "the repository was not created"}},
		{"ECR, throttled", "POST", probe, 429, said("TOOMANYREQUESTS", "Rate exceeded"), Transient, []string{"Rate exceeded"}},
		{"ECR, token at its end", "PUT", commit, 403, said("DENIED", "Your authorization token has expired. Reauthenticate and try again."), Refused, []string{"has expired"}},
		{"Artifact Registry, permission", "POST", probe, 403, said("DENIED", `Permission "artifactregistry.repositories.uploadArtifacts" denied on resource "projects/p/locations/l/repositories/r" (or it may not exist)`), Refused, []string{"uploadArtifacts"}},
		{"Artifact Registry, no repository", "GET", pull, 404, said("NAME_UNKNOWN", `Repository "r" not found`), Refused, []string{`Repository "r" not found`}},
		{"ACR, firewall", "POST", probe, 403, said("DENIED", "client with IP '192.0.2.1' is not allowed access. Refer https://aka.ms/acr/firewall to grant access."), Refused, []string{"192.0.2.1"}},
		{"distribution, read-only", "POST", probe, 405, said("UNSUPPORTED", "The operation is unsupported."), Refused, []string{"UNSUPPORTED"}},
		{"a page of a proxy", "POST", probe, 502, "<html><head><title>502 Bad Gateway</title></head></html>", Transient, []string{"502 Bad Gateway", "an HTML page instead"}},
		{"lines and colours", "POST", probe, 403, said("DENIED", "no\r\n\x1b[31mline of the log"), Refused, []string{`no\r\n\x1b[31mline`}},
	}
}

func TestRefusals(t *testing.T) {
	img := randomImage(t, 100, 1)
	for _, tt := range refusals() {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			publish(t, f.Host+"/a:v1", img)
			f.add(deny(tt.method, tt.part, tt.status, tt.body))
			o := unhurried()
			o.Timing.RetryBudget = time.Minute
			var err error
			c := newClient(t, o)
			switch tt.method {
			case "GET":
				_, err = c.Resolve(context.Background(), f.Host+"/a:v1", amd64)
			case "POST":
				err = c.CheckPush(context.Background(), f.Host+"/a:v1")
			default:
				_, err = c.Publish(context.Background(), []string{f.Host + "/a:v1"}, randomImage(t, 101, 1))
			}
			wantError(t, err, tt.class, append(tt.says, f.Host)...)
		})
	}
}

// Ways to log in that lead nowhere, and would not later.
func TestChallenges(t *testing.T) {
	for name, challenge := range map[string]string{
		"private address": `Bearer realm="https://10.1.2.3/token",service="s"`,
		"metadata":        `Bearer realm="http://169.254.169.254/latest",service="s"`,
		"no realm":        `Bearer service="s"`,
		"another scheme":  `Bearer realm="file:///etc/passwd",service="s"`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t, func(w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Set("WWW-Authenticate", challenge)
				w.WriteHeader(http.StatusUnauthorized)
				return true
			})
			o := unhurried()
			o.AuthJSON = authJSON(f.Host, user, password)
			_, err := newClient(t, o).Resolve(context.Background(), f.Host+"/a:v1", amd64)
			wantError(t, err, Refused, "realm")
		})
	}
}

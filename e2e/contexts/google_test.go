// SPDX-License-Identifier: Apache-2.0

package contexts

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/kaniko-go/kaniko-go/e2e/cloudtest"
)

// googleStore stands before the store as Google's does: what is not public needs a token. accepted says which it takes.
func googleStore(t *testing.T, store string, accepted func(token string) bool) string {
	t.Helper()
	to, err := url.Parse(store)
	if err != nil {
		t.Fatal(err)
	}
	behind := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }}
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		token, given := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		switch {
		case given && !accepted(token):
			http.Error(rw, "Invalid Credentials", http.StatusUnauthorized)
		case !given && !strings.HasPrefix(r.URL.Path, "/storage/v1/b/public/"):
			http.Error(rw, "Anonymous caller does not have storage.objects.get access to the Google Cloud Storage object.", http.StatusUnauthorized)
		default:
			behind.ServeHTTP(rw, r)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// googleTokens is the server that gives gcloud's users their tokens, and passes other requests on.
func googleTokens(t *testing.T, s *cloudtest.Server) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		if r.FormValue("grant_type") != "refresh_token" || r.FormValue("refresh_token") != "refresh-token-of-alice" || r.FormValue("client_secret") != "secret-of-gcloud" {
			rw.WriteHeader(http.StatusBadRequest)
			_, _ = rw.Write([]byte(`{"error":"invalid_grant","error_description":"Token has been expired or revoked."}`))
			return
		}
		_, _ = rw.Write([]byte(`{"access_token":"` + s.GoogleToken + `","expires_in":3599,"token_type":"Bearer"}`))
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// TestGoogleLogins reads from Google's store by its name, with tokens that the store demands and that only their servers give.
func TestGoogleLogins(t *testing.T) {
	w := newWorld(t)
	want := digest(t, build(t, w.dir, nil, ""))
	_, store := w.stores(t)
	needStores(t)
	s := cloudtest.New(t, httptest.NewTLSServer)
	other := cloudtest.New(t, httptest.NewTLSServer)
	n := newInternet(t)
	n.add("storage.googleapis.com", googleStore(t, store, func(token string) bool { return token == s.GoogleToken }))
	n.add("oauth2.googleapis.com", googleTokens(t, s))
	const object = "gs://bucket/context.tar.gz"
	file := map[string]string{"GOOGLE_APPLICATION_CREDENTIALS": "HOME/key.json"}
	machine := map[string]string{"GCE_METADATA_HOST": strings.TrimPrefix(s.URL, "http://")}
	none := nobody(t)
	gcloud := func(refresh string) map[string]string {
		return map[string]string{".config/gcloud/application_default_credentials.json": `{"type":"authorized_user","client_id":"gcloud","client_secret":"secret-of-gcloud","refresh_token":"` + refresh + `"}`}
	}
	// The key of an account of another project: its tokens are for other stores.
	stranger := strings.ReplaceAll(other.GoogleKey(), "builder@p", "builder@q")
	logins := []login{
		{name: "key of a service account", location: object, env: file, files: map[string]string{"key.json": s.GoogleKey()}},
		{name: "workload identity", location: object, env: file, files: map[string]string{"key.json": s.GoogleWorkload("HOME/token"), "token": s.Subject}},
		{name: "gcloud's file", location: object, env: none, files: gcloud("refresh-token-of-alice")},
		{name: "metadata service", location: object, env: machine},
		{name: "the object that is meant without a name", location: "gs://bucket", env: machine},
		{name: "public, nobody", location: "gs://public/context.tar.gz", env: none},
		{name: "public, somebody", location: "gs://public/context.tar.gz", env: machine},

		{name: "nobody", location: object, env: none, code: 6, says: "401 Unauthorized: no credential was given"},
		{name: "token that is not accepted", location: object, env: file, files: map[string]string{"key.json": stranger}, code: 6, says: "401 Unauthorized: the credential was not accepted"},
		{name: "key that is not the account's", location: object, env: file, files: map[string]string{"key.json": strings.ReplaceAll(stranger, other.URL, s.URL)}, code: 6, says: "invalid_grant"},
		{name: "gcloud's file, revoked", location: object, env: none, files: gcloud("refresh-token-of-bob"), code: 6, says: "Token has been expired or revoked"},
		{name: "no key file", location: object, env: file, code: 6, says: "key.json: no such file or directory"},
		{name: "no object", location: "gs://bucket/nothing", env: machine, code: 2, says: "404"},
		{name: "no bucket", location: "gs://nowhere/nothing", env: machine, code: 2, says: "404"},
	}
	secrets := append(slices.Concat(s.Secrets(), other.Secrets()), "refresh-token-of", "secret-of-gcloud")
	for _, l := range logins {
		t.Run(l.name, func(t *testing.T) { l.try(t, want, secrets, n.env()) })
	}
	if got := strings.Join(n.names(), " "); got != "oauth2.googleapis.com storage.googleapis.com" {
		t.Errorf("asked for: %s", got)
	}
}

// nowhere is an address at which nothing listens: that of no service.
const nowhere = "127.0.0.1:1"

// nobody is a metadata service without an account.
func nobody(t *testing.T) map[string]string {
	t.Helper()
	s := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(s.Close)
	return map[string]string{"GCE_METADATA_HOST": strings.TrimPrefix(s.URL, "http://")}
}

// TestGoogleEnds ends the token where the connection breaks: what is left is asked for with a new one.
func TestGoogleEnds(t *testing.T) {
	w := newWorld(t)
	want := digest(t, build(t, w.dir, nil, ""))
	_, store := w.stores(t)
	needStores(t)
	var ended atomic.Bool
	token := func() string { return fmt.Sprintf("token-%t", ended.Load()) }
	metadata := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(rw, `{"access_token":%q,"expires_in":3600,"token_type":"Bearer"}`, token())
	}))
	defer metadata.Close()
	n := newInternet(t)
	n.add("storage.googleapis.com", googleStore(t, store, func(given string) bool { return given == token() }))
	x, through := newWire(t, n.proxy, 200_000)
	x.onBreak(func() { ended.Store(true) })
	env := n.env()
	env["HTTPS_PROXY"], env["GCE_METADATA_HOST"] = through, strings.TrimPrefix(metadata.URL, "http://")
	if got := digest(t, build(t, "gs://bucket/context.tar.gz", env, "")); got != want || !ended.Load() {
		t.Errorf("another image, or no break (%t)", ended.Load())
	}
}

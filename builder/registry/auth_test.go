// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

func basic(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}

func authJSON(key, user, password string) []byte {
	return fmt.Appendf(nil, `{"auths":{%q:{"auth":%q}}}`, key, basic(user, password))
}

// Which repository gets which entry of config.json.
func TestCredentialLookup(t *testing.T) {
	tests := []struct{ name, key, repo, user string }{
		{"host", "ghcr.io", "ghcr.io/org/app", "u"},
		{"host with scheme", "https://ghcr.io", "ghcr.io/org/app", "u"},
		{"host with v2", "ghcr.io/v2/", "ghcr.io/org/app", "u"},
		{"upper case", "GHCR.io", "ghcr.io/org/app", "u"},
		{"https port", "ghcr.io:443", "ghcr.io/org/app", "u"},
		{"Docker Hub's old key", "https://index.docker.io/v1/", "debian", "u"},
		{"Docker Hub's name", "docker.io", "org/app", "u"},
		{"path", "ghcr.io/org", "ghcr.io/org/app", "u"},
		{"whole path", "ghcr.io/org/app", "ghcr.io/org/app", "u"},
		{"sibling path", "ghcr.io/org", "ghcr.io/organisation/app", ""},
		{"other port", "ghcr.io", "ghcr.io:8443/org/app", ""},
		{"port of another", "ghcr.io:8443", "ghcr.io/org/app", ""},
		{"subdomain", "example.com", "registry.example.com/a", ""},
		{"suffix", "ghcr.io", "ghcr.io.evil.test/a", ""},
		{"prefix", "ghcr.io", "evilghcr.io/a", ""},
		{"Docker Hub's key is not another's", "https://index.docker.io/v1/", "quay.io/a/b", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, err := parseDockerConfig(authJSON(tt.key, "u", "p:with:colons"))
			if err != nil {
				t.Fatal(err)
			}
			repo, err := name.NewRepository(tt.repo)
			if err != nil {
				t.Fatal(err)
			}
			cred := resolve(context.Background(), []source{{"file", d.finder(nil)}}, repo)
			got, err := cred.auth.Authorization()
			if err != nil {
				t.Fatal(err)
			}
			want := authn.AuthConfig{}
			if tt.user != "" {
				want = authn.AuthConfig{Username: tt.user, Password: "p:with:colons"}
			}
			if diff := cmp.Diff(want, *got); diff != "" {
				t.Errorf("credential (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLongestKeyWins(t *testing.T) {
	d, err := parseDockerConfig(fmt.Appendf(nil, `{"auths":{"h.test":{"auth":%q},"h.test/a":{"username":"a","password":"x"},"h.test/a/b":{"identitytoken":"tok"}, "h.test/empty":{}}}`, basic("host", "x")))
	if err != nil {
		t.Fatal(err)
	}
	for repo, want := range map[string]authn.AuthConfig{
		"h.test/z":     {Username: "host", Password: "x"},
		"h.test/a/c":   {Username: "a", Password: "x"},
		"h.test/a/b/c": {IdentityToken: "tok"},
		"h.test/empty": {Username: "host", Password: "x"},
	} {
		r, err := name.NewRepository(repo)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := d.lookup(r)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", repo, diff)
		}
	}
}

// Directory, Kubernetes secret, file, and nothing at all.
func TestDockerConfigPlaces(t *testing.T) {
	dir := t.TempDir()
	secret, both, none := filepath.Join(dir, "secret"), filepath.Join(dir, "both"), filepath.Join(dir, "none")
	for path, user := range map[string]string{
		filepath.Join(secret, ".dockerconfigjson"): "secret",
		filepath.Join(both, ".dockerconfigjson"):   "wrong",
		filepath.Join(both, "config.json"):         "config",
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, authJSON("h.test", user, "p"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{
		secret: "secret", both: "config", filepath.Join(both, "config.json"): "config", none: "", dir: "", "": "",
	} {
		c := newClient(t, Options{DockerConfig: path})
		repo, err := name.NewRepository("h.test/a")
		if err != nil {
			t.Fatal(err)
		}
		cred := resolve(context.Background(), c.sources, repo)
		got, err := cred.auth.Authorization()
		if err != nil {
			t.Fatal(err)
		}
		if got.Username != want || (want != "" && !strings.HasPrefix(cred.source, dir)) {
			t.Errorf("%s: user %q from %q, want %q", path, got.Username, cred.source, want)
		}
	}
}

func TestHelpersAreNotRun(t *testing.T) {
	log, logs := observed()
	newClient(t, Options{AuthJSON: []byte(`{"credsStore":"pass","credHelpers":{"gcr.io":"gcloud","h.test":"pass","a.test":"acr-env"}}`), Log: log})
	if n := logs.FilterMessageSnippet("DOCKER_AUTH_CONFIG: the credential helper pass (credsStore, h.test) is not run").Len(); n != 1 || logs.Len() != 1 {
		t.Errorf("lines %v, want one about pass", logs.All())
	}
}

// withBasic asks for a user and password.
func withBasic(user, password string) fault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == "Basic "+basic(user, password) {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte(`{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`))
		return true
	}
}

func TestBasicAuth(t *testing.T) {
	f := newFake(t, withBasic("me", "secret"))
	ctx := context.Background()
	good := Options{AuthJSON: authJSON(f.Host, "me", "secret")}
	if _, err := newClient(t, good).Publish(ctx, []string{f.Host + "/a:1"}, randomImage(t, 100, 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := newClient(t, good).Resolve(ctx, f.Host+"/a:1", amd64); err != nil {
		t.Fatal(err)
	}
	if err := newClient(t, good).CheckPush(ctx, f.Host+"/a:1"); err != nil {
		t.Fatal(err)
	}
	wrong := newClient(t, Options{AuthJSON: authJSON(f.Host, "me", "guess")})
	err := wrong.CheckPush(ctx, f.Host+"/a:1")
	wantError(t, err, Refused, "401 Unauthorized", "from DOCKER_AUTH_CONFIG", f.Host)
	if strings.Contains(err.Error(), "guess") || strings.Contains(err.Error(), basic("me", "guess")) {
		t.Errorf("%q contains the password", err)
	}
	_, err = newClient(t, Options{}).Resolve(ctx, f.Host+"/a:1", amd64)
	wantError(t, err, Refused, "401", "no credentials for "+f.Host)
}

// tokenServer is a registry with tokens that the registry itself hands out; each
// is good for a number of requests.
func tokenServer(t *testing.T, uses int) (*fakeRegistry, *[]string) {
	t.Helper()
	var mu sync.Mutex
	left := map[string]int{}
	scopes := &[]string{}
	f := newFake(t)
	f.add(func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if r.URL.Path == "/token" {
			if r.Header.Get("Authorization") != "Basic "+basic("me", "secret") {
				w.WriteHeader(http.StatusUnauthorized)
				_, _ = w.Write([]byte(`{"details":"incorrect username or password"}`))
				return true
			}
			token := fmt.Sprintf("t%d", len(left))
			left["Bearer "+token] = uses
			*scopes = append(*scopes, strings.Join(r.URL.Query()["scope"], " "))
			_, _ = fmt.Fprintf(w, `{"token":%q}`, token)
			return true
		}
		if auth := r.Header.Get("Authorization"); left[auth] > 0 {
			left[auth]--
			return false
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+f.Host+`/token",service="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	return f, scopes
}

// Tokens that expire in the middle of a push are renewed, bodies are sent again.
func TestTokenExpires(t *testing.T) {
	f, scopes := tokenServer(t, 5)
	img := randomImage(t, 50_000, 3)
	o := Options{AuthJSON: authJSON(f.Host, "me", "secret")}
	if _, err := newClient(t, o).Publish(context.Background(), []string{f.Host + "/a:1"}, img); err != nil {
		t.Fatal(err)
	}
	if len(*scopes) < 3 || (*scopes)[0] != "repository:a:push,pull" {
		t.Errorf("scopes %q", *scopes)
	}
}

func TestTokenRefused(t *testing.T) {
	f, _ := tokenServer(t, 100)
	_, err := newClient(t, Options{AuthJSON: authJSON(f.Host, "me", "guess")}).Publish(context.Background(), []string{f.Host + "/a:1"}, randomImage(t, 10, 1))
	wantError(t, err, Refused, "401", "incorrect username or password", "from DOCKER_AUTH_CONFIG")
}

// No credential of a registry reaches the host that it redirects to.
func TestRedirectDoesNotLeak(t *testing.T) {
	for _, kind := range []string{"basic", "token"} {
		t.Run(kind, func(t *testing.T) {
			var mu sync.Mutex
			var leaked []string
			store := newFake(t)
			var f *fakeRegistry
			o := Options{}
			if kind == "basic" {
				f = newFake(t, withBasic("me", "secret"))
			} else {
				f, _ = tokenServer(t, 1000)
			}
			o.AuthJSON = authJSON(f.Host, "me", "secret")
			img := randomImage(t, 1000, 1)
			publish(t, store.Host+"/a:1", img)
			if _, err := newClient(t, o).Publish(context.Background(), []string{f.Host + "/a:1"}, img); err != nil {
				t.Fatal(err)
			}
			store.add(func(_ http.ResponseWriter, r *http.Request) bool {
				mu.Lock()
				defer mu.Unlock()
				for _, h := range []string{"Authorization", "Cookie"} {
					if r.Header.Get(h) != "" {
						leaked = append(leaked, r.Header.Get(h))
					}
				}
				return false
			})
			f.add(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") {
					return false
				}
				http.Redirect(w, r, "http://"+store.Host+r.URL.Path, http.StatusTemporaryRedirect)
				return true
			})
			store.forget()
			got, err := newClient(t, o).Resolve(context.Background(), f.Host+"/a:1", amd64)
			if err != nil {
				t.Fatal(err)
			}
			layers, err := got.Layers()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := readLayer(layers[0]); err != nil {
				t.Fatal(err)
			}
			if store.count("GET", "/blobs/") == 0 {
				t.Fatal("the redirect was not followed")
			}
			if len(leaked) > 0 {
				t.Errorf("leaked: %q", leaked)
			}
		})
	}
}

// What the guard lets pass, without a network.
func TestGuard(t *testing.T) {
	const b, tok = "Basic bWU6c2VjcmV0", "Bearer token-of-home"
	tests := []struct {
		name, home, url, auth, form string
		ok                          bool
	}{
		{"home", "registry.example.com", "https://registry.example.com/v2/", b, "", true},
		{"home with its port", "registry.example.com", "https://registry.example.com:443/v2/", b, "", true},
		{"token to another port", "registry.example.com", "https://registry.example.com:8443/v2/", tok, "", false},
		{"realm at another port", "registry.example.com", "https://registry.example.com:8443/token", b, "", true},
		{"realm at an address", "10.0.0.1:5000", "https://10.0.0.2/token", b, "", false},
		{"realm in the domain", "registry.example.com", "https://gitlab.example.com/jwt/auth", b, "", true},
		{"realm of Docker Hub", "index.docker.io", "https://auth.docker.io/token", b, "", true},
		{"realm elsewhere", "registry.example.com", "https://evil.test/token", b, "", false},
		{"realm at a public suffix", "a.github.io", "https://b.github.io/token", b, "", false},
		{"realm on the list", "registry.example.com", "https://login.listed.test/token", b, "", true},
		{"realm elsewhere without a credential", "registry.example.com", "https://evil.test/token", "", "", true},
		{"OAuth2 elsewhere", "registry.example.com", "https://evil.test/token", "", "refresh_token=x", false},
		{"OAuth2 in the domain", "registry.example.com", "https://auth.example.com/token", "", "refresh_token=x", true},
		{"token to storage", "registry.example.com", "https://cdn.example.com/blob", tok, "", false},
		{"another's token to another", "registry.example.com", "https://mirror.test/v2/", "Bearer anonymous", "", true},
		{"plain http home", "registry.example.com", "http://registry.example.com/v2/", "", "", false},
		{"plain http storage", "registry.example.com", "http://cdn.test/blob", "", "", false},
		{"plain http on a private network", "10.0.0.1:5000", "http://10.0.0.1:5000/v2/", "", "", false},
		{"plain http to an allowed host", "registry.example.com", "http://plain.test/blob", "", "", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			passed := false
			g := &guard{
				home: tt.home, plainTo: func(h string) bool { return h == "plain.test" },
				realms: map[string]bool{"login.listed.test": true},
				next: roundTrip(func(*http.Request) (*http.Response, error) {
					passed = true
					return httptest.NewRecorder().Result(), nil
				}),
			}
			home := httptest.NewRequest(http.MethodGet, "https://"+tt.home+"/v2/", nil)
			home.Header.Set("Authorization", tok)
			if _, err := g.RoundTrip(home); err != nil {
				t.Fatal(err)
			}
			passed = false
			req := httptest.NewRequest(http.MethodGet, tt.url, nil)
			if tt.form != "" {
				req = httptest.NewRequest(http.MethodPost, tt.url, strings.NewReader(tt.form))
				req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			}
			if tt.auth != "" {
				req.Header.Set("Authorization", tt.auth)
			}
			_, err := g.RoundTrip(req)
			if (err == nil) != tt.ok || passed != tt.ok {
				t.Errorf("err = %v, passed = %v, want %v", err, passed, tt.ok)
			}
		})
	}
	for host, ok := range map[string]bool{
		"cdn.test": true, "169.254.169.254": false, "10.1.2.3:80": false, "127.0.0.1": false, "[::1]:80": false, "[fd00:ec2::254]": false, "8.8.8.8": true,
	} {
		g := &guard{home: "registry.example.com"}
		if err := g.mayVisit(host); (err == nil) != ok {
			t.Errorf("redirect to %s: %v", host, err)
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

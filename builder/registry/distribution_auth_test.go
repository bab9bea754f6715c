// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/validate"
	"golang.org/x/crypto/bcrypt"
)

// identity is a key with a certificate for this machine that it has signed itself.
type identity struct {
	key       *ecdsa.PrivateKey
	der       []byte
	cert, pem string // files of the certificate and of the key
}

func newIdentity(t *testing.T) identity {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return identity{key: key, der: der, cert: writePEM(t, "CERTIFICATE", der), pem: writePEM(t, "EC PRIVATE KEY", keyDER)}
}

// tls are the lines that make the real registry use the certificate.
func (id identity) tls() string {
	return fmt.Sprintf("  tls: {certificate: %q, key: %q}\n", id.cert, id.pem)
}

// issuer is a token server that the real registry believes: users, and what each may do anywhere.
type issuer struct {
	id    identity
	users map[string][]string // "user:password" -> actions

	mu    sync.Mutex
	asked []string // scopes
}

func (i *issuer) start(t *testing.T) (host string) {
	t.Helper()
	s := httptest.NewUnstartedServer(i)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{i.id.der}, PrivateKey: i.id.key}}}
	s.Config.ErrorLog = quiet()
	s.StartTLS()
	t.Cleanup(s.Close)
	return "localhost" + strings.TrimPrefix(s.URL, "https://127.0.0.1")
}

// ServeHTTP gives a token for those of the actions that are asked for and allowed, as token servers do.
func (i *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, password, _ := r.BasicAuth()
	allowed, known := i.users[user+":"+password]
	if !known {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte(`{"errors":[{"code":"UNAUTHORIZED","message":"who is this?"}]}`))
		return
	}
	type access struct {
		Type    string   `json:"type"`
		Name    string   `json:"name"`
		Actions []string `json:"actions"`
	}
	granted := []access{}
	i.mu.Lock()
	i.asked = append(i.asked, r.URL.Query()["scope"]...)
	i.mu.Unlock()
	for _, scope := range r.URL.Query()["scope"] {
		parts := strings.SplitN(scope, ":", 3)
		if len(parts) != 3 {
			continue
		}
		actions := slices.DeleteFunc(strings.Split(parts[2], ","), func(a string) bool { return !slices.Contains(allowed, a) })
		granted = append(granted, access{parts[0], parts[1], actions})
	}
	now := time.Now()
	token, err := i.sign(map[string]any{
		"iss": "test-issuer", "sub": user, "aud": "test-registry", "jti": rand.Text(), "access": granted,
		"iat": now.Unix(), "nbf": now.Add(-time.Minute).Unix(), "exp": now.Add(5 * time.Minute).Unix(),
	})
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]string{"token": token})
}

func (i *issuer) sign(claims map[string]any) (string, error) {
	header := map[string]any{"typ": "JWT", "alg": "ES256", "x5c": []string{base64.StdEncoding.EncodeToString(i.id.der)}}
	var parts []string
	for _, part := range []map[string]any{header, claims} {
		data, err := json.Marshal(part)
		if err != nil {
			return "", err
		}
		parts = append(parts, base64.RawURLEncoding.EncodeToString(data))
	}
	sum := sha256.Sum256([]byte(strings.Join(parts, ".")))
	r, s, err := ecdsa.Sign(rand.Reader, i.id.key, sum[:])
	if err != nil {
		return "", err
	}
	signature := append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	return strings.Join(append(parts, base64.RawURLEncoding.EncodeToString(signature)), "."), nil
}

// login is one way of coming to a real registry that wants to know who comes.
type login struct {
	name   string
	auth   []byte   // content of DOCKER_AUTH_CONFIG
	realms []string // that may see the credentials
	says   []string // nil for success
}

// The real registry behind TLS and a file of passwords.
func TestDistributionPasswords(t *testing.T) {
	id := newIdentity(t)
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	users := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(users, fmt.Appendf(nil, "me:%s\n", hash), 0o600); err != nil {
		t.Fatal(err)
	}
	host := startDistribution(t, distribution{http: id.tls(), auth: fmt.Sprintf("{htpasswd: {realm: test, path: %q}}", users)})
	for _, l := range []login{
		{name: "right", auth: authJSON(host, "me", "secret")},
		{name: "wrong password", auth: authJSON(host, "me", "guess"), says: []string{"401", "UNAUTHORIZED", "from DOCKER_AUTH_CONFIG were not accepted"}},
		{name: "nobody", says: []string{"401", "no credentials for " + host}},
	} {
		t.Run(l.name, func(t *testing.T) { l.try(t, host, id) })
	}
}

// The real registry behind TLS and a token server on another host.
func TestDistributionTokens(t *testing.T) {
	id := newIdentity(t)
	server := &issuer{id: id, users: map[string][]string{"me:secret": {"pull", "push"}, "reader:secret": {"pull"}}}
	realm := server.start(t)
	host := startDistribution(t, distribution{http: id.tls(), auth: fmt.Sprintf(
		"{token: {realm: %q, service: test-registry, issuer: test-issuer, rootcertbundle: %q}}", "https://"+realm+"/token", id.cert)})
	realms := []string{realm}
	for _, l := range []login{
		{name: "right", auth: authJSON(host, "me", "secret"), realms: realms},
		{name: "wrong password", auth: authJSON(host, "me", "guess"), realms: realms, says: []string{"401", "who is this?", "from DOCKER_AUTH_CONFIG were not accepted"}},
		{name: "may only pull", auth: authJSON(host, "reader", "secret"), realms: realms, says: []string{"401", "were not accepted"}},
		{name: "token server that is not trusted", auth: authJSON(host, "me", "secret"), says: []string{host + " asks to log in at " + realm}},
	} {
		t.Run(l.name, func(t *testing.T) { l.try(t, host, id) })
	}
	server.mu.Lock()
	defer server.mu.Unlock()
	// The mount needs both repositories in one token.
	if !slices.Contains(server.asked, "repository:team/base:pull") {
		t.Errorf("no token was to mount from team/base: %q", server.asked)
	}
}

// try goes the whole way: probe, push to two repositories, pull, push again.
func (l login) try(t *testing.T, host string, id identity) {
	t.Helper()
	ctx := context.Background()
	var seen events
	c := newClient(t, Options{AuthJSON: l.auth, TokenRealms: l.realms, ExtraCAs: []string{id.cert}, Timing: Timing{FirstDelay: time.Millisecond}, Progress: seen.add})
	err := c.CheckPush(ctx, host+"/team/base:1")
	if l.says != nil {
		wantError(t, err, Refused, l.says...)
		_, err := c.Publish(ctx, []string{host + "/team/base:2"}, randomImage(t, 10, 1))
		wantError(t, err, Refused, l.says...)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	img := randomImage(t, 2<<20, 2)
	res, err := c.Publish(ctx, []string{host + "/team/base:1", host + "/team/app:1"}, img)
	if err != nil || len(res.Warnings) > 0 {
		t.Fatalf("%v, warnings %q", err, res.Warnings)
	}
	if n := count(seen.ops, "mount"); n != 3 {
		t.Errorf("%d blobs mounted, want 3: %v", n, seen.ops)
	}
	fresh := newClient(t, Options{AuthJSON: l.auth, TokenRealms: l.realms, ExtraCAs: []string{id.cert}})
	back, err := fresh.Resolve(ctx, host+"/team/app:1", amd64)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(back.Image); err != nil || back.Digest != digestOf(t, img) {
		t.Errorf("%s came back as %s: %v", digestOf(t, img), back.Digest, err)
	}
	if _, err := fresh.Publish(ctx, []string{host + "/team/app:1"}, img); err != nil {
		t.Error(err)
	}
}

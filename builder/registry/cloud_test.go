// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/kaniko-go/kaniko-go/e2e/cloudtest"
)

const testECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"

// bareAWS removes what the machine itself may have of AWS.
func bareAWS(t *testing.T, env map[string]string) {
	t.Helper()
	none := filepath.Join(t.TempDir(), "none")
	all := map[string]string{
		"AWS_CONFIG_FILE": none, "AWS_SHARED_CREDENTIALS_FILE": none, "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_SESSION_TOKEN": "",
		"AWS_PROFILE": "", "AWS_WEB_IDENTITY_TOKEN_FILE": "", "AWS_ROLE_ARN": "", "AWS_REGION": "", "AWS_EC2_METADATA_DISABLED": "",
	}
	for k, v := range env {
		all[k] = v
	}
	for k, v := range all {
		t.Setenv(k, v)
	}
}

// client is a Client and the cloud of it that a test is about.
func clientOf(t *testing.T, name string, o Options) (*Client, *cloud) {
	t.Helper()
	o.Clouds = []string{name}
	c := newClient(t, o)
	for _, cloud := range c.clouds {
		if cloud.name == name {
			return c, cloud
		}
	}
	t.Fatalf("no cloud %s", name)
	return nil, nil
}

// blackhole takes connections and never answers.
func blackhole(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

// A metadata service that takes connections and says nothing costs two seconds,
// once, and leaves the registry to be asked without a credential.
func TestSilentMetadata(t *testing.T) {
	silent := blackhole(t)
	bareAWS(t, map[string]string{"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://" + silent})
	t.Setenv("GCE_METADATA_HOST", silent)
	for name, host := range map[string]string{ECR: testECR, Google: "gcr.io"} {
		_, c := clientOf(t, name, Options{})
		start := time.Now()
		for range 3 {
			if a := c.find(context.Background(), host); a.auth != nil || a.err != nil || a.why == "" {
				t.Errorf("%s: %+v, want a reason and nothing else", name, a)
			}
		}
		if took := time.Since(start); took > 2*probeLimit {
			t.Errorf("%s: three questions took %v", name, took)
		}
	}
}

// Other clouds' hosts are not even a reason to look.
func TestCloudsAreAskedAboutTheirOwn(t *testing.T) {
	var asked atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer s.Close()
	bareAWS(t, map[string]string{
		"AWS_EC2_METADATA_SERVICE_ENDPOINT": s.URL, "AWS_ENDPOINT_URL_ECR": s.URL, "AWS_ENDPOINT_URL_STS": s.URL,
		"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "s",
	})
	t.Setenv("GCE_METADATA_HOST", strings.TrimPrefix(s.URL, "http://"))
	for _, name := range []string{ECR, Google, ACR} {
		_, c := clientOf(t, name, Options{})
		for _, host := range []string{"ghcr.io", testECR + ".evil.test", "gcr.io:5000", "evilgcr.io", "a.azurecr.io.evil.test", "127.0.0.1:5000"} {
			if a := c.find(context.Background(), host); a != (answer{}) {
				t.Errorf("%s about %s: %+v", name, host, a)
			}
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("%d requests", n)
	}
}

// A login that was configured and failed names its reason, keeps its secrets,
// and ends a push; a pull goes on without.
func TestRefusedLogins(t *testing.T) {
	s := cloudtest.New(t, httptest.NewTLSServer)
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	other := cloudtest.New(t, httptest.NewTLSServer)
	wrongKey := strings.ReplaceAll(other.GoogleKey(), other.URL, s.URL)
	ran := filepath.Join(dir, "ran")
	aws := s.AWSEndpoints()
	tests := []struct {
		name, cloud, host string
		env               map[string]string
		google            GoogleLogin
		class             Class
		want              string
	}{
		{
			name: "AWS keys", cloud: ECR, host: testECR, class: Refused, want: "UnrecognizedClientException: The security token included in the request is invalid.",
			env: map[string]string{"AWS_ACCESS_KEY_ID": "AKIAWRONG", "AWS_SECRET_ACCESS_KEY": "planted-secret", "AWS_SESSION_TOKEN": "planted-session"},
		},
		{
			name: "AWS web identity", cloud: ECR, host: testECR, class: Refused, want: "getting AWS credentials: AccessDenied: Not authorized",
			env: map[string]string{"AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/r", "AWS_WEB_IDENTITY_TOKEN_FILE": write("token", "planted-token")},
		},
		{
			name: "AWS, no answer", cloud: ECR, host: testECR, class: Transient, want: "GetAuthorizationToken with EnvConfigCredentials: dial tcp 127.0.0.1:1: connect: connection refused",
			env: map[string]string{"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "planted-secret", "AWS_ENDPOINT_URL_ECR": "http://127.0.0.1:1", "AWS_MAX_ATTEMPTS": "1"},
		},
		{
			name: "AWS, a program", cloud: ECR, host: testECR, class: Refused, want: "credential_process: no program is started",
			env: map[string]string{"AWS_CONFIG_FILE": write("config", "[default]\ncredential_process = /bin/touch "+ran+"\n")},
		},
		{
			name: "AWS, a program behind a role", cloud: ECR, host: testECR, class: Refused, want: "credential_process: no program is started",
			env: map[string]string{"AWS_CONFIG_FILE": write("config2", "[default]\nrole_arn = arn:aws:iam::123456789012:role/r\nsource_profile = p\n[profile p]\ncredential_process = /bin/touch "+ran+"\n")},
		},
		{name: "Google key", cloud: Google, host: "gcr.io", google: GoogleLogin{KeyFile: write("key.json", wrongKey)}, class: Refused, want: "key.json: the token server answered 400 invalid_grant: Invalid JWT Signature."},
		{name: "Google workload", cloud: Google, host: "gcr.io", google: GoogleLogin{KeyFile: write("w.json", s.GoogleWorkload(write("token2", "planted-token")))}, class: Refused, want: "w.json: the token server answered 401"},
		{name: "Google, no such file", cloud: Google, host: "gcr.io", google: GoogleLogin{KeyFile: filepath.Join(dir, "none.json")}, class: Refused, want: "none.json: no such file or directory"},
		{name: "Google, no JSON", cloud: Google, host: "gcr.io", google: GoogleLogin{KeyFile: write("bad.json", "planted-secret")}, class: Refused, want: "bad.json: not valid JSON at byte 1"},
		{
			name: "Google, a program", cloud: Google, host: "gcr.io", class: Refused, want: "no program", google: GoogleLogin{
				KeyFile: write("x.json", `{"type":"external_account","credential_source":{"executable":{"command":"/bin/touch `+ran+`"}}}`),
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bareAWS(t, aws)
			for k, v := range tt.env {
				t.Setenv(k, v)
			}
			client, c := clientOf(t, tt.cloud, Options{Google: tt.google})
			a := c.find(t.Context(), tt.host)
			var e *credentialError
			if !errors.As(a.err, &e) || e.class != tt.class || !strings.Contains(strings.ReplaceAll(e.reason, "none is", "no program"), tt.want) {
				t.Fatalf("%+v (%v), want %s: %s", a, a.err, tt.class, tt.want)
			}
			err := client.CheckPush(t.Context(), tt.host+"/a:1")
			wantError(t, err, tt.class, "no credentials for "+tt.host+": "+tt.cloud+": ")
			for _, secret := range append(append(s.Secrets(), other.Secrets()...), "planted") {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("%q tells %q", err, secret)
				}
			}
		})
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("a program was started")
	}
}

// Each of Azure's identities, at a directory and a registry that repeat what they
// are sent.
func TestAzure(t *testing.T) {
	directory := (*httptest.Server)(nil)
	s := cloudtest.New(t, func(h http.Handler) *httptest.Server {
		directory = httptest.NewTLSServer(h)
		return directory
	})
	registry := httptest.NewTLSServer(s.ACR(http.NotFoundHandler()))
	defer registry.Close()
	toRegistry := registry.Client().Transport.(*http.Transport).Clone() //nolint:forcetypeassert // a test's own
	toRegistry.TLSClientConfig.InsecureSkipVerify = true
	toRegistry.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", registry.Listener.Addr().String())
	}
	toDirectory := directory.Client().Transport.(*http.Transport).Clone() //nolint:forcetypeassert // a test's own
	toDirectory.TLSClientConfig.InsecureSkipVerify = true
	base := AzureLogin{TenantID: cloudtest.Tenant, ClientID: cloudtest.Client, AuthorityHost: s.Directory}
	login := func(change func(*AzureLogin)) (token, error) {
		o := base
		change(&o)
		return newACR(o, &http.Client{Transport: toDirectory}, &http.Client{Transport: toRegistry}).login(t.Context(), "a.azurecr.io")
	}
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(s.Subject), 0o600); err != nil {
		t.Fatal(err)
	}
	certificate, empty := filepath.Join(t.TempDir(), "certificate.pem"), filepath.Join(t.TempDir(), "empty.pem")
	for path, content := range map[string]string{certificate: s.AzureCertificate(), empty: ""} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, change := range map[string]func(*AzureLogin){
		"certificate": func(o *AzureLogin) { o.CertificateFile = certificate },
		"secret":      func(o *AzureLogin) { o.ClientSecret = s.AzureSecret },
		"token":       func(o *AzureLogin) { o.FederatedToken = s.Subject },
		"file":        func(o *AzureLogin) { o.FederatedTokenFile = file },
	} {
		if got, err := login(change); err != nil || got.auth.IdentityToken == "" || time.Until(got.expires) < 30*time.Minute {
			t.Errorf("%s: %+v, %v", name, got.from, err)
		}
	}
	for want, change := range map[string]func(*AzureLogin){
		"AZURE_CLIENT_SECRET: 401 invalid_client: AADSTS7000215: Invalid client secret provided: xxxxx":  func(o *AzureLogin) { o.ClientSecret = "planted-secret" },
		"AZURE_CLIENT_CERTIFICATE_PATH: open /nonexistent/c.pem: no such file or directory":              func(o *AzureLogin) { o.CertificateFile = "/nonexistent/c.pem" },
		"AZURE_CLIENT_CERTIFICATE_PATH: " + empty:                                                        func(o *AzureLogin) { o.CertificateFile, o.CertificateKey = empty, "planted-password" },
		"federated token: 401 invalid_client: AADSTS7000215":                                             func(o *AzureLogin) { o.FederatedToken = "planted-token" },
		"federated token: ClientAssertionCredential: open /nonexistent/token: no such file or directory": func(o *AzureLogin) { o.FederatedTokenFile = "/nonexistent/token" },
		"AZURE_CLIENT_SECRET: invalid tenantID":                                                          func(o *AzureLogin) { o.ClientSecret, o.TenantID = s.AzureSecret, "" },
	} {
		_, err := login(change)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "planted") || strings.Contains(err.Error(), s.AzureSecret) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// A credential is used until it ends soon, then replaced; while nobody has a new
// one it is used to its very end; a failure is not asked about again at once.
func TestCredentialsAreRenewed(t *testing.T) {
	var logins int
	var fail error
	life := time.Hour
	c := &cloud{name: "c", owns: func(host string) bool { return host == "h.test" }, login: func(context.Context, string) (token, error) {
		logins++
		if fail != nil {
			return token{}, fail
		}
		return token{auth: authn.AuthConfig{Username: "u", Password: string(rune('0' + logins))}, from: "x", expires: time.Now().Add(life)}, nil
	}}
	want := func(password string, n int) {
		t.Helper()
		a := c.find(context.Background(), "h.test")
		if a.auth == nil {
			t.Fatalf("%+v", a)
		}
		got, err := authn.Authorization(context.Background(), a.auth)
		if err != nil || got.Password != password || logins != n {
			t.Errorf("password %q after %d logins (%v), want %q after %d", got.Password, logins, err, password, n)
		}
	}
	want("1", 1)
	want("1", 1)
	a := c.auths["h.test"]
	a.have.expires = time.Now().Add(renewBefore / 2)
	fail = errors.New("not now")
	want("1", 2)
	want("1", 2)
	a.until, fail = time.Time{}, nil
	want("3", 3)
	a.have.expires, fail = time.Now(), errors.New("not now")
	if got := c.find(context.Background(), "h.test"); got.err == nil || got.auth != nil {
		t.Errorf("a credential that has ended: %+v", got)
	}
}

// A registry that believes each password for a moment gets the next one in the
// middle of a push.
func TestPushOutlivesItsCredential(t *testing.T) {
	var current atomic.Int32
	password := func(before int32) string { return "p" + strconv.Itoa(int(current.Load()-before)) }
	f := newFake(t)
	f.add(func(w http.ResponseWriter, r *http.Request) bool {
		before := int32(0) // what was sent while another request got the next one is still good
		for ; before < 3; before++ {
			if r.Header.Get("Authorization") == "Basic "+basic("u", password(before)) {
				break
			}
		}
		return withBasic("u", password(before))(w, r)
	})
	c := newClient(t, Options{})
	cloud := &cloud{name: "c", owns: func(host string) bool { return host == f.Host }, login: func(context.Context, string) (token, error) {
		current.Add(1)
		return token{auth: authn.AuthConfig{Username: "u", Password: password(0)}, from: "x", expires: time.Now().Add(renewBefore + 5*time.Millisecond)}, nil
	}}
	c.sources = []source{{name: "c", find: func(ctx context.Context, repo name.Repository) answer {
		return cloud.find(ctx, canonicalHost(repo.RegistryStr()))
	}}}
	for i := range 5 {
		time.Sleep(6 * time.Millisecond)
		if _, err := c.Publish(context.Background(), []string{fmt.Sprintf("%s/a:%d", f.Host, i)}, randomImage(t, 10, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if n := current.Load(); n < 5 {
		t.Errorf("%d logins", n)
	}
}

// A pull whose login has failed goes on without one, for the image may be public;
// where it is not, the failure of the login is the cause.
func TestPullWithoutTheLogin(t *testing.T) {
	open := newFake(t)
	ctx := context.Background()
	if _, err := newClient(t, Options{}).Publish(ctx, []string{open.Host + "/a:1"}, randomImage(t, 10, 1)); err != nil {
		t.Fatal(err)
	}
	closed := newFake(t, withBasic("u", "p"))
	failing := func() *Client {
		c := newClient(t, Options{})
		c.sources = []source{{name: "c", find: func(context.Context, name.Repository) answer {
			return answer{err: &credentialError{name: "c", reason: "the token server is not there", class: Transient}}
		}}}
		return c
	}
	if _, err := failing().Resolve(ctx, open.Host+"/a:1", amd64); err != nil {
		t.Errorf("a public image: %v", err)
	}
	_, err := failing().Resolve(ctx, closed.Host+"/a:1", amd64)
	wantError(t, err, Transient, "no credentials for "+closed.Host+": c: the token server is not there")
	_, err = failing().Publish(ctx, []string{open.Host + "/b:1"}, randomImage(t, 10, 1))
	wantError(t, err, Transient, "no credentials for "+open.Host+": c: the token server is not there")
}

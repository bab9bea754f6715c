// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kaniko-go/kaniko-go/e2e/cloudtest"
	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// The hosts that the clouds' registries have here: names that the clients believe
// in, on loopback. The last are nobody's cloud.
const (
	ecrHost    = "123456789012.dkr.ecr.ap-northeast-1.amazonaws.com"
	ecrPublic  = "public.ecr.aws"
	garHost    = "europe-west1-docker.pkg.dev"
	gcrHost    = "asia.gcr.io"
	acrHost    = "builders.azurecr.io"
	gitlabHost = "registry.gitlab.com"
	dashedHost = "my-registry.example.com"
	dottedHost = "my.registry.example.com"
)

func cloudHosts() []string {
	return []string{ecrHost, ecrPublic, garHost, gcrHost, acrHost, gitlabHost, dashedHost, dottedHost, "index.docker.io"}
}

// cloudCase is one way to get into one registry.
type cloudCase struct {
	name, host string
	env        map[string]string
	files      map[string]string // below the home directory
	user       string            // whom the registry asks for; "" for ACR's own way
	password   string
	from       string   // what the log says of the credential's origin
	asked      []string // what the cloud was asked
}

// cloudEnv joins environments; HOME in values is the home directory.
func cloudEnv(list ...map[string]string) map[string]string {
	all := map[string]string{}
	for _, env := range list {
		maps.Copy(all, env)
	}
	return all
}

func cloudCases(s *cloudtest.Server) []cloudCase {
	const region = "ap-northeast-1"
	aws := s.AWSEndpoints()
	pod, podToken := s.AWSPod("HOME/pod-token")
	cases := []cloudCase{
		{
			name: "ECR, keys and credsStore", host: ecrHost, env: cloudEnv(aws, s.AWSKeys(), map[string]string{"DOCKER_CONFIG": "HOME/d"}),
			files: map[string]string{"d/config.json": `{"credsStore":"ecr-login"}`}, from: "ecr (EnvConfigCredentials)", asked: []string{"ecr " + region + " env"},
		},
		{
			name: "ECR, profile below the home directory", host: ecrHost, env: aws,
			files: map[string]string{".aws/credentials": s.AWSProfile()}, from: "ecr (SharedConfigCredentials", asked: []string{"ecr " + region + " profile"},
		},
		{
			name: "ECR, web identity", host: ecrHost,
			env:   cloudEnv(aws, map[string]string{"AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/push", "AWS_WEB_IDENTITY_TOKEN_FILE": "HOME/token"}),
			files: map[string]string{"token": s.Subject}, from: "ecr (WebIdentityCredentials)", asked: []string{"sts web", "ecr " + region + " web"},
		},
		{
			name: "ECR, pod identity", host: ecrHost, env: cloudEnv(aws, pod),
			files: map[string]string{"pod-token": podToken}, from: "ecr (CredentialsEndpointProvider)", asked: []string{"pod", "ecr " + region + " pod"},
		},
		{
			name: "ECR, role of the machine", host: ecrHost,
			env:  cloudEnv(aws, map[string]string{"AWS_EC2_METADATA_DISABLED": "", "AWS_EC2_METADATA_SERVICE_ENDPOINT": s.URL}),
			from: "ecr (EC2RoleProvider)", asked: []string{"instance", "ecr " + region + " role"},
		},
		{name: "ECR's public registry", host: ecrPublic, env: cloudEnv(aws, s.AWSKeys()), from: "ecr (EnvConfigCredentials)", asked: []string{"ecr-public us-east-1 env"}},
	}
	for i := range cases {
		cases[i].user, cases[i].password = "AWS", s.AWSPassword
	}
	google := []cloudCase{
		{
			name: "Google, key file", host: gcrHost, env: map[string]string{"GOOGLE_APPLICATION_CREDENTIALS": "HOME/key.json"},
			files: map[string]string{"key.json": s.GoogleKey()}, from: "google (HOME/key.json)", asked: []string{"google key"},
		},
		{
			name: "Google, workload identity", host: garHost, env: map[string]string{"GOOGLE_APPLICATION_CREDENTIALS": "HOME/w.json"},
			files: map[string]string{"w.json": s.GoogleWorkload("HOME/token"), "token": s.Subject}, from: "google (HOME/w.json)", asked: []string{"google sts"},
		},
		{
			name: "Google, metadata", host: garHost, env: map[string]string{"GCE_METADATA_HOST": strings.TrimPrefix(s.URL, "http://")},
			from: "google (metadata service)", asked: []string{"google metadata"},
		},
	}
	for _, c := range google {
		c.user, c.password = "oauth2accesstoken", s.GoogleToken
		cases = append(cases, c)
	}
	return append(append(cases, azureCases(s)...), plainCases()...)
}

func azureCases(s *cloudtest.Server) []cloudCase {
	acr := []string{"acr exchange", "acr token"}
	return []cloudCase{
		{name: "ACR, secret", host: acrHost, env: cloudEnv(s.Azure(), map[string]string{"AZURE_CLIENT_SECRET": s.AzureSecret}), from: "acr (AZURE_CLIENT_SECRET)", asked: append([]string{"azure secret"}, acr...)},
		{
			name: "ACR, certificate", host: acrHost, env: cloudEnv(s.Azure(), map[string]string{"AZURE_CLIENT_CERTIFICATE_PATH": "HOME/c.pem"}),
			files: map[string]string{"c.pem": s.AzureCertificate()}, from: "acr (AZURE_CLIENT_CERTIFICATE_PATH)", asked: append([]string{"azure certificate"}, acr...),
		},
		{
			name: "ACR, federated token", host: acrHost, env: cloudEnv(s.Azure(), map[string]string{"AZURE_FEDERATED_TOKEN_FILE": "HOME/token"}),
			files: map[string]string{"token": s.Subject + "\n"}, from: "acr (federated token)", asked: append([]string{"azure assertion"}, acr...),
		},
		{name: "ACR, managed identity", host: acrHost, env: s.AzureManaged(), from: "acr (managed identity)", asked: append([]string{"azure managed"}, acr...)},
	}
}

func plainCases() []cloudCase {
	const password = "Passw0rd-of-one-host"
	return []cloudCase{
		{
			name: "GitLab's user", host: gitlabHost, env: map[string]string{"CI_REGISTRY": gitlabHost, "CI_REGISTRY_USER": "ci", "CI_REGISTRY_PASSWORD": password},
			user: "ci", password: password, from: "CI_REGISTRY",
		},
		{
			name: "GitLab's job", host: gitlabHost, env: map[string]string{"CI_REGISTRY": gitlabHost, "CI_JOB_TOKEN": password},
			user: "gitlab-ci-token", password: password, from: "CI_REGISTRY",
		},
		{
			name: "GitLab's proxy", host: gitlabHost, env: map[string]string{
				"CI_DEPENDENCY_PROXY_SERVER": gitlabHost + ":443", "CI_DEPENDENCY_PROXY_USER": "gitlab-ci-token", "CI_DEPENDENCY_PROXY_PASSWORD": password,
				"CI_REGISTRY": "other." + gitlabHost, "CI_REGISTRY_USER": "u", "CI_REGISTRY_PASSWORD": "of-the-other-host",
			},
			user: "gitlab-ci-token", password: password, from: "CI_DEPENDENCY_PROXY_SERVER",
		},
		{
			name: "variables in the encoded form", host: dashedHost, env: map[string]string{
				"KANIKO_MY_2DREGISTRY_2EEXAMPLE_2ECOM_USER": "u", "KANIKO_MY_2DREGISTRY_2EEXAMPLE_2ECOM_PASSWORD": password,
				"KANIKO_MY_REGISTRY_EXAMPLE_COM_USER": "other", "KANIKO_MY_REGISTRY_EXAMPLE_COM_PASSWORD": "of-the-other-host",
			},
			user: "u", password: password, from: "KANIKO_MY_2DREGISTRY_2EEXAMPLE_2ECOM",
		},
		{
			name: "variables in the plain form", host: dottedHost, env: map[string]string{"KANIKO_MY_REGISTRY_EXAMPLE_COM_USER": "u", "KANIKO_MY_REGISTRY_EXAMPLE_COM_PASSWORD": password},
			user: "u", password: password, from: "KANIKO_MY_REGISTRY_EXAMPLE_COM",
		},
		{
			name: "Docker Hub's old key", host: "index.docker.io", env: map[string]string{"DOCKER_AUTH_CONFIG": `{"auths":{"https://index.docker.io/v2/":{"username":"u","password":"` + password + `"}}}`},
			user: "u", password: password, from: "DOCKER_AUTH_CONFIG",
		},
	}
}

// TestClouds pushes to registries by their real names, which only a network and
// a table of hosts of the test's own know.
func TestClouds(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.Need(t, "docker-registry")
	if os.Getenv("KANIKO_GO_CLOUDS") == "" {
		again(t, "KANIKO_GO_CLOUDS=1")
		return
	}
	ca := ownNetwork(t)
	s := cloudtest.New(t, ca.start)
	front := &front{acr: s}
	front.listen(t, ca)
	for _, c := range cloudCases(s) {
		t.Run(c.name, func(t *testing.T) { c.push(t, s, front, ca) })
	}
	t.Run("refused by the cloud", func(t *testing.T) {
		c := cloudCase{host: acrHost, env: cloudEnv(s.Azure(), map[string]string{"AZURE_CLIENT_SECRET": "wrong-secret-of-azure"})}
		o := c.build(t, ca, testenv.Dir(t))
		if o.Code != 6 || !strings.Contains(o.Cause, "no credentials for "+acrHost+": acr: AZURE_CLIENT_SECRET: 401 invalid_client: AADSTS7000215") || strings.Contains(o.Log, "wrong-secret") {
			t.Errorf("exit code %d\n%s", o.Code, o.Log)
		}
	})
	t.Run("nobody has any", func(t *testing.T) {
		front.serve(t, ecrHost, "AWS", s.AWSPassword)
		o := cloudCase{host: ecrHost}.build(t, ca, testenv.Dir(t))
		if o.Code != 6 || !strings.Contains(o.Log, "no credentials for "+ecrHost+" (ecr: no keys, profile, web identity or container role is configured") || o.Wall > 10*time.Second {
			t.Errorf("exit code %d after %v\n%s", o.Code, o.Wall, o.Log)
		}
	})
}

// again runs this test in a process with a network and a mount table of its own; the variable says what it is to do there.
func again(t *testing.T, variable string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	name, _, _ := strings.Cut(t.Name(), "/")
	cmd := exec.CommandContext(t.Context(), self, "-test.run", "^"+name+"$", "-test.v")
	cmd.Env = append(os.Environ(), variable, "KANIKO_GO_BINARY="+binary)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+name+"/") || strings.Contains(string(out), "--- SKIP") {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

// ownNetwork prepares the network and the names.
func ownNetwork(t *testing.T) *authority {
	t.Helper()
	if err := upLoopback(); err != nil {
		t.Fatal(err)
	}
	table := filepath.Join(testenv.Dir(t), "hosts")
	if err := os.WriteFile(table, []byte("127.0.0.1 localhost "+strings.Join(cloudHosts(), " ")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(table, "/etc/hosts", "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	return newAuthority(t, append(cloudHosts(), "localhost"))
}

func upLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
}

// front is port 443 of all hosts: TLS, and behind it the registry of a host.
type front struct {
	acr *cloudtest.Server
	mu  sync.Mutex
	to  map[string]http.Handler
}

func (f *front) listen(t *testing.T, ca *authority) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:443")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: f, TLSConfig: ca.config(), ReadHeaderTimeout: time.Minute}
	go func() { _ = server.ServeTLS(l, "", "") }()
	t.Cleanup(func() { _ = server.Close() })
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	h := f.to[r.Host]
	f.mu.Unlock()
	if h == nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	h.ServeHTTP(w, r)
}

// serve puts a new registry behind a host.
func (f *front) serve(t *testing.T, host, user, password string) *testenv.Registry {
	t.Helper()
	r := testenv.NewRegistry(t, testenv.RegistryOptions{User: user, Password: password})
	to := &url.URL{Scheme: "http", Host: r.Host}
	var h http.Handler = &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
		p.SetURL(to)
		p.SetXForwarded()
		p.Out.Host = p.In.Host
	}}
	if user == "" {
		h = f.acr.ACR(h)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.to = map[string]http.Handler{host: h}
	return r
}

func (c cloudCase) push(t *testing.T, s *cloudtest.Server, f *front, ca *authority) {
	t.Helper()
	r := f.serve(t, c.host, c.user, c.password)
	before := len(s.Asked())
	home := testenv.Dir(t)
	o := c.build(t, ca, home)
	if o.Code != 0 {
		t.Fatalf("exit code %d\n%s", o.Code, o.Log)
	}
	mustBeClean(t, o)
	tags, err := r.Files("team/app/_manifests/tags/1/current/link")
	if err != nil || len(tags) != 1 {
		t.Errorf("the registry has tags %v (%v)", tags, err)
	}
	line := "credentials for " + c.host + " from " + strings.ReplaceAll(c.from, "HOME", home)
	if strings.Count(o.Log, line) != 1 || strings.Count(o.Log, "credentials for") != 1 {
		t.Errorf("the log does not say once %q:\n%s", line, o.Log)
	}
	asked := slices.Compact(s.Asked()[before:]) // ACR gives a token for each purpose
	if !slices.Equal(asked, c.asked) {
		t.Errorf("the cloud was asked %q, want %q", asked, c.asked)
	}
	for _, secret := range append(s.Secrets(), c.password) {
		if secret != "" && strings.Contains(o.Log, secret) {
			t.Errorf("the log tells %q:\n%s", secret, o.Log)
		}
	}
}

func (c cloudCase) build(t *testing.T, ca *authority, home string) testenv.Outcome {
	t.Helper()
	for name, text := range c.files {
		full := filepath.Join(home, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(strings.ReplaceAll(text, "HOME", home)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	source := files{"Dockerfile": "FROM scratch\nCOPY a /\n", "a": "a\n"}.write(t)
	env := map[string]string{
		"KANIKO_CONTEXT": source, "KANIKO_DESTINATION": fmt.Sprintf("%s/team/app:1", c.host), "HOME": home, "SSL_CERT_FILE": ca.file,
	}
	for k, v := range c.env {
		env[k] = strings.ReplaceAll(v, "HOME", home)
	}
	return testenv.Build{Binary: binary, Situation: testenv.DefaultRoot(), Env: env}.Run(t)
}

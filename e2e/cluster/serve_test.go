// SPDX-License-Identifier: Apache-2.0

//go:build cluster

package cluster

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/kaniko-go/kaniko-go/e2e/cluster/node"
)

// archive is a tar of files, compressed.
func archive(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var out bytes.Buffer
	compressed := gzip.NewWriter(&out)
	w := tar.NewWriter(compressed)
	for name, text := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := compressed.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// serve offers files as a tar at the machine's end of the wire, for pods to fetch, until the test ends.
func (p *place) serve(files map[string]string) (url string) {
	p.t.Helper()
	local := map[string]string{}
	for name, text := range files {
		local[name] = p.local(text)
	}
	data := archive(p.t, local)
	server := p.listen(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(data)
	}))
	server.Start()
	p.t.Cleanup(server.Close)
	return server.URL + "/context.tgz"
}

// serveTLS is a registry whose certificate is of an authority of its own, which the ConfigMap ca-certificates has, as the samples tell people
// to make it. It ends with the test.
func (p *place) serveTLS() (host string) {
	p.t.Helper()
	authority := newAuthority(p.t)
	server := p.listen(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{authority.server}}
	server.StartTLS()
	p.t.Cleanup(server.Close)
	file := filepath.Join(p.t.TempDir(), "ca.crt")
	if err := os.WriteFile(file, authority.pem, 0o644); err != nil {
		p.t.Fatal(err)
	}
	p.kubectl("", "create", "configmap", "ca-certificates", "--from-file="+file, "-n", p.namespace)
	trusted := http.DefaultTransport.(*http.Transport).Clone()
	trusted.TLSClientConfig = &tls.Config{RootCAs: authority.pool}
	p.transport = trusted
	return server.Listener.Addr().String()
}

// serveRefusing is a registry over plain HTTP from which all may pull, and to which nobody may push.
func (p *place) serveRefusing() (host string) {
	p.t.Helper()
	open := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := p.listen(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			open.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte(`{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}`))
	}))
	server.Start()
	p.t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// listen is a server at the machine's end of the wire that has not started.
func (p *place) listen(handler http.Handler) *httptest.Server {
	p.t.Helper()
	listener, err := net.Listen("tcp", node.HostAddress+":0")
	if err != nil {
		p.t.Fatal(err)
	}
	return &httptest.Server{Listener: listener, Config: &http.Server{Handler: handler}}
}

// authority is one that nobody trusts unasked, and the certificate of a server at the machine's end of the wire that it has signed.
type authority struct {
	pem    []byte
	pool   *x509.CertPool
	server tls.Certificate
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	sign := func(template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) *x509.Certificate {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
		if err != nil {
			t.Fatal(err)
		}
		made, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	var keys [2]*ecdsa.PrivateKey
	for i := range keys {
		var err error
		if keys[i], err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	top := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "an authority of a test"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	ca := sign(top, top, keys[0], keys[0])
	leaf := sign(&x509.Certificate{SerialNumber: big.NewInt(2), IPAddresses: []net.IP{net.ParseIP(node.HostAddress)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, ca, keys[1], keys[0])
	a := authority{pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw}), pool: x509.NewCertPool(), server: tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: keys[1]}}
	a.pool.AddCert(ca)
	return a
}

// serveGit offers files as a git repository at git://HOST:PORT/repository, until the test ends. git answers every connection itself, as inetd would
// have it, so no port is guessed.
func (p *place) serveGit(files map[string]string) (url string) {
	p.t.Helper()
	dir := p.repository(files)
	listener, err := net.Listen("tcp", node.HostAddress+":0")
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = listener.Close() })
	go answerGit(listener, filepath.Dir(dir))
	return "git://" + listener.Addr().String() + "/repository"
}

// serveGitHTTP offers files as a git repository at http://HOST:PORT/repository.git, until the test ends.
func (p *place) serveGitHTTP(files map[string]string) (url string) {
	p.t.Helper()
	dir := p.repository(files)
	if err := os.Symlink(filepath.Join(dir, ".git"), dir+".git"); err != nil {
		p.t.Fatal(err)
	}
	program, err := exec.LookPath("git")
	if err != nil {
		p.t.Fatal(err)
	}
	server := p.listen(&cgi.Handler{Path: program, Args: []string{"http-backend"}, Env: append(ownedByAnyone(), "GIT_PROJECT_ROOT="+filepath.Dir(dir), "GIT_HTTP_EXPORT_ALL=1")})
	server.Start()
	p.t.Cleanup(server.Close)
	return server.URL + "/repository.git"
}

// repository is the directory of a git repository with files in its branch main and its tag v1.
func (p *place) repository(files map[string]string) (dir string) {
	p.t.Helper()
	dir = filepath.Join(p.t.TempDir(), "repository")
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			p.t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(p.local(text)), 0o644); err != nil {
			p.t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"init", "-q", "-b", "main"}, {"add", "-A"}, {"-c", "user.name=test", "-c", "user.email=test@example.com", "commit", "-q", "-m", "Begin"}, {"tag", "v1"}} {
		cmd := exec.CommandContext(p.t.Context(), "git", append([]string{"-C", dir}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			p.t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	return dir
}

// ownedByAnyone are variables that tell git not to mind whose a repository is: it belongs to the test's user.
func ownedByAnyone() []string {
	return []string{"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}
}

// answerGit ends when the listener is closed.
func answerGit(listener net.Listener, dir string) {
	for {
		connection, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer func() { _ = connection.Close() }()
			file, err := connection.(*net.TCPConn).File()
			if err != nil {
				return
			}
			defer func() { _ = file.Close() }()
			ctx, cancel := context.WithTimeout(context.Background(), shortLimit)
			defer cancel()
			cmd := exec.CommandContext(ctx, "git", "daemon", "--inetd", "--export-all", "--base-path="+dir)
			cmd.Stdin, cmd.Stdout = file, file
			cmd.Env = append(os.Environ(), ownedByAnyone()...)
			_ = cmd.Run()
		}()
	}
}

// headOf is the commit of the branch main of a served repository.
func (p *place) headOf(url string) string {
	p.t.Helper()
	out, err := exec.CommandContext(p.t.Context(), "git", "ls-remote", url, "main").Output()
	commit, _, ok := strings.Cut(string(out), "\t")
	if err != nil || !ok {
		p.t.Fatalf("git ls-remote %s: %v %q", url, err, out)
	}
	return commit
}

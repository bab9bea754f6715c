// SPDX-License-Identifier: Apache-2.0

package contexts

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// internet is where the clouds have the names that they have: a proxy on loopback leads them to servers of the test, and an authority
// that the builder trusts gives those their certificates. So addresses, logins and signatures are what they are outside.
type internet struct {
	proxy, roots string // a URL and a file
	ca           *x509.Certificate
	key          *ecdsa.PrivateKey

	mu    sync.Mutex
	hosts map[string]string
	ready map[string]string
	asked []string
}

func newInternet(t *testing.T) *internet {
	t.Helper()
	n := &internet{hosts: map[string]string{}, ready: map[string]string{}, roots: filepath.Join(testenv.Dir(t), "roots.pem")}
	var err error
	if n.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	n.ca = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, n.ca, n.ca, &n.key.PublicKey, n.key)
	if err != nil {
		t.Fatal(err)
	}
	mustWrite(t, n.roots, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	n.proxy = "http://" + l.Addr().String()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go n.serve(c)
		}
	}()
	return n
}

// env is how the builder gets there.
func (n *internet) env() map[string]string {
	return map[string]string{"HTTPS_PROXY": n.proxy, "NO_PROXY": "", "SSL_CERT_FILE": n.roots}
}

// client is one that gets there.
func (n *internet) client(t *testing.T) *http.Client {
	t.Helper()
	proxy, err := url.Parse(n.proxy)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	text, err := os.ReadFile(n.roots)
	if err != nil || !roots.AppendCertsFromPEM(text) {
		t.Fatal("no authority", err)
	}
	transport := &http.Transport{Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// add gives a server that speaks plain http a name; TLS is spoken before it. A name that begins with *. is for all below it.
func (n *internet) add(name, url string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[name] = strings.TrimPrefix(url, "http://")
}

// addTLS gives a name to a server that speaks TLS itself, with a certificate of certify.
func (n *internet) addTLS(name, address string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ready[name] = address
}

// names are those that were asked for.
func (n *internet) names() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	slices.Sort(n.asked)
	return slices.Compact(n.asked)
}

func (n *internet) find(name string) (address string, plain bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked = append(n.asked, name)
	if address, ok := n.ready[name]; ok {
		return address, false
	}
	_, parent, _ := strings.Cut(name, ".")
	for _, known := range []string{name, "*." + parent} {
		if address, ok := n.hosts[known]; ok {
			return address, true
		}
	}
	return "", false
}

func (n *internet) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	req, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil || req.Method != http.MethodConnect {
		_, _ = io.WriteString(c, "HTTP/1.1 405 Only for CONNECT\r\nContent-Length: 0\r\n\r\n")
		return
	}
	name := req.URL.Hostname()
	address, plain := n.find(name)
	if address == "" {
		_, _ = io.WriteString(c, "HTTP/1.1 502 No such host\r\nContent-Length: 0\r\n\r\n")
		return
	}
	s, err := net.Dial("tcp", address)
	if err != nil {
		_, _ = io.WriteString(c, "HTTP/1.1 502 Nobody there\r\nContent-Length: 0\r\n\r\n")
		return
	}
	defer func() { _ = s.Close() }()
	if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		return
	}
	if plain {
		certificate, err := n.certify(name)
		if err != nil {
			return
		}
		c = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12})
		defer func() { _ = c.Close() }()
	}
	go func() {
		_, _ = io.Copy(s, c)
		_ = s.Close()
	}()
	_, _ = io.Copy(c, s)
}

// certify makes a certificate.
func (n *internet) certify(name string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "server"}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, n.ca, &key.PublicKey, n.key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// certifyTo writes a certificate and its key to files.
func (n *internet) certifyTo(t *testing.T, name string) (certificate, key string) {
	t.Helper()
	c, err := n.certify(name)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := testenv.Dir(t)
	certificate, key = filepath.Join(dir, "certificate.pem"), filepath.Join(dir, "key.pem")
	mustWrite(t, certificate, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})))
	if err := os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return certificate, key
}

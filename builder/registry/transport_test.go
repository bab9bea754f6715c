// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
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
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

func listen(t *testing.T, addr string) net.Listener {
	t.Helper()
	for range 50 {
		ln, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", addr)
		if err == nil {
			return ln
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("cannot listen on %s again", addr)
	return nil
}

func writePEM(t *testing.T, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// newTLS is a registry with a certificate that the system does not know.
func newTLS(t *testing.T, clientCAs *x509.CertPool) (host, ca string) {
	t.Helper()
	f := &fakeRegistry{}
	s := httptest.NewUnstartedServer(f.handler())
	if clientCAs != nil {
		s.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clientCAs}
	}
	s.Config.ErrorLog = quiet()
	s.StartTLS()
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "https://"), writePEM(t, "CERTIFICATE", s.Certificate().Raw)
}

func TestTLS(t *testing.T) {
	host, ca := newTLS(t, nil)
	tests := []struct {
		name string
		o    Options
		says string // "" for success
	}{
		{"unknown authority", Options{}, "KANIKO_REGISTRY_CERTIFICATE=" + host},
		{"authority of the host", Options{Certificates: map[string]string{host: ca}}, ""},
		{"authority of another host", Options{Certificates: map[string]string{"other.test": ca}}, "certificate authority"},
		{"authority for all", Options{ExtraCAs: []string{ca}}, ""},
		{"not verified", Options{SkipTLSVerify: true}, ""},
		{"not verified when pulling", Options{SkipTLSVerifyPull: true}, "certificate authority"},
		{"not verified for the host", Options{SkipTLSVerifyRegistries: []string{host}}, ""},
		{"not verified for another host", Options{SkipTLSVerifyRegistries: []string{"other.test"}}, "certificate authority"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := newClient(t, tt.o).CheckPush(context.Background(), host+"/a:1")
			if tt.says != "" {
				wantError(t, err, Refused, tt.says)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestClientCertificate(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "builder"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	host, ca := newTLS(t, pool)
	pair := ClientCert{CertFile: writePEM(t, "CERTIFICATE", der), KeyFile: writePEM(t, "EC PRIVATE KEY", keyDER)}
	with := Options{ExtraCAs: []string{ca}, ClientCerts: map[string]ClientCert{host: pair}}
	if err := newClient(t, with).CheckPush(context.Background(), host+"/a:1"); err != nil {
		t.Error(err)
	}
	elsewhere := Options{ExtraCAs: []string{ca}, ClientCerts: map[string]ClientCert{"other.test": pair}}
	err = newClient(t, elsewhere).CheckPush(context.Background(), host+"/a:1")
	wantError(t, err, Refused)
}

// A registry on plain http is used only where that was allowed. The name is one
// that is no loopback by convention, dialled through a proxy.
func TestPlainHTTP(t *testing.T) {
	f := newFake(t)
	const host = "registry.test:5000"
	proxied := func(o Options) *Client {
		o.Timing = fast
		c, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		for _, d := range []direction{pulling, pushing} {
			tr := c.hosts.transport(way{host, d})
			tr.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, f.Host)
			}
			tr.Proxy = nil
		}
		return c
	}
	for name, tt := range map[string]struct {
		o    Options
		push bool
		pull bool
	}{
		"not allowed":  {Options{}, false, false},
		"for pushing":  {Options{Insecure: true}, true, false},
		"for pulling":  {Options{InsecurePull: true}, false, true},
		"for the host": {Options{InsecureRegistries: []string{host}}, true, true},
		"another host": {Options{InsecureRegistries: []string{"registry.test"}}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			err := proxied(tt.o).CheckPush(context.Background(), host+"/a:1")
			if !tt.push {
				wantError(t, err, Refused, "KANIKO_INSECURE_REGISTRY="+host)
			} else if err != nil {
				t.Error(err)
			}
			_, err = proxied(tt.o).Resolve(context.Background(), host+"/a:1", amd64)
			if tt.pull {
				wantError(t, err, Refused, "404")
			} else {
				wantError(t, err, Refused, "plain http")
			}
		})
	}
}

// TestPlainHTTPInTrouble: a registry on plain http that answers nobody is in trouble, and has not refused anything because it does not
// speak https.
func TestPlainHTTPInTrouble(t *testing.T) {
	ln := listen(t, "127.0.0.1:0")
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			b := make([]byte, 1)
			if _, err := io.ReadFull(c, b); err == nil && b[0] != 'G' { // the beginning of TLS, not of GET
				_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
				_ = c.(*net.TCPConn).CloseWrite() //nolint:forcetypeassert // it is one
				_, _ = io.Copy(io.Discard, c)
			}
			_ = c.Close()
		}
	}()
	timing := fast
	timing.RetryBudget = 50 * time.Millisecond
	_, err := newClient(t, Options{Timing: timing}).Resolve(t.Context(), ln.Addr().String()+"/a:1", amd64)
	if e := wantError(t, err, Transient); strings.Contains(e.Reason, "HTTPS") {
		t.Errorf("the reason is not that of plain http: %v", err)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-3": 0, "soon": 0, "99999999999999": 24 * time.Hour,
		"Fri, 02 Jan 2026 03:04:35 GMT": 30 * time.Second, "Fri, 02 Jan 2026 03:00:00 GMT": 0,
	} {
		if got := parseRetryAfter(value, now); got != want {
			t.Errorf("%q: %s, want %s", value, got, want)
		}
	}
	b := &budget{total: 5 * time.Minute, connect: time.Minute, first: time.Millisecond, cap: 2 * time.Minute}
	if wait, again := b.spend(0, 24*time.Hour, false); !again || wait < 2*time.Minute || wait > 2*time.Minute+time.Second {
		t.Errorf("a day was followed for %s, %v", wait, again)
	}
}

func TestBudget(t *testing.T) {
	b := &budget{total: 10 * time.Second, connect: 3 * time.Second, first: 100 * time.Millisecond, cap: time.Second}
	var total time.Duration
	tries := 0
	for {
		wait, again := b.spend(0, 0, false)
		if !again {
			break
		}
		total += wait
		tries++
	}
	if total > 10*time.Second || tries < 5 {
		t.Errorf("%d tries in %s", tries, total)
	}
	b.progress()
	if _, again := b.spend(time.Second, 0, true); !again {
		t.Error("connecting was given up before its budget")
	}
	if _, again := b.spend(3*time.Second, 0, true); again {
		t.Error("connecting went on after its budget")
	}
	for most, want := range map[int]int{-1: 0, 1: 1, 3: 3} {
		b := &budget{total: time.Hour, connect: time.Hour, most: most, first: 1, cap: 1}
		n := 0
		for _, again := b.spend(0, 0, false); again; _, again = b.spend(0, 0, false) {
			n++
		}
		if n != want {
			t.Errorf("most %d: %d retries", most, n)
		}
	}
}

// Requests are repeated after the time that the registry asks for, and no more
// often than allowed.
func TestRetryWaits(t *testing.T) {
	f := newFake(t)
	publish(t, f.Host+"/a:1", randomImage(t, 10, 1))
	f.add(times(1, "GET", "/manifests/", 429, "Retry-After", "1"))
	log, logs := observed()
	start := time.Now()
	if _, err := newClient(t, Options{Log: log}).Resolve(context.Background(), f.Host+"/a:1", amd64); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < time.Second || took > 30*time.Second {
		t.Errorf("took %s, the registry asked for 1 s", took)
	}
	if n := logs.FilterMessageSnippet("429 Too Many Requests, asking again").Len(); n != 1 {
		t.Errorf("%d lines about it, want 1", n)
	}
	f.heal()
	f.add(times(always, "GET", "/manifests/", 502))
	f.forget()
	_, err := newClient(t, Options{PullRetries: 2}).Resolve(context.Background(), f.Host+"/a:1", amd64)
	wantError(t, err, Transient, "502 Bad Gateway")
	if n := f.count("GET", "/manifests/"); n != 3 {
		t.Errorf("asked %d times, want 3", n)
	}
}

// A download that is cut at any byte goes on there, with ranges or without.
func TestDownloadResumes(t *testing.T) {
	img := randomImage(t, 200_000, 1)
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	want, err := readLayer(layers[0])
	if err != nil {
		t.Fatal(err)
	}
	digest := digestOf(t, layers[0]).String()
	for _, ranges := range []bool{true, false} {
		for _, k := range []int{0, 1, 1024, len(want) / 2, len(want) - 1} {
			t.Run(strconv.FormatBool(ranges)+" "+strconv.Itoa(k), func(t *testing.T) {
				t.Parallel()
				f := newFake(t)
				publish(t, f.Host+"/a:1", img)
				var mu sync.Mutex
				cuts := 2
				f.add(func(w http.ResponseWriter, r *http.Request) bool {
					mu.Lock()
					defer mu.Unlock()
					if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, digest) {
						return false
					}
					if cuts == 0 {
						if !ranges {
							r.Header.Del("Range")
						}
						return false
					}
					cuts--
					w.Header().Set("Content-Length", strconv.Itoa(len(want)))
					w.WriteHeader(http.StatusOK)
					_, _ = w.Write(want[:k])
					_ = http.NewResponseController(w).Flush()
					panic(http.ErrAbortHandler)
				})
				got, err := newClient(t, Options{}).Resolve(context.Background(), f.Host+"/a:1", amd64)
				if err != nil {
					t.Fatal(err)
				}
				ls, err := got.Layers()
				if err != nil {
					t.Fatal(err)
				}
				data, err := readLayer(ls[0])
				if err != nil {
					t.Fatal(err)
				}
				if string(data) != string(want) {
					t.Error("the bytes differ")
				}
			})
		}
	}
}

// A server that accepts and then says nothing is given up, in all three phases.
func TestStalls(t *testing.T) {
	// A machine that is busy has time to connect, which counts as waiting for an answer too. Whichever of the limits ends a request, the
	// reason is one.
	timing := fast
	timing.NoProgress, timing.ResponseHeader, timing.Connect, timing.Commit = 100*time.Millisecond, 100*time.Millisecond, 3*time.Second, 100*time.Millisecond
	stalls := Options{Timing: timing, PushRetries: -1, PullRetries: -1}
	tests := []struct {
		name  string
		fault fault
	}{
		{"before the answer", func(_ http.ResponseWriter, r *http.Request) bool {
			if strings.Contains(r.URL.Path, "/manifests/") {
				<-r.Context().Done()
				return true
			}
			return false
		}},
		{"in the answer", func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/manifests/") {
				return false
			}
			_, _ = io.WriteString(w, "{")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			return true
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t, tt.fault)
			_, err := newClient(t, stalls).Resolve(context.Background(), f.Host+"/a:1", amd64)
			wantError(t, err, Transient, "no byte moved")
		})
	}
	t.Run("in the upload", func(t *testing.T) {
		t.Parallel()
		over := make(chan struct{})
		f := newFake(t, func(_ http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPatch {
				<-over // never reads
				return true
			}
			return false
		})
		err := newClient(t, stalls).Upload(context.Background(), f.Host+"/a:1", randomLayer(t, 32<<20))
		close(over)
		wantError(t, err, Transient, "no byte moved")
	})
}

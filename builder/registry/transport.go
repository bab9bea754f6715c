// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"sync"
	"time"
)

// ClientCert is a certificate that we show to one registry.
type ClientCert struct {
	CertFile string // PEM
	KeyFile  string // PEM
}

// hosts sends each request with the TLS settings of the host it goes to, and of
// no other: a client certificate or a private authority for a registry means
// nothing to the storage that it redirects to.
type hosts struct {
	timing  Timing
	proxy   func(*http.Request) (*url.URL, error)
	roots   *x509.CertPool
	skipAll map[direction]bool
	skip    map[string]bool
	pools   map[string]*x509.CertPool
	certs   map[string]tls.Certificate

	mu         sync.Mutex
	transports map[way]*http.Transport
}

// way is what connections are kept for: whether a certificate is checked may depend on both.
type way struct {
	host      string
	direction direction
}

// directed is hosts for one direction.
type directed struct {
	*hosts
	direction direction
}

// newHosts reads every certificate once; an error names the file.
func newHosts(o Options) (*hosts, error) {
	h := &hosts{
		timing: o.Timing, proxy: o.Proxy,
		skipAll:    map[direction]bool{pushing: o.SkipTLSVerify, pulling: o.SkipTLSVerifyPull},
		skip:       hostSet(o.SkipTLSVerifyRegistries),
		pools:      map[string]*x509.CertPool{},
		certs:      map[string]tls.Certificate{},
		transports: map[way]*http.Transport{},
	}
	if h.proxy == nil {
		h.proxy = http.ProxyFromEnvironment
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool() // an image without any: ExtraCAs may be all there is
	}
	for _, file := range o.ExtraCAs {
		if err := addCA(roots, file); err != nil {
			return nil, err
		}
	}
	h.roots = roots
	for _, host := range slices.Sorted(maps.Keys(o.Certificates)) {
		pool := roots.Clone()
		if err := addCA(pool, o.Certificates[host]); err != nil {
			return nil, fmt.Errorf("registry certificate of %s: %w", host, err)
		}
		h.pools[canonicalHost(host)] = pool
	}
	for _, host := range slices.Sorted(maps.Keys(o.ClientCerts)) {
		c := o.ClientCerts[host]
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("client certificate for %s (%s, %s): %w", host, c.CertFile, c.KeyFile, err)
		}
		h.certs[canonicalHost(host)] = pair
	}
	return h, nil
}

func addCA(pool *x509.CertPool, file string) error {
	pem, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("certificate authority: %w", err)
	}
	if !pool.AppendCertsFromPEM(pem) {
		return fmt.Errorf("certificate authority: %s holds no PEM certificate", file)
	}
	return nil
}

// RoundTrip implements [http.RoundTripper].
func (h directed) RoundTrip(req *http.Request) (*http.Response, error) {
	return h.transport(way{canonicalHost(req.URL.Host), h.direction}).RoundTrip(req) //nolint:wrapcheck // a transport passes errors on
}

func (h *hosts) transport(w way) *http.Transport {
	h.mu.Lock()
	defer h.mu.Unlock()
	host := w.host
	if t := h.transports[w]; t != nil {
		return t
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: h.roots}
	if pool := h.pools[host]; pool != nil {
		conf.RootCAs = pool
	}
	if cert, ok := h.certs[host]; ok {
		conf.Certificates = []tls.Certificate{cert}
	}
	conf.InsecureSkipVerify = h.skipAll[w.direction] || h.skip[host]
	t := &http.Transport{
		Proxy:               h.proxy,
		DialContext:         (&net.Dialer{Timeout: h.timing.Connect, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:     conf,
		TLSHandshakeTimeout: h.timing.Connect,
		IdleConnTimeout:     90 * time.Second,
		MaxIdleConnsPerHost: 16,
		// Layers are compressed already, and their digests are of what is sent.
		DisableCompression: true,
		// HTTP/1.1 only, which a TLS config of one's own means: one connection for
		// each blob is faster than streams that share a window, and HTTP/2 servers end
		// long uploads with GOAWAY.
		ForceAttemptHTTP2: false,
	}
	h.transports[w] = t
	return t
}

func (h *hosts) closeIdle() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range h.transports {
		t.CloseIdleConnections()
	}
}

func hostSet(list []string) map[string]bool {
	set := map[string]bool{}
	for _, host := range list {
		set[canonicalHost(host)] = true
	}
	return set
}

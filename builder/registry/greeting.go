// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"io"
	"net/http"
	"sync"
)

// greetings are the answers to "GET /v2/" without credentials, which every login begins with and which says how a
// registry wants to be talked to. One answer serves all repositories, as the question names none.
type greetings struct {
	mu      sync.Mutex
	answers map[greetingKey]*greeting
}

// greetingKey tells the directions apart where it depends on them whether a certificate is checked.
type greetingKey struct {
	scheme, host string
	apart        direction
}

type greeting struct {
	status int
	proto  string
	header http.Header
	body   []byte
}

// greeter answers what was asked before from memory.
type greeter struct {
	next  http.RoundTripper
	known *greetings
	apart direction
}

// RoundTrip implements [http.RoundTripper]. Only the two answers that a login can go on with are kept.
func (g *greeter) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method != http.MethodGet || req.URL.Path != "/v2/" || req.URL.RawQuery != "" || req.Header.Get("Authorization") != "" {
		return g.next.RoundTrip(req) //nolint:wrapcheck // a transport passes errors on
	}
	key := greetingKey{req.URL.Scheme, canonicalHost(req.URL.Host), g.apart}
	if known := g.known.find(key); known != nil {
		return known.response(req), nil
	}
	resp, err := g.next.RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusUnauthorized {
		return resp, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	_ = resp.Body.Close()
	if err != nil {
		return nil, err
	}
	a := &greeting{resp.StatusCode, resp.Proto, resp.Header.Clone(), body}
	g.known.keep(key, a)
	return a.response(req), nil
}

func (g *greetings) find(key greetingKey) *greeting {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.answers[key]
}

func (g *greetings) keep(key greetingKey, a *greeting) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.answers == nil {
		g.answers = map[greetingKey]*greeting{}
	}
	g.answers[key] = a
}

func (g *greeting) response(req *http.Request) *http.Response {
	return &http.Response{
		Status: http.StatusText(g.status), StatusCode: g.status, Proto: g.proto, ProtoMajor: 1, ProtoMinor: 1,
		Header: g.header.Clone(), Body: io.NopCloser(bytes.NewReader(g.body)), ContentLength: int64(len(g.body)), Request: req,
	}
}

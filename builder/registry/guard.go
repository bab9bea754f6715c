// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"crypto/sha256"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"

	"golang.org/x/net/publicsuffix"
)

const maxRedirects = 5

// guard is the last thing a request for one registry passes before the network.
// Whatever the layers above decided, no credential of the registry leaves for
// another host than itself or a token server that may have it, and nothing is
// sent over plain http where that was not allowed.
type guard struct {
	next    http.RoundTripper
	home    string // canonical host[:port] of the registry
	plain   bool   // plain http to the registry is allowed
	plainTo func(host string) bool
	realms  map[string]bool // token servers outside the registry's domain that may see credentials

	bearers sync.Map // hashes of the tokens that home got
}

// RoundTrip refuses the request or passes it on.
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := g.check(req); err != nil {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, err
	}
	resp, err := g.next.RoundTrip(req)
	if err != nil && req.URL.Scheme == "http" {
		err = &plainError{err}
	}
	return resp, err //nolint:wrapcheck // a transport passes errors on
}

// plainError is the failure of a request over plain http. A registry that may be on plain http is greeted in both ways, and where it
// says that it is, this is the failure that counts, and not that https is none.
type plainError struct{ err error }

func (e *plainError) Error() string { return e.err.Error() }
func (e *plainError) Unwrap() error { return e.err }

func (g *guard) check(req *http.Request) error {
	host := canonicalHost(req.URL.Host)
	if req.URL.Scheme != "https" && !g.plain && !g.plainTo(host) {
		return fmt.Errorf("%w: %s (allow it with KANIKO_INSECURE_REGISTRY=%s)", errPlainHTTP, host, host)
	}
	kind, secret, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	sum := sha256.Sum256([]byte(secret))
	if host == g.home {
		if strings.EqualFold(kind, "Bearer") {
			g.bearers.Store(sum, true)
		}
		return nil
	}
	// A token of our own making must not follow a redirect. (A token that another
	// registry gave to an anonymous client, after a redirect to it, may be sent there.)
	if _, ours := g.bearers.Load(sum); ours && secret != "" {
		return fmt.Errorf("%w: a token for %s to %s", errForeignRealm, g.home, host)
	}
	// OAuth2 token requests carry the secret in a form.
	form := req.Method == http.MethodPost && strings.HasPrefix(req.Header.Get("Content-Type"), "application/x-www-form-urlencoded")
	if (form || (secret != "" && !strings.EqualFold(kind, "Bearer"))) && !g.trustsRealm(host) {
		return fmt.Errorf("%w: %s asks to log in at %s", errForeignRealm, g.home, host)
	}
	return nil
}

// trustsRealm reports whether a token server may see the registry's credentials:
// one of the same registrable domain (registry.example.com and
// gitlab.example.com), or one that is listed.
func (g *guard) trustsRealm(host string) bool {
	if g.realms[host] {
		return true
	}
	realm, home := hostOnly(host), hostOnly(g.home)
	if _, err := netip.ParseAddr(realm); err == nil {
		return false // addresses have no domain
	}
	if strings.HasSuffix(home, ".scw.cloud") && realm == "api.scaleway.com" {
		return true // Scaleway's registry logs in at its API
	}
	a, errA := publicsuffix.EffectiveTLDPlusOne(realm)
	b, errB := publicsuffix.EffectiveTLDPlusOne(home)
	return errA == nil && errB == nil && a == b
}

// redirect decides about a redirect of a request to this registry. It keeps the
// loop short and does not let a registry point us at addresses that only we can
// reach, such as a cloud's metadata service.
func (g *guard) redirect(req *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return fmt.Errorf("%w: more than %d in a row", errRedirect, maxRedirects)
	}
	return g.mayVisit(req.URL.Host)
}

// mayVisit reports whether the registry may send us to a host.
func (g *guard) mayVisit(host string) error {
	if canonicalHost(host) == g.home || g.plain || !privateAddress(host) || privateAddress(g.home) {
		return nil
	}
	return fmt.Errorf("%w: %s points to the private address %s", errRedirect, g.home, host)
}

// privateAddress reports whether host is an IP literal that is not on the public
// internet. Names are not looked up.
func privateAddress(host string) bool {
	addr, err := netip.ParseAddr(hostOnly(host))
	if err != nil {
		return false
	}
	addr = addr.Unmap()
	return addr.IsLoopback() || addr.IsPrivate() || addr.IsLinkLocalUnicast() || addr.IsUnspecified() || addr.IsMulticast()
}

// isLoopback follows ggcr's convention of registries that may be on plain http
// without saying so.
func isLoopback(host string) bool {
	h := hostOnly(host)
	return h == "localhost" || strings.HasSuffix(h, ".localhost") || h == "127.0.0.1" || h == "::1"
}

// hostOnly removes a port and the brackets of an IPv6 address.
func hostOnly(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return strings.Trim(host, "[]")
}

// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"syscall"
)

// journey is one download with all its redirects, or one repository with all its requests.
type journey struct {
	// host is the host[:port] that the user named.
	host string
	// foreign says that not the user but a server named it: the repository of a submodule.
	foreign bool

	mu sync.Mutex
	// local says that the user's host is this machine, so that a redirect may stay on it.
	local bool
	// status and err are what the last request came to.
	status int
	err    error
}

type journeyKey struct{}

func withJourney(ctx context.Context, j *journey) context.Context {
	return context.WithValue(ctx, journeyKey{}, j)
}

// journeyOf returns the journey of a request. Without one it is a stranger's.
func journeyOf(ctx context.Context) *journey {
	if j, ok := ctx.Value(journeyKey{}).(*journey); ok {
		return j
	}
	return &journey{foreign: true}
}

func (j *journey) note(resp *http.Response, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.status, j.err = 0, err
	if resp != nil {
		j.status = resp.StatusCode
	}
}

// last returns what the last request came to.
func (j *journey) last() (status int, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.status, j.err
}

func (j *journey) isLocal() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.local
}

// hop is one request of a journey, for the dialer.
type hop struct {
	journey *journey
	// redirected says that a server chose the host.
	redirected bool
	// proxied says that the connection is to a proxy, which the user chose.
	proxied bool
}

type hopKey struct{}

func isRedirected(ctx context.Context, u *url.URL) bool {
	j := journeyOf(ctx)
	// An empty port, as in http://host:/, is one to the user and none to the HTTP client.
	return j.foreign || !strings.EqualFold(strings.TrimSuffix(u.Host, ":"), strings.TrimSuffix(j.host, ":"))
}

// checkName judges a host that is an address already: behind a proxy nobody else does.
func (h hop) checkName(host string) error {
	switch strings.ToLower(strings.TrimSuffix(host, ".")) {
	case "localhost":
		host = "127.0.0.1"
	case "metadata.google.internal":
		return fmt.Errorf("%w: %s is a metadata service", ErrForbidden, host)
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return h.check(addr)
	}
	return nil
}

// checkDial judges the address that a name has come to, right before it is connected to: a name cannot
// change its mind in between.
func checkDial(ctx context.Context, _, address string, _ syscall.RawConn) error {
	h, ok := ctx.Value(hopKey{}).(hop)
	if !ok {
		h = hop{journey: journeyOf(ctx), redirected: journeyOf(ctx).foreign}
	}
	if h.proxied {
		return nil
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return err
	}
	return h.check(addr)
}

// check refuses addresses that answer with the credentials of the machine to whoever asks, and this machine
// itself where a server led us here.
func (h hop) check(addr netip.Addr) error {
	addr = embedded(addr)
	if isMetadata(addr) {
		return fmt.Errorf("%w: %s is a link-local or metadata address", ErrForbidden, addr)
	}
	if !addr.IsLoopback() && !addr.IsUnspecified() {
		return nil
	}
	h.journey.mu.Lock()
	defer h.journey.mu.Unlock()
	switch {
	case !h.redirected:
		h.journey.local = true
	case !h.journey.local:
		return fmt.Errorf("%w: a server elsewhere leads to this machine, %s", ErrForbidden, addr)
	}
	return nil
}

// embedded returns the IPv4 address in an IPv6 one: mapped, or translated by NAT64 (RFC 6052).
func embedded(addr netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
	if addr.Is6() && netip.MustParsePrefix("64:ff9b::/96").Contains(addr) {
		b := addr.As16()
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return addr
}

// isMetadata knows the link-local ranges and the metadata services that lie elsewhere (AWS over IPv6, Alibaba,
// Azure, Oracle).
func isMetadata(addr netip.Addr) bool {
	if addr.IsLinkLocalUnicast() || addr.IsLinkLocalMulticast() || addr.IsInterfaceLocalMulticast() || addr.IsMulticast() {
		return true
	}
	switch addr.String() {
	case "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192":
		return true
	}
	return false
}

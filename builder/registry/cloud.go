// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"go.uber.org/zap"
)

// The clouds whose registries a Client can log in to.
const (
	ECR    = "ecr"    // Amazon's, public.ecr.aws too
	Google = "google" // Artifact Registry and Container Registry
	ACR    = "acr"    // Azure's
)

const (
	// A metadata service is beside the machine: it answers at once, or is not there.
	probeLimit = 2 * time.Second
	loginLimit = 30 * time.Second
	// A credential that ends sooner is replaced before it is used.
	renewBefore = time.Minute
	// After a failure nobody is asked again for this long.
	failedFor = 15 * time.Second
)

// cloud is the login to the registries of one cloud. It is safe for concurrent use.
type cloud struct {
	name    string
	helpers []string // what config.json calls the program that this stands in for
	// owns tells by its whole name whether a host is a registry of the cloud.
	owns func(host string) bool
	// login gets a credential for a host that the cloud owns. An [noLoginError] error
	// says that nobody has configured one.
	login func(ctx context.Context, host string) (token, error)

	mu    sync.Mutex
	auths map[string]*cloudAuth
}

// token is a credential with an end.
type token struct {
	auth    authn.AuthConfig
	from    string // which of the cloud's ways has led to it
	expires time.Time
}

// noLoginError is why a cloud has no credential when nobody has asked it for one.
type noLoginError struct{ why string }

func (e *noLoginError) Error() string { return e.why }

// newClouds reads the files that the options name, and nothing from the network.
// What is wrong with them shows when a registry of the cloud is asked for.
func newClouds(ctx context.Context, o Options, registries, logins *hosts) []*cloud {
	patient := func(h *hosts) *http.Client {
		return &http.Client{CheckRedirect: noRedirect, Transport: &retrier{
			next: directed{h, pulling},
			budget: func() *budget {
				return &budget{total: loginLimit, connect: loginLimit, first: o.Timing.FirstDelay, cap: loginLimit}
			},
			sleep: o.Clock.Sleep,
			log:   zap.NewNop(), // the failure is told where the login is
		}}
	}
	once := &http.Client{Transport: directed{logins, pulling}, CheckRedirect: noRedirect}
	return []*cloud{
		newECR(ctx, logins),
		newGoogle(o.Google, patient(logins), once),
		newACR(o.Azure, once, patient(registries)),
	}
}

// cloudOf finds the cloud that stands in for a credential helper.
func cloudOf(clouds []*cloud, helper string) *cloud {
	for _, c := range clouds {
		if slices.Contains(c.helpers, helper) {
			return c
		}
	}
	return nil
}

// find logs in to a host, if it is the cloud's.
func (c *cloud) find(ctx context.Context, host string) answer {
	if !c.owns(host) {
		return answer{}
	}
	c.mu.Lock()
	a := c.auths[host]
	if a == nil {
		a = &cloudAuth{cloud: c, host: host}
		if c.auths == nil {
			c.auths = map[string]*cloudAuth{}
		}
		c.auths[host] = a
	}
	c.mu.Unlock()
	t, err := a.token(ctx)
	var none *noLoginError
	switch {
	case errors.As(err, &none):
		return answer{from: c.name, why: none.why}
	case err != nil:
		return answer{from: c.name, err: err}
	}
	return answer{auth: a, from: c.name + " (" + t.from + ")"}
}

// cloudAuth is the credential of one host. Whoever uses it for long gets a new
// one when the old one ends.
type cloudAuth struct {
	cloud *cloud
	host  string

	mu     sync.Mutex
	have   token
	failed error
	until  time.Time // the failure is believed until then
}

// Authorization implements [authn.Authenticator].
func (a *cloudAuth) Authorization() (*authn.AuthConfig, error) {
	return a.AuthorizationContext(context.Background())
}

// AuthorizationContext implements [authn.ContextAuthenticator].
func (a *cloudAuth) AuthorizationContext(ctx context.Context) (*authn.AuthConfig, error) {
	t, err := a.token(ctx)
	if err != nil {
		return nil, needed(a.host, err)
	}
	auth := t.auth
	return &auth, nil
}

// token returns the credential, a new one if the old one ends soon. While the
// cloud has trouble the old one is used to its end.
func (a *cloudAuth) token(ctx context.Context) (token, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if now.Before(a.have.expires.Add(-renewBefore)) {
		return a.have, nil
	}
	if a.failed == nil || !now.Before(a.until) {
		a.renew(ctx)
	}
	if a.failed != nil && !time.Now().Before(a.have.expires) {
		return token{}, a.failed
	}
	return a.have, nil
}

func (a *cloudAuth) renew(ctx context.Context) {
	t, err := a.cloud.login(ctx, a.host)
	if err == nil {
		a.have, a.failed = t, nil
		return
	}
	a.failed, a.until = err, time.Now().Add(failedFor)
	if ctx.Err() != nil {
		a.until = time.Time{} // the failure is the caller's
	}
}

// forLogins is h for the requests of logins: the same authorities, but no leave
// to accept just any certificate, and no proxy to what is on the machine's own
// link, as metadata services are: a proxy has another link.
func (h *hosts) forLogins() *hosts {
	return &hosts{
		timing: h.timing, roots: h.roots, skip: h.skip, pools: h.pools, certs: h.certs,
		proxy: func(req *http.Request) (*url.URL, error) {
			if privateAddress(req.URL.Host) || hostOnly(req.URL.Host) == "metadata.google.internal" {
				return nil, nil //nolint:nilnil // no proxy, as in net/http
			}
			return h.proxy(req)
		},
		transports: map[way]*http.Transport{},
	}
}

// noRedirect ends a login that is sent elsewhere: it carries a secret.
func noRedirect(*http.Request, []*http.Request) error { return errRedirect }

// shown is the part of a cloud's answer that may be in a log: its first line, cut,
// without anything that is secret, for a server may well repeat what it was sent.
func shown(text string, secrets ...string) string {
	for _, s := range secrets {
		if len(s) >= 4 {
			text = strings.ReplaceAll(text, s, "xxxxx")
		}
	}
	text, _, _ = strings.Cut(strings.TrimSpace(text), "\n")
	return escape(strings.TrimSpace(text))
}

// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"go.uber.org/zap"
)

// Options say how registries are reached. The zero value talks to public
// registries anonymously. A host is written as in references, with its port when
// it has one; docker.io and index.docker.io are the same.
type Options struct {
	DockerConfig string   // directory with config.json or .dockerconfigjson, or such a file; may be absent
	AuthJSON     []byte   // content of DOCKER_AUTH_CONFIG; wins over the file
	Logins       []Login  // asked after both
	Clouds       []string // of ECR, Google and ACR: those that are asked about their own registries, last, even when config.json names no helper
	Google       GoogleLogin
	Azure        AzureLogin

	Insecure           bool     // plain http is allowed for pushing
	InsecurePull       bool     // plain http is allowed for pulling
	InsecureRegistries []string // hosts for which it is allowed for both

	SkipTLSVerify           bool                  // for every host when pushing, redirects included
	SkipTLSVerifyPull       bool                  // likewise when pulling
	SkipTLSVerifyRegistries []string              // for these hosts
	Certificates            map[string]string     // host -> PEM file of its authorities, beside the system's
	ClientCerts             map[string]ClientCert // host -> what we show it
	ExtraCAs                []string              // PEM files of authorities for every host
	TokenRealms             []string              // token servers outside a registry's domain that may see its credentials

	Mirrors             []string            // of Docker Hub: host or host/path, tried in order before it
	Maps                map[string][]string // host -> mirrors of it, likewise
	SkipDefaultFallback bool                // fail when all mirrors fail

	// The most retries of one operation; 0: as many as the budget allows; negative: none.
	PushRetries, PullRetries int
	// KeepImmutable makes a warning of a registry that refuses to move a tag because tags are immutable there. The image is in the repository by its digest.
	KeepImmutable bool
	UserAgent     string // begins the User-Agent header
	Timing        Timing
	Proxy         func(*http.Request) (*url.URL, error) // nil: by the environment, as everywhere in Go
	Log           *zap.Logger                           // nil: silent
	Progress      func(Event)                           // called concurrently, must be quick; nil: nobody asks
	Clock         Clock                                 // the zero value is the real one
}

// Event is one report about a blob on its way.
type Event struct {
	Op          string // "pull", "push", "mount", "exists"
	Digest      v1.Hash
	Ref         string // repository it comes from or goes to
	Done, Total int64  // compressed bytes; Done may fall when an upload starts again
	Finished    bool   // the last report: all bytes moved and verified, or none had to
}

// Client talks to registries. It reads credentials and certificates once, keeps
// connections and tokens, and gives the same answer for a reference as long as
// it lives. It is safe for concurrent use.
type Client struct {
	o          Options
	log        *zap.Logger
	sources    []source
	clouds     []*cloud
	hosts      *hosts
	logins     *hosts // for what is asked before a registry is
	insecure   map[string]bool
	realms     map[string]bool
	ctx        context.Context //nolint:containedctx // the life of transfers through v1.Layer, which knows no context
	cancel     context.CancelFunc
	uploadSlot chan struct{}

	sessions memo[sessionKey, *session]
	tops     memo[string, *fetched]
	images   memo[imageKey, *Image]
	probes   memo[string, struct{}]
	uploads  memo[blobKey, struct{}]
	greeted  greetings

	mu         sync.Mutex
	holders    map[blobKeyOnHost]name.Repository // where on a host a blob is known to be
	mounted    map[blobKey]bool                  // blobs that a registry mounted
	refusals   map[mountKey]int                  // mounts that it refused
	monolithic map[string]bool                   // hosts that do not know PATCH
	piecewise  map[string]bool                   // hosts that want PATCH
	pieces     map[string]int64                  // bytes that hosts take with one request, of those that refused more
	told       map[string]bool                   // lines about credentials that are in the log
}

type blobKeyOnHost struct {
	host   string
	digest v1.Hash
}

// parallelUploads keeps a few transfers busy without starving one another.
const parallelUploads = 6

// New reads the files that the options name; an error names the file.
func New(o Options) (*Client, error) {
	o.Timing = o.Timing.withDefaults()
	o.Clock = o.Clock.withDefaults()
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	hosts, err := newHosts(o)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &Client{
		o: o, log: o.Log, hosts: hosts, logins: hosts.forLogins(),
		insecure: hostSet(o.InsecureRegistries), realms: hostSet(o.TokenRealms),
		ctx: ctx, cancel: cancel,
		uploadSlot: make(chan struct{}, parallelUploads),
		holders:    map[blobKeyOnHost]name.Repository{},
		mounted:    map[blobKey]bool{},
		refusals:   map[mountKey]int{},
		monolithic: map[string]bool{},
		piecewise:  map[string]bool{},
		pieces:     map[string]int64{},
		told:       map[string]bool{},
	}
	c.clouds = newClouds(c.ctx, o, c.hosts, c.logins)
	var notes []string
	if c.sources, notes, err = credentialSources(o, c.clouds); err != nil {
		cancel()
		return nil, err
	}
	for _, note := range notes {
		c.log.Warn(note)
	}
	return c, nil
}

// Close ends every transfer that is under way through a v1.Layer of this client
// and closes idle connections. It never fails.
func (c *Client) Close() {
	c.cancel()
	c.hosts.closeIdle()
	c.logins.closeIdle()
}

func (c *Client) newBudget(d direction) *budget {
	t := c.o.Timing
	most := c.o.PullRetries
	if d == pushing {
		most = c.o.PushRetries
	}
	return &budget{total: t.RetryBudget, connect: t.ConnectBudget, most: most, first: t.FirstDelay, cap: t.RetryAfterCap}
}

// direction is what a session is for; plain http is allowed by direction.
type direction bool

const (
	pulling direction = false
	pushing direction = true
)

// plain reports whether plain http is allowed to a host.
func (c *Client) plain(host string, d direction) bool {
	h := canonicalHost(host)
	return isLoopback(h) || c.insecure[h] || (d == pushing && c.o.Insecure) || (d == pulling && c.o.InsecurePull)
}

type sessionKey struct {
	repo      string
	direction direction
	mountFrom string // repository that the token must allow to read as well
}

// session is a logged-in way to one repository.
type session struct {
	client     *Client
	repo       name.Repository
	http       *http.Client
	guard      *guard
	credential string // name of its source
	noLogin    error  // why there is no credential although one was configured
}

// session logs in to a repository, once for each purpose.
func (c *Client) session(ctx context.Context, repo name.Repository, d direction, mountFrom string) (*session, error) {
	key := sessionKey{repo.Name(), d, mountFrom}
	return c.sessions.do(ctx, key, func() (*session, error) {
		cred := c.credential(ctx, repo)
		if cred.err != nil && d == pushing {
			return nil, needed(canonicalHost(repo.RegistryStr()), cred.err)
		}
		g := &guard{
			next: &retrier{
				next:   &watchdog{next: directed{c.hosts, d}, timing: c.o.Timing},
				budget: func() *budget { return c.newBudget(d) },
				sleep:  c.o.Clock.Sleep,
				log:    c.log,
			},
			home:    canonicalHost(repo.RegistryStr()),
			plain:   c.plain(repo.RegistryStr(), d),
			plainTo: func(host string) bool { return c.plain(host, d) },
			realms:  c.realms,
		}
		scopes := []string{repo.Scope(transport.PullScope)}
		if d == pushing {
			scopes = []string{repo.Scope(transport.PushScope)}
		}
		if mountFrom != "" {
			scopes = append(scopes, "repository:"+mountFrom+":pull")
		}
		inner := transport.NewUserAgent(g, c.o.UserAgent)
		var outer http.RoundTripper
		err := c.persist(ctx, d, func(ctx context.Context) error {
			var err error
			outer, err = transport.NewWithContext(ctx, repo.Registry, cred.auth, &greeter{inner, &c.greeted, d && c.hosts.skipAll[pushing] != c.hosts.skipAll[pulling]}, scopes)
			return err //nolint:wrapcheck // it is told apart below
		})
		if err != nil && cred.err != nil && isRefusal(err) {
			return nil, needed(canonicalHost(repo.RegistryStr()), cred.err)
		}
		if err != nil {
			return nil, &loginError{err: challenge(err), credential: cred.source}
		}
		return &session{
			client:     c,
			repo:       repo,
			http:       &http.Client{Transport: outer, CheckRedirect: g.redirect},
			guard:      g,
			credential: cred.source,
			noLogin:    cred.err,
		}, nil
	})
}

// credential finds the credential for a repository and tells the log about it,
// once for each registry, or more often where its repositories have several.
func (c *Client) credential(ctx context.Context, repo name.Repository) credential {
	cred := resolve(ctx, c.sources, repo)
	if len(c.sources) > 0 {
		line := cred.line(canonicalHost(repo.RegistryStr()))
		c.mu.Lock()
		told := c.told[line]
		c.told[line] = true
		c.mu.Unlock()
		if !told {
			c.log.Info(line)
		}
	}
	return cred
}

// loginError keeps the origin of the credential with the failure of a login.
type loginError struct {
	err        error
	credential string
}

func (e *loginError) Error() string { return e.err.Error() }
func (e *loginError) Unwrap() error { return e.err }

// challenge marks how a registry asks for a login when that leads nowhere, now or later: no token server, or one on plain http or at a
// private address that is not the registry's. ggcr has no types for it.
func challenge(err error) error {
	if strings.Contains(err.Error(), "www-authenticate") {
		return fmt.Errorf("%w: %w", errChallenge, err)
	}
	return err
}

// url returns the address of something in the repository: "manifests", "blobs".
func (s *session) url(kind, id string) *url.URL {
	return &url.URL{
		Scheme: s.repo.Scheme(), Host: s.repo.RegistryStr(),
		Path: fmt.Sprintf("/v2/%s/%s/%s", s.repo.RepositoryStr(), kind, id),
	}
}

// do sends a request without a body and accepts only the given statuses. The
// caller closes the answer's body.
func (s *session) do(ctx context.Context, method string, u *url.URL, header http.Header, allowed ...int) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	return s.send(req, allowed...)
}

func (s *session) send(req *http.Request, allowed ...int) (*http.Response, error) {
	resp, err := s.http.Do(req)
	if err != nil {
		return nil, unwrapURL(err)
	}
	if err := checkStatus(resp, allowed...); err != nil {
		_ = resp.Body.Close()
		if s.noLogin != nil && isRefusal(err) {
			return nil, needed(canonicalHost(s.repo.RegistryStr()), s.noLogin)
		}
		return nil, err
	}
	return resp, nil
}

// isRefusal reports whether a registry wants to know who asks, or knows and refuses.
func isRefusal(err error) bool {
	code := 0
	var status *statusError
	var login *transport.Error
	switch {
	case errors.As(err, &status):
		code = status.status
	case errors.As(err, &login):
		code = login.StatusCode
	}
	return code == http.StatusUnauthorized || code == http.StatusForbidden
}

func (c *Client) report(e Event) {
	if c.o.Progress != nil {
		c.o.Progress(e)
	}
}

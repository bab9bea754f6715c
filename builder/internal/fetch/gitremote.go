// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/transport"
	gitdaemon "github.com/go-git/go-git/v5/plumbing/transport/git"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
)

type advertisement = packp.AdvRefs

// maxAdvertisement is how long a server's list of refs may be.
const maxAdvertisement = 64 << 20

// target is what is fetched of a repository.
type target struct {
	// ref is the full name of a branch or tag, "" for a commit.
	ref string
	// want is the object to ask for, and peeled the commit behind it if it is a tag and the server says so.
	want, peeled plumbing.Hash
	// bySHA says that the object was named itself, and may be anywhere in the history.
	bySHA bool
}

func (t target) commit() Commit {
	if t.peeled.IsZero() || t.peeled == t.want {
		return Commit{Hash: t.want.String(), Ref: t.ref}
	}
	return Commit{Hash: t.peeled.String(), Tag: t.want.String(), Ref: t.ref}
}

// choose finds what a URL names among a server's refs, in git's order: a full name, a branch, a tag.
func choose(adv *advertisement, u *GitURL) (target, error) {
	name := u.Ref
	if name == "" {
		head, err := defaultBranch(adv)
		if err != nil {
			return target{}, err
		}
		name = head
	}
	for _, full := range []string{
		"refs/" + strings.TrimPrefix(name, "refs/"),
		"refs/heads/" + strings.TrimPrefix(name, "refs/heads/"),
		"refs/tags/" + strings.TrimPrefix(name, "refs/tags/"),
	} {
		if h, ok := adv.References[full]; ok {
			return target{ref: full, want: h, peeled: adv.Peeled[full]}, nil
		}
	}
	if u.Ref == "" && adv.Head != nil {
		return target{want: *adv.Head}, nil
	}
	return target{}, fmt.Errorf("repository does not contain ref %s", escape(name))
}

// defaultBranch is where the server's HEAD points; its name is as little trusted as any other.
func defaultBranch(adv *advertisement) (string, error) {
	for _, v := range adv.Capabilities.Get(capability.SymRef) {
		name, to, ok := strings.Cut(v, ":")
		if !ok || name != "HEAD" {
			continue
		}
		if err := checkRef(to); err != nil {
			return "", fmt.Errorf("%w: default branch: %w", ErrForbidden, err)
		}
		if strings.HasPrefix(to, "refs/heads/") {
			return to, nil
		}
	}
	if adv.Head == nil {
		return "", errors.New("could not find default branch for repository")
	}
	// An old or detached server: the commit is known, the branch is not.
	return "HEAD", nil
}

// journey runs work, again while it fails for a passing reason, as requests to the server of r.
func (g *git) journey(ctx context.Context, r remote, work func(context.Context) error) error {
	foreign := r.origin() != g.url.remote.origin()
	return retry(ctx, g.opts.Network, func() (time.Duration, error) {
		j := &journey{host: r.host, foreign: foreign, local: foreign && g.local}
		err := work(withJourney(ctx, j))
		if !foreign {
			g.local = g.local || j.isLocal()
		}
		return 0, g.explain(ctx, r, j, err)
	})
}

// explain makes one sentence of what the transport says, which may quote addresses and hide the cause.
func (g *git) explain(ctx context.Context, r remote, j *journey, err error) error {
	var done *Error
	if err == nil || ctx.Err() != nil || errors.As(err, &done) {
		return err
	}
	e := &Error{URL: r.String(), Err: err, Reason: escape(err.Error()), Temporary: temporary(err)}
	e.Refused = r.scheme == "ssh" && strings.Contains(err.Error(), "ssh: handshake failed") && !e.Temporary
	status, below := j.last()
	switch {
	case below != nil: // more telling than what the transport makes of it
		return fail(ctx, r.String(), below)
	case errors.Is(err, ErrForbidden):
		return fail(ctx, r.String(), err)
	case errors.Is(err, transport.ErrAuthenticationRequired), errors.Is(err, transport.ErrAuthorizationFailed):
		e.Status, e.Reason, e.Refused = status, "no credential was given for "+escape(r.host), true
		if auth, _ := g.authorization(r); auth != "" {
			e.Reason = "the credential for " + escape(r.host) + " was not accepted"
		}
	case errors.Is(err, transport.ErrRepositoryNotFound):
		e.Status, e.Reason = status, "there is no such repository, or it cannot be seen without a credential"
	case status >= http.StatusMultipleChoices:
		e.Status, e.Reason, e.Temporary = status, "", isPassing(status)
	default:
		var mine *localError
		if errors.As(err, &mine) {
			return err
		}
	}
	return e
}

// authorization is the header for a server: only for that of the user's URL, in the order BuildKit has.
func (g *git) authorization(r remote) (string, error) {
	top := g.url.remote
	if r.origin() != top.origin() {
		return "", nil
	}
	value := top.authorization()
	if g.opts.Token != nil {
		if t := g.opts.Token(top.host); t != "" {
			value = "basic " + base64.StdEncoding.EncodeToString([]byte("x-access-token:"+t))
		}
	}
	if g.opts.Header != nil {
		if h := g.opts.Header(top.host); h != "" {
			value = h
		}
	}
	if strings.ContainsAny(value, "\r\n\x00") {
		return "", &Error{URL: r.String(), Reason: "the credential for " + escape(r.host) + " holds a line break"}
	}
	return value, nil
}

// headerAuth sets a header; it implements the transport's http.AuthMethod.
type headerAuth string

func (headerAuth) Name() string                { return "header" }
func (headerAuth) String() string              { return "header" }
func (h headerAuth) SetAuth(req *http.Request) { req.Header.Set("Authorization", string(h)) }

// connect opens a session and reads the server's refs. The caller closes the session.
func (g *git) connect(ctx context.Context, r remote) (transport.UploadPackSession, *advertisement, error) {
	client, auth, done, err := g.transport(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	defer done()
	limit := g.opts.Network.Timing.Connect + g.opts.Network.Timing.ResponseHeader
	ctx, cancel := context.WithTimeoutCause(ctx, limit+g.opts.Network.Timing.NoProgress, errStalled)
	defer cancel()
	type opened struct {
		s   transport.UploadPackSession
		adv *advertisement
		err error
	}
	ch := make(chan opened, 1)
	// Not all transports look at the context while they connect.
	go func() {
		s, err := client.NewUploadPackSession(r.endpoint(), auth)
		if err != nil {
			ch <- opened{err: err}
			return
		}
		adv, err := s.AdvertisedReferencesContext(ctx)
		if err != nil {
			_ = s.Close()
		}
		ch <- opened{s, adv, err}
	}()
	select {
	case o := <-ch:
		if o.err != nil && errors.Is(context.Cause(ctx), errStalled) {
			return nil, nil, errStalled
		}
		return o.s, o.adv, o.err
	case <-ctx.Done():
		go func() {
			if o := <-ch; o.err == nil {
				_ = o.s.Close()
			}
		}()
		return nil, nil, context.Cause(ctx)
	}
}

// transport chooses how a server is spoken to. done is called when the connection stands.
func (g *git) transport(ctx context.Context, r remote) (transport.Transport, transport.AuthMethod, func(), error) {
	nothing := func() {}
	foreign := r.origin() != g.url.remote.origin()
	switch {
	case r.isHTTP():
		client := githttp.NewClient(&http.Client{
			Transport:     &capped{next: g.wire, get: maxAdvertisement, post: g.opts.MaxPack + maxAdvertisement},
			CheckRedirect: checkRedirect,
		})
		header, err := g.authorization(r)
		if err != nil || header == "" {
			return client, nil, nothing, err
		}
		return client, headerAuth(header), nothing, nil
	case foreign:
		return nil, nil, nil, fmt.Errorf("%w: a submodule on another server must have an http or https address", ErrForbidden)
	case r.scheme == "git":
		h := hop{journey: &journey{host: r.host}}
		return gitdaemon.DefaultClient, nil, nothing, h.checkName(r.hostname())
	default:
		return g.opts.SSH.transport(ctx, r, g.opts.Network.Timing.Connect)
	}
}

// capped bounds the bodies of answers by the method of the request.
type capped struct {
	next      http.RoundTripper
	get, post int64
}

// RoundTrip implements http.RoundTripper.
func (c *capped) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := c.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	left := c.get
	if req.Method == http.MethodPost {
		left = c.post
	}
	resp.Body = &cappedBody{ReadCloser: resp.Body, left: left, journey: journeyOf(req.Context())}
	return resp, nil
}

type cappedBody struct {
	io.ReadCloser
	left    int64
	journey *journey
}

func (c *cappedBody) Read(p []byte) (int, error) {
	if c.left < 0 {
		err := fmt.Errorf("%w: the server's answer is too long", ErrLimit)
		c.journey.note(nil, err)
		return 0, err
	}
	n, err := c.ReadCloser.Read(p[:min(int64(len(p)), c.left+1)])
	c.left -= int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		c.journey.note(nil, err)
	}
	return n, err
}

// fetch downloads what pick chooses of a repository and unpacks it into the objects.
func (g *git) fetch(ctx context.Context, r remote, pick func(*advertisement) (target, error)) (*repository, error) {
	f, err := g.store.Spool()
	if err != nil {
		return nil, local(err)
	}
	repo := &repository{remote: r}
	err = g.journey(ctx, r, func(ctx context.Context) error {
		if err := restart(f); err != nil {
			return local(err)
		}
		s, adv, err := g.connect(ctx, r)
		if err != nil {
			return err
		}
		defer func() { _ = s.Close() }()
		if repo.target, err = pick(adv); err != nil {
			return err
		}
		repo.shallow, err = g.download(ctx, s, adv, repo.target, f)
		return err
	})
	if err == nil {
		repo.packed, err = g.objects.unpack(ctx, f)
	}
	if err == nil && repo.target.bySHA {
		if _, e := g.objects.get(repo.target.want); e != nil {
			err = fmt.Errorf("the server does not give out commit %s, and it is in none of its branches and tags", repo.target.want)
		}
	}
	if err != nil {
		var done *Error
		if !errors.As(err, &done) {
			err = fail(ctx, r.String(), err)
		}
		return nil, errors.Join(err, f.Close())
	}
	if !g.keep {
		return repo, local(f.Close())
	}
	repo.pack = f
	return repo, nil
}

// download asks for a pack and writes it to f.
func (g *git) download(ctx context.Context, s transport.UploadPackSession, adv *advertisement, t target, f *os.File) ([]plumbing.Hash, error) {
	req := packp.NewUploadPackRequestFromCapabilities(adv.Capabilities)
	deep := false
	req.Wants, deep = wants(adv, t)
	if adv.Capabilities.Supports(capability.NoProgress) {
		if err := req.Capabilities.Set(capability.NoProgress); err != nil {
			return nil, err
		}
	}
	if !deep && adv.Capabilities.Supports(capability.Shallow) {
		req.Depth = packp.DepthCommits(1)
		if err := req.Capabilities.Set(capability.Shallow); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	resp, err := s.UploadPack(ctx, req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Close() }()
	body := watch(resp, g.opts.Network.Timing.NoProgress, cancel)
	body.ctx = ctx
	defer body.timer.Stop()
	// Through a buffer, for the demultiplexer fills whatever it is given before it returns.
	n, err := io.Copy(localWriter{f}, io.LimitReader(demultiplex(req.Capabilities, body), g.opts.MaxPack+1))
	if err != nil {
		return nil, err
	}
	if n > g.opts.MaxPack {
		return nil, fmt.Errorf("%w: the pack has more than %d bytes", ErrLimit, g.opts.MaxPack)
	}
	return resp.Shallows, nil
}

// wants lists what to ask the server for. A commit that it does not give out by its name has to be looked for in all
// branches and tags, with their history.
func wants(adv *advertisement, t target) (hashes []plumbing.Hash, deep bool) {
	if !t.bySHA || adv.Capabilities.Supports(capability.AllowReachableSHA1InWant) {
		return []plumbing.Hash{t.want}, false
	}
	for name, h := range adv.References {
		if h == t.want {
			return []plumbing.Hash{h}, false
		}
		if adv.Peeled[name] == t.want {
			return []plumbing.Hash{h}, false
		}
		if strings.HasPrefix(name, "refs/heads/") || strings.HasPrefix(name, "refs/tags/") {
			hashes = append(hashes, h)
		}
	}
	if adv.Head != nil && *adv.Head == t.want {
		return []plumbing.Hash{t.want}, false
	}
	plumbing.HashesSort(hashes)
	return slices.Compact(hashes), true
}

// demultiplex takes the pack out of a stream that has messages in between.
func demultiplex(c *capability.List, r io.Reader) io.Reader {
	switch {
	case c.Supports(capability.Sideband64k):
		return sideband.NewDemuxer(sideband.Sideband64k, r)
	case c.Supports(capability.Sideband):
		return sideband.NewDemuxer(sideband.Sideband, r)
	default:
		return r
	}
}

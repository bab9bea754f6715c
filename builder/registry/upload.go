// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"go.uber.org/zap"
)

type blobKey struct {
	repo   string
	digest v1.Hash
}

// CheckPush finds out early whether dest may be pushed to, by beginning an upload
// and giving it up: a token alone does not prove the right to push. While the
// network of a fresh pod comes up it waits.
func (c *Client) CheckPush(ctx context.Context, dest string) error {
	tag, err := c.parsePush("check push to", dest)
	if err != nil {
		return err
	}
	repo := tag.Repository
	_, err = c.probes.do(ctx, repo.Name(), func() (struct{}, error) {
		a := attempt{op: "check push to", ref: dest, host: repo.RegistryStr()}
		s, err := c.session(ctx, repo, pushing, "")
		if err != nil {
			return struct{}{}, a.fail(ctx, err)
		}
		a.credential = s.credential
		at, err := s.begin(ctx, v1.Hash{}, "")
		if err != nil {
			return struct{}{}, a.fail(ctx, err)
		}
		s.abandon(ctx, at.location)
		return struct{}{}, nil
	})
	return err
}

// Upload puts one blob into dest's repository, by the cheapest of: it is there
// already, it is mounted from another repository of the same registry, it is
// sent. Simultaneous and later calls for the same blob and repository do nothing
// more. The layer must know its digest; its Compressed may be called several times.
//
// Errors are of type [*Error], except when ctx ends or the layer cannot be read.
func (c *Client) Upload(ctx context.Context, dest string, l v1.Layer) error {
	tag, err := c.parsePush("push", dest)
	if err != nil {
		return err
	}
	return c.place(ctx, tag.Repository, l, ask)
}

// doubt is whether a registry is asked for a blob before it is sent.
type doubt int

const (
	// ask is for everything that may be there.
	ask doubt = iota
	// novel is for what nobody can have stored before; asked for only when sending it fails.
	novel
	// insist sends again what a registry said it had and did not.
	insist
)

// place uploads a layer, once unless it insists.
func (c *Client) place(ctx context.Context, repo name.Repository, l v1.Layer, how doubt) error {
	d, err := l.Digest()
	if err != nil {
		return fmt.Errorf("push %s: digest of the layer: %w", repo, err)
	}
	work := func() (struct{}, error) {
		a := attempt{op: "push", ref: repo.Name(), host: repo.RegistryStr()}
		size, err := l.Size()
		if err != nil {
			return struct{}{}, fmt.Errorf("push %s: size of %s: %w", repo, d, err)
		}
		select {
		case c.uploadSlot <- struct{}{}:
			defer func() { <-c.uploadSlot }()
		case <-ctx.Done():
			return struct{}{}, a.fail(ctx, ctx.Err())
		}
		s, err := c.session(ctx, repo, pushing, "")
		if err != nil {
			return struct{}{}, a.fail(ctx, err)
		}
		a.credential = s.credential
		u := &upload{s: s, layer: l, digest: d, size: size, how: how}
		defer u.closeReader()
		if err := c.persist(ctx, pushing, u.once); err != nil {
			u.giveUp(ctx)
			return struct{}{}, a.fail(ctx, err)
		}
		c.hold(repo, d)
		return struct{}{}, nil
	}
	if how == insist {
		_, err := work()
		return err
	}
	_, err = c.uploads.do(ctx, blobKey{repo.Name(), d}, work)
	return err
}

// hold notes that a blob is in a repository, and source finds one to mount from.
func (c *Client) hold(repo name.Repository, d v1.Hash) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := blobKeyOnHost{canonicalHost(repo.RegistryStr()), d}
	if _, ok := c.holders[key]; !ok {
		c.holders[key] = repo
	}
}

// affirm notes that a registry has mounted a blob into a repository, and affirmed tells so: it
// keeps the bytes already and answered for them.
func (c *Client) affirm(repo name.Repository, d v1.Hash) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mounted[blobKey{repo.Name(), d}] = true
}

func (c *Client) affirmed(repo name.Repository, d v1.Hash) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mounted[blobKey{repo.Name(), d}]
}

// source returns a repository of the same registry that a blob can be mounted
// from, or "".
func (c *Client) source(repo name.Repository, l v1.Layer, d v1.Hash) string {
	host := canonicalHost(repo.RegistryStr())
	if m, ok := l.(*remote.MountableLayer); ok {
		from := m.Reference.Context()
		if canonicalHost(from.RegistryStr()) == host && from.RepositoryStr() != repo.RepositoryStr() {
			return from.RepositoryStr()
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	from, ok := c.holders[blobKeyOnHost{host, d}]
	if !ok || from.RepositoryStr() == repo.RepositoryStr() {
		return ""
	}
	return from.RepositoryStr()
}

// upload is one blob on its way into one repository.
type upload struct {
	s       *session
	layer   v1.Layer
	digest  v1.Hash
	size    int64
	how     doubt
	noMount bool

	open      place // an upload that was interrupted
	furthest  int64 // bytes of it that the registry had
	fromStart bool  // it does not go on with interrupted ones
	astray    int   // parts that did not fit

	mu   sync.Mutex
	kept *partReader // what the next part may be read from
}

// once makes one attempt. It goes on with an upload that was interrupted where the registry knows how much of it arrived. Where the blob can be mounted that is tried first: it succeeds too
// when the blob is there already. Otherwise it asks, also because the answer to an earlier commit may have been lost.
func (u *upload) once(ctx context.Context) error {
	if at, ok := u.goOn(ctx); ok {
		err := u.inPieces(ctx, at)
		if doubtful(err) || errors.Is(err, errNoProgress) {
			u.giveUp(ctx)
			u.fromStart = true
			return u.once(ctx)
		}
		return u.sent(ctx, err)
	}
	if u.how != insist {
		mounted, err := u.mount(ctx)
		if err != nil {
			return err
		}
		if mounted {
			u.s.client.affirm(u.s.repo, u.digest)
			u.report("mount", u.size, true)
			return nil
		}
		if there, err := u.thereAlready(ctx); there || err != nil {
			return err
		}
	}
	at, err := u.s.begin(ctx, v1.Hash{}, "")
	if err != nil {
		return err
	}
	u.open = at
	return u.sent(ctx, u.transfer(ctx, at))
}

// sent ends an attempt.
func (u *upload) sent(ctx context.Context, err error) error {
	if err == nil {
		u.open = place{}
		u.report("push", u.size, true)
		return nil
	}
	if !interrupted(err) {
		u.giveUp(ctx)
	}
	return err
}

// interrupted is a failure after which the upload may go on.
func interrupted(err error) bool {
	var status *statusError
	if errors.As(err, &status) {
		return isPassing(status.status)
	}
	return temporary(err)
}

// giveUp abandons what is open.
func (u *upload) giveUp(ctx context.Context) {
	if u.open.location != nil {
		u.s.abandon(ctx, u.open.location)
		u.open = place{}
	}
}

// thereAlready asks for the blob, unless it is worth a try without.
func (u *upload) thereAlready(ctx context.Context) (bool, error) {
	if u.how == novel {
		u.how = ask
		return false, nil
	}
	exists, err := u.exists(ctx)
	if exists && err == nil {
		u.report("exists", u.size, true)
	}
	return exists, err
}

// exists asks for the blob. A registry that does not answer the question gets the
// blob; if credentials are at fault, the upload will say so.
func (u *upload) exists(ctx context.Context) (bool, error) {
	resp, err := u.s.do(ctx, http.MethodHead, u.s.url("blobs", u.digest.String()), nil, http.StatusOK)
	var status *statusError
	if errors.As(err, &status) && !isPassing(status.status) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = resp.Body.Close() }()
	return resp.ContentLength < 0 || resp.ContentLength == u.size, nil
}

// mount tries to have the blob taken from another repository of the registry. It
// is tried once; whatever goes wrong, the blob can be sent. Only who has no patience takes no answer for an answer.
func (u *upload) mount(ctx context.Context) (bool, error) {
	c := u.s.client
	from := c.source(u.s.repo, u.layer, u.digest)
	if from == "" || u.noMount || c.refusesMount(from, u.s.repo) {
		return false, nil
	}
	u.noMount = true
	ctx = c.withoutRetries(ctx)
	// Reading the other repository needs a token that says so, asked for only now.
	s, err := c.session(ctx, u.s.repo, pushing, from)
	if err == nil {
		var at place
		at, err = s.begin(ctx, u.digest, from)
		if err == nil && at.location == nil {
			return true, nil
		}
		if err == nil {
			s.abandon(ctx, at.location)
		}
	}
	c.unmountable(from, u.s.repo)
	c.log.Debug("not mounted", zap.Stringer("digest", u.digest), zap.String("from", from), zap.Error(err))
	if isImpatient(ctx) && errors.Is(err, errStalled) {
		return false, err
	}
	return false, nil
}

// maxMountRefusals is how often a mount is tried between two repositories that never worked.
const maxMountRefusals = 3

type mountKey struct{ from, to string }

// unmountable counts a refused mount. Some registries never mount, and then asking for each blob is in vain; but
// one blob may be gone while others are not, so one refusal says little.
func (c *Client) unmountable(from string, to name.Repository) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refusals[mountKey{from, to.Name()}]++
}

func (c *Client) refusesMount(from string, to name.Repository) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refusals[mountKey{from, to.Name()}] >= maxMountRefusals
}

// begin opens an upload session, or mounts a blob when from is not empty; then there is no location.
func (s *session) begin(ctx context.Context, mount v1.Hash, from string) (place, error) {
	u := s.url("blobs", "uploads/")
	if from != "" {
		u.RawQuery = url.Values{"mount": {mount.String()}, "from": {from}}.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), nil)
	if err != nil {
		return place{}, err
	}
	allowed := []int{http.StatusAccepted}
	if from != "" {
		allowed = append(allowed, http.StatusCreated)
	}
	resp, err := s.send(req, allowed...)
	if err != nil {
		return place{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusCreated {
		return place{}, nil
	}
	least, err := strconv.ParseInt(resp.Header.Get("OCI-Chunk-Min-Length"), 10, 64)
	if err != nil || least < 0 {
		least = 0
	}
	location, err := s.location(resp)
	return place{location: location, least: least}, err
}

// location is where the next part of an upload goes: perhaps to another host, with
// a signature in the query, and then without our credentials.
func (s *session) location(resp *http.Response) (*url.URL, error) {
	next, err := resp.Location()
	if err != nil || (next.Scheme != "https" && next.Scheme != "http") {
		return nil, fmt.Errorf("%w: upload without a usable Location", errRedirect)
	}
	return next, s.guard.mayVisit(next.Host)
}

// abandon gives an upload session back, so that registries need not keep its
// bytes. It is only politeness: it works for a moment even after ctx has ended,
// and failures do not matter.
func (s *session) abandon(ctx context.Context, location *url.URL) {
	ctx, cancel := context.WithTimeout(s.client.withoutRetries(context.WithoutCancel(ctx)), 3*time.Second)
	defer cancel()
	resp, err := s.do(ctx, http.MethodDelete, location, nil, http.StatusNoContent, http.StatusOK, http.StatusAccepted)
	if err != nil {
		s.client.log.Debug("upload session not given back", zap.Error(err))
		return
	}
	_ = resp.Body.Close()
}

func (u *upload) report(op string, done int64, finished bool) {
	u.s.client.report(Event{Op: op, Digest: u.digest, Ref: u.s.repo.Name(), Done: done, Total: u.size, Finished: finished})
}

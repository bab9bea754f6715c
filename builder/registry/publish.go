// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// Result is what a successful Publish left behind.
type Result struct {
	Digest   v1.Hash  // of the manifest or index that every tag points to
	Refs     []Pushed // in the order of the destinations, each once
	Warnings []string // what could not be made sure of; each is in the log too
}

// Pushed is one tag that points to the digest.
type Pushed struct {
	Tag    name.Tag
	Digest v1.Hash
}

// String returns repository:tag@digest.
func (p Pushed) String() string { return p.Tag.Name() + "@" + p.Digest.String() }

// Publish pushes an image ([v1.Image]) or an index ([v1.ImageIndex]) with all it
// consists of to every destination: first all blobs and manifests everywhere, which
// are then read back, and only when all of that is in place the tags, which are
// read back too. Until then no tag has moved. It may be repeated: what is in place
// already is only looked at.
//
// A manifest or tag that is absent is asked for again for 30 seconds; a tag that
// then still has its old digest is a failure, one that has a third digest (somebody
// else pushed) is a warning. Where the credentials may push but not read, the
// digest that the registry answered to the push must be the right one.
//
// Errors are of type [*Error], except when ctx ends or the image cannot be read;
// Moved lists the tags that had moved before.
func (c *Client) Publish(ctx context.Context, dests []string, t remote.Taggable) (Result, error) {
	tags, err := c.destinations(dests)
	if err != nil {
		return Result{}, err
	}
	f, err := freeze(t)
	if err != nil {
		return Result{}, classifyFreeze(err, tags[0])
	}
	p := &publication{client: c, image: f, before: map[string]v1.Hash{}}
	if err := p.contents(ctx, tags); err != nil {
		return Result{}, err
	}
	if err := p.moveAll(ctx, tags); err != nil {
		return Result{}, p.withMoved(err)
	}
	r := Result{Digest: f.root().digest, Warnings: p.warnings}
	for _, tag := range tags {
		r.Refs = append(r.Refs, Pushed{Tag: tag, Digest: r.Digest})
	}
	return r, nil
}

func classifyFreeze(err error, tag name.Tag) error {
	if classOf(err) == Integrity {
		return &Error{Class: Integrity, Op: "push", Ref: tag.Name(), Reason: escape(err.Error()), Err: err}
	}
	return err
}

// publication is one Publish under way.
type publication struct {
	client *Client
	image  *frozen

	mu       sync.Mutex
	before   map[string]v1.Hash // where tags pointed, by name; zero when one did not exist or could not be read
	moved    []string
	warnings []string
	unread   bool // the warning about reading back was given
}

// contents puts blobs and manifests into every repository. Registries are served
// side by side; the repositories of one after another, so that the second gets its
// blobs by mounting.
func (p *publication) contents(ctx context.Context, tags []name.Tag) error {
	byHost := map[string][]name.Repository{}
	var hosts []string
	of := map[string][]name.Tag{}
	for _, t := range tags {
		of[t.Repository.Name()] = append(of[t.Repository.Name()], t)
		if len(of[t.Repository.Name()]) > 1 {
			continue
		}
		host := canonicalHost(t.RegistryStr())
		if byHost[host] == nil {
			hosts = append(hosts, host)
		}
		byHost[host] = append(byHost[host], t.Repository)
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, host := range hosts {
		g.Go(func() error {
			for _, repo := range byHost[host] {
				if err := p.fill(ctx, repo, of[repo.Name()]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// fill makes one repository complete: blobs, manifests by digest, both read back. A tag that points to the image already tells that
// this was done before, and then nothing is sent that is there.
func (p *publication) fill(ctx context.Context, repo name.Repository, tags []name.Tag) error {
	a := attempt{op: "push", ref: repo.Name(), host: repo.RegistryStr()}
	s, err := p.client.session(ctx, repo, pushing, "")
	if err != nil {
		return a.fail(ctx, err)
	}
	a.credential = s.credential
	there, how := p.look(ctx, s, tags), novel
	if there {
		how = ask
	}
	if err := p.placeBlobs(ctx, repo, how); err != nil {
		return err
	}
	for _, doc := range p.image.manifests {
		answered := doc.digest
		if !there {
			if answered, err = p.store(ctx, a, s, doc); err != nil {
				return err
			}
		}
		if err := p.readBack(ctx, s, doc, answered, !there); err != nil {
			return a.fail(ctx, err)
		}
	}
	return a.fail(ctx, p.checkBlobs(ctx, s))
}

// look notes where tags point before anything is pushed, and tells whether one of them has the image.
func (p *publication) look(ctx context.Context, s *session, tags []name.Tag) (there bool) {
	for _, tag := range tags {
		before := s.tagDigest(ctx, tag.TagStr())
		there = there || before == p.image.root().digest
		p.mu.Lock()
		p.before[tag.Name()] = before
		p.mu.Unlock()
	}
	return there
}

// store writes a manifest under its digest and returns the digest that the registry answered.
func (p *publication) store(ctx context.Context, a attempt, s *session, doc document) (v1.Hash, error) {
	answered, err := s.put(ctx, doc.digest.String(), doc)
	if blobUnknown(err) {
		// It said that it had them. Once more, without asking.
		p.client.log.Warn(fmt.Sprintf("%s does not have blobs that it said were there, sending all again", s.repo))
		if err := p.placeBlobs(ctx, s.repo, insist); err != nil {
			return v1.Hash{}, err
		}
		answered, err = s.put(ctx, doc.digest.String(), doc)
	}
	return answered, a.fail(ctx, err)
}

// placeBlobs uploads what the image consists of. Layers may be anywhere already, and only configs can be new for certain.
func (p *publication) placeBlobs(ctx context.Context, repo name.Repository, how doubt) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range p.image.blobs {
		of := how
		if mt, err := l.MediaType(); how == novel && (err != nil || !mt.IsConfig()) {
			of = ask
		}
		g.Go(func() error { return p.client.place(ctx, repo, l, of) })
	}
	return g.Wait()
}

func blobUnknown(err error) bool {
	var status *statusError
	return errors.As(err, &status) && status.has("MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN")
}

// put writes a manifest under a digest or tag and returns the digest that the
// registry answered, if it answered one.
func (s *session) put(ctx context.Context, id string, doc document) (v1.Hash, error) {
	req, err := newBodyRequest(ctx, http.MethodPut, s.url("manifests", id).String(), doc.raw)
	if err != nil {
		return v1.Hash{}, err
	}
	req.Header.Set("Content-Type", string(doc.mediaType))
	resp, err := s.send(req, http.StatusCreated, http.StatusOK, http.StatusAccepted)
	if err != nil {
		return v1.Hash{}, err
	}
	discard(resp)
	answered := answeredDigest(resp)
	if answered != (v1.Hash{}) && answered.Algorithm == doc.digest.Algorithm && answered != doc.digest {
		return answered, integrity("manifest %s was stored as %s", doc.digest, answered)
	}
	return answered, nil
}

// answeredDigest reads the digest from its header, or from the end of Location.
func answeredDigest(resp *http.Response) v1.Hash {
	if h, err := v1.NewHash(resp.Header.Get("Docker-Content-Digest")); err == nil {
		return h
	}
	location := resp.Header.Get("Location")
	h, err := v1.NewHash(location[strings.LastIndexByte(location, '/')+1:])
	if err != nil {
		return v1.Hash{}
	}
	return h
}

// moveAll moves the tags one by one and then reads all of them back.
func (p *publication) moveAll(ctx context.Context, tags []name.Tag) error {
	moves := make([]*move, len(tags))
	for i, tag := range tags {
		m := &move{p: p, tag: tag, a: attempt{op: "push", ref: tag.Name(), host: tag.RegistryStr()}}
		if err := m.do(ctx); err != nil {
			return m.a.fail(ctx, err)
		}
		moves[i] = m
	}
	for _, m := range moves {
		if err := m.readBack(ctx); err != nil {
			return m.a.fail(ctx, err)
		}
	}
	return nil
}

// move is one tag on its way to the new digest.
type move struct {
	p        *publication
	tag      name.Tag
	a        attempt
	s        *session
	before   v1.Hash // zero when the tag did not exist or could not be read
	answered v1.Hash // what the registry said to our push
	written  bool    // we pushed it
	kept     bool    // it may not be moved, and need not be
}

// do points the tag to the new digest unless it does already.
func (m *move) do(ctx context.Context) error {
	s, err := m.p.client.session(ctx, m.tag.Repository, pushing, "")
	if err != nil {
		return err
	}
	m.s, m.a.credential = s, s.credential
	root := m.p.image.root()
	m.p.mu.Lock()
	m.before = m.p.before[m.tag.Name()]
	m.p.mu.Unlock()
	if m.before == root.digest {
		m.answered = root.digest
		return nil
	}
	if err := m.write(ctx); err != nil {
		return m.explain(ctx, err)
	}
	return nil
}

// write pushes the tag.
func (m *move) write(ctx context.Context) error {
	answered, err := m.s.put(ctx, m.tag.TagStr(), m.p.image.root())
	if err != nil {
		return err
	}
	m.answered = answered
	m.p.mu.Lock()
	defer m.p.mu.Unlock()
	if !m.written {
		m.written = true
		m.p.moved = append(m.p.moved, m.tag.Name())
	}
	return nil
}

// explain looks at the tag after a refusal: when it is ours by now, all is well
// (the answer to our own push may have been lost); a tag that has another digest
// and may not move is named with both.
func (m *move) explain(ctx context.Context, err error) error {
	var status *statusError
	if !errors.As(err, &status) || ctx.Err() != nil {
		return err
	}
	root := m.p.image.root()
	now := m.s.tagDigest(ctx, m.tag.TagStr())
	if now == root.digest {
		m.answered = root.digest
		return nil
	}
	if m.keep(status, now) {
		return nil
	}
	failed := m.a.fail(ctx, err)
	var e *Error
	if errors.As(failed, &e) && now != (v1.Hash{}) && e.Class == Refused {
		e.Hint = fmt.Sprintf("the tag points to %s and was not moved to %s; if tags are immutable here, push another one", now, root.digest)
		if immutable(status, true) {
			e.Hint = fmt.Sprintf("the tag is immutable: it points to %s and cannot be moved to %s; push another one, or make this a warning by KANIKO_PUSH_IGNORE_IMMUTABLE_TAG_ERRORS=true", now, root.digest)
		}
	}
	return failed
}

// tagDigest returns the digest that a tag has, zero when there is none or it may
// not be read. It prefers HEAD, which registries do not count as a pull.
func (s *session) tagDigest(ctx context.Context, tag string) v1.Hash {
	if h, known := s.head(ctx, tag); known {
		return h
	}
	f, err := s.manifest(ctx, tag)
	if err != nil {
		return v1.Hash{}
	}
	return f.digest
}

// head returns the digest that HEAD answers, zero for: there is none. Not all
// registries give an answer that is known to mean either.
func (s *session) head(ctx context.Context, id string) (digest v1.Hash, known bool) {
	resp, err := s.do(ctx, http.MethodHead, s.url("manifests", id), acceptManifest(), http.StatusOK)
	if err != nil {
		return v1.Hash{}, absent(err)
	}
	_ = resp.Body.Close()
	digest, err = v1.NewHash(resp.Header.Get("Docker-Content-Digest"))
	return digest, err == nil
}

func (p *publication) warn(text string) {
	p.client.log.Warn(text)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.warnings = append(p.warnings, text)
}

// withMoved adds to a failure which tags are new already.
func (p *publication) withMoved(err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.moved) == 0 {
		return err
	}
	var e *Error
	if errors.As(err, &e) {
		e.Moved = append([]string(nil), p.moved...)
		return err
	}
	p.client.log.Warn("push ended after tags had moved", zap.Strings("moved", p.moved))
	return fmt.Errorf("%w; these tags have moved already: %s", err, strings.Join(p.moved, ", "))
}

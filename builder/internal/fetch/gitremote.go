// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v6/plumbing"
	formatcfg "github.com/go-git/go-git/v6/plumbing/format/config"
	"github.com/go-git/go-git/v6/plumbing/format/packfile"
	"github.com/go-git/go-git/v6/plumbing/format/pktline"
	"github.com/go-git/go-git/v6/plumbing/protocol"
	"github.com/go-git/go-git/v6/plumbing/protocol/capability"
	"github.com/go-git/go-git/v6/plumbing/transport"
	gitdaemon "github.com/go-git/go-git/v6/plumbing/transport/git"
	githttp "github.com/go-git/go-git/v6/plumbing/transport/http"
	"github.com/go-git/go-git/v6/storage/memory"
)

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

// candidates are the full names that a ref may stand for, in git's order: a full name, a branch, a tag.
func candidates(name string) []string {
	return []string{
		"refs/" + strings.TrimPrefix(name, "refs/"),
		"refs/heads/" + strings.TrimPrefix(name, "refs/heads/"),
		"refs/tags/" + strings.TrimPrefix(name, "refs/tags/"),
	}
}

// choose asks the server what a URL names: "" is the default branch.
func (s *session) choose(ctx context.Context, name string) (target, error) {
	ask := candidates(name)
	if name == "" {
		ask = []string{plumbing.HEAD.String(), "refs/heads/"}
	}
	refs, err := s.refs(ctx, ask...)
	if err != nil && name != "" && errors.Is(err, transport.ErrEmptyRemoteRepository) {
		// So it is called, too, where a server has nothing of what it was asked for.
		refs, err = &serverRefs{}, nil
	}
	if err != nil {
		return target{}, err
	}
	if name == "" {
		return refs.defaultBranch()
	}
	for _, full := range candidates(name) {
		if h, ok := refs.hashes[full]; ok {
			return target{ref: full, want: h, peeled: refs.hashes[full+peeledSuffix]}, nil
		}
	}
	return target{}, fmt.Errorf("repository does not contain ref %s", escape(name))
}

// peeledSuffix marks the object behind an annotated tag.
const peeledSuffix = "^{}"

// serverRefs is what a server says of its branches and tags.
type serverRefs struct {
	hashes map[string]plumbing.Hash
	// head is where HEAD leads, "" if it is a commit itself or unknown.
	head string
}

// defaultBranch is where the server's HEAD leads; its name is as little trusted as any other.
func (r *serverRefs) defaultBranch() (target, error) {
	if r.head != "" {
		if err := checkRef(r.head); err != nil {
			return target{}, fmt.Errorf("%w: default branch: %w", ErrForbidden, err)
		}
		if h, ok := r.hashes[r.head]; ok {
			return target{ref: r.head, want: h}, nil
		}
	}
	if h, ok := r.hashes[plumbing.HEAD.String()]; ok {
		return target{want: h}, nil
	}
	return target{}, errors.New("could not find default branch for repository")
}

// session is a conversation with a server about one repository.
type session struct {
	transport.Session
	// patience ends the conversation if its beginning takes too long.
	patience *time.Timer
	cancel   context.CancelCauseFunc
}

func (s *session) close() {
	s.patience.Stop()
	_ = s.Close()
	s.cancel(nil)
}

// isVersion2 tells the protocol in which a server shows what it is asked for from the older one, in which it shows all.
func (s *session) isVersion2() bool { return s.Capabilities().Supports(capability.LsRefs) }

// format is the kind of names that the objects have.
func (s *session) format() (formatcfg.ObjectFormat, error) {
	v := s.Capabilities().Get(capability.ObjectFormat)
	if len(v) == 0 {
		return formatcfg.SHA1, nil
	}
	switch of := formatcfg.ObjectFormat(v[0]); of {
	case formatcfg.SHA1, formatcfg.SHA256:
		return of, nil
	default:
		return "", fmt.Errorf("the names of the repository's objects are of an unknown kind, %s", escape(v[0]))
	}
}

// mayBeShallow reports whether the server can leave out history.
func (s *session) mayBeShallow(format formatcfg.ObjectFormat) bool {
	c := s.Capabilities()
	if !s.isVersion2() {
		// The library does not read the answer where names are SHA-256. Servers that have such know protocol 2.
		return format == formatcfg.SHA1 && c.Supports(capability.Shallow)
	}
	for _, v := range c.Get(capability.FetchCmd) {
		if slices.Contains(strings.Fields(v), capability.Shallow) {
			return true
		}
	}
	return false
}

// refs lists the refs that begin with one of prefixes, and perhaps others.
func (s *session) refs(ctx context.Context, prefixes ...string) (*serverRefs, error) {
	remote, err := s.GetRemoteRefs(withLimit(ctx, maxAdvertisement), &transport.GetRemoteRefsOptions{RefPrefixes: prefixes})
	if err != nil {
		return nil, err
	}
	refs := &serverRefs{hashes: map[string]plumbing.Hash{}}
	for _, r := range remote.References {
		switch {
		case r.Type() == plumbing.HashReference:
			refs.hashes[r.Name().String()] = r.Hash()
		case r.Name() == plumbing.HEAD:
			refs.head = r.Target().String()
		}
	}
	return refs, nil
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
	case isRefusal(err):
		// A branch has moved since the server was asked where it is.
		e.Temporary = true
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

// connect opens a session, and returns it with the context of what is asked in it. The caller closes it.
func (g *git) connect(ctx context.Context, r remote) (context.Context, *session, error) {
	t := g.opts.Network.Timing
	ctx, cancel := context.WithCancelCause(ctx)
	s := &session{cancel: cancel}
	s.patience = time.AfterFunc(t.Connect+t.ResponseHeader+t.NoProgress, func() { cancel(errStalled) })
	client, err := g.transport(ctx, r)
	if err == nil {
		s.Session, err = client.Handshake(withLimit(ctx, maxAdvertisement), &transport.Request{
			URL: r.endpoint(), Command: transport.UploadPackService, Protocol: protocol.V2,
		})
	}
	if err != nil {
		err = stalled(ctx, err)
		s.patience.Stop()
		cancel(nil)
		return nil, nil, err
	}
	return ctx, s, nil
}

// stalled is the cause of an error, where that is our own impatience.
func stalled(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errStalled) {
		return errStalled
	}
	return err
}

// transport chooses how a server is spoken to.
func (g *git) transport(ctx context.Context, r remote) (transport.Transport, error) {
	switch {
	case r.isHTTP():
		header, err := g.authorization(r)
		if err != nil {
			return nil, err
		}
		return githttp.NewTransport(githttp.Options{
			Client:      &http.Client{Transport: capped{g.wire}, CheckRedirect: checkRedirect},
			Credentials: credential(header),
		}), nil
	case r.origin() != g.url.remote.origin():
		return nil, fmt.Errorf("%w: a submodule on another server must have an http or https address; KANIKO_GIT=recurse-submodules=false leaves submodules out", ErrForbidden)
	case r.scheme == "git":
		return gitdaemon.NewTransport(gitdaemon.Options{DialContext: g.dialer(ctx)}), nil
	default:
		return g.opts.SSH.transport(r, g.dialer(ctx))
	}
}

// credential gives a header to the server that it is for, wherever the repository may have moved on that.
func credential(header string) githttp.CredentialsFunc {
	if header == "" {
		return nil
	}
	c := &githttp.Credential{Authorizer: func(r *http.Request) error {
		r.Header.Set("Authorization", header)
		return nil
	}}
	return func(_ context.Context, req *githttp.CredentialRequest) (*githttp.Credential, error) {
		if sameOrigin(req.TargetOrigin, req.RepositoryURL) {
			return c, nil
		}
		return &githttp.Credential{}, nil
	}
}

// dialer connects the transports that know nothing of http. A connection ends with ctx, which is that of the session.
func (g *git) dialer(ctx context.Context) transport.DialContextFunc {
	return func(dial context.Context, network, address string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		j := journeyOf(ctx)
		if err := (hop{journey: j, redirected: j.foreign}).checkName(host); err != nil {
			return nil, err
		}
		t := g.opts.Network.Timing
		d := &net.Dialer{Timeout: t.Connect, KeepAlive: 30 * time.Second, ControlContext: checkDial}
		conn, err := d.DialContext(dial, network, address)
		if err != nil {
			return nil, err
		}
		c := &watchedConn{Conn: conn, journey: j, left: g.opts.MaxPack + maxAdvertisement, wait: t.NoProgress}
		c.timer = time.AfterFunc(c.wait, func() { c.end(errStalled) })
		c.stop = context.AfterFunc(ctx, func() { _ = conn.Close() })
		return c, nil
	}
}

// watchedConn is a connection that ends when no byte comes for too long, or too many come.
type watchedConn struct {
	net.Conn
	journey *journey
	left    int64
	wait    time.Duration
	timer   *time.Timer
	stop    func() bool
}

// end closes the connection and notes why, which what speaks through it would not tell.
func (c *watchedConn) end(cause error) {
	c.journey.note(nil, cause)
	_ = c.Conn.Close()
}

// Read implements net.Conn.
func (c *watchedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.left -= int64(n); c.left < 0 {
		err = fmt.Errorf("%w: the server's answer is too long", ErrLimit)
		c.end(err)
		return 0, err
	}
	if n > 0 {
		c.timer.Reset(c.wait)
	}
	return n, err
}

// Close implements net.Conn.
func (c *watchedConn) Close() error {
	c.timer.Stop()
	c.stop()
	return c.Conn.Close()
}

type limitKey struct{}

// withLimit says how long the answers of an http server may be.
func withLimit(ctx context.Context, n int64) context.Context {
	return context.WithValue(ctx, limitKey{}, n)
}

// capped bounds the bodies of answers by what the context says.
type capped struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (c capped) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := c.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	left, ok := req.Context().Value(limitKey{}).(int64)
	if !ok {
		left = maxAdvertisement
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

// pick says what is fetched of a repository, after a look at what the server has of it.
type pick func(context.Context, *session) (target, error)

// fetch downloads what is chosen of a repository and unpacks it into the objects.
func (g *git) fetch(ctx context.Context, r remote, choose pick) (*repository, error) {
	f, err := g.store.Spool()
	if err != nil {
		return nil, local(err)
	}
	repo := &repository{remote: r}
	err = g.journey(ctx, r, func(ctx context.Context) error {
		err := g.download(ctx, repo, choose, f, false)
		if errors.Is(err, errNotByName) {
			err = g.download(ctx, repo, choose, f, true)
		}
		return err
	})
	if err == nil {
		repo.packed, err = g.objects.unpack(ctx, f, repo.format, g.keep)
	}
	if err == nil && repo.target.bySHA {
		if _, e := g.objects.get(repo.target.want); e != nil {
			err = notGiven(repo.target)
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

func notGiven(t target) error {
	return fmt.Errorf("the server does not give out commit %s, and it is in none of its branches and tags", t.want)
}

// errNotByName says that a server does not give out by its name what may be in the history.
var errNotByName = errors.New("the server gives out no commit by its name")

// isRefusal reports whether the server has answered that there is no such object for us.
func isRefusal(err error) bool {
	var line *pktline.ErrorLine
	return errors.As(err, &line) && strings.Contains(line.Text, "not our ref")
}

// download asks for a pack and writes it to f. deep is the way for a commit that the server does not give out by its name.
func (g *git) download(ctx context.Context, repo *repository, choose pick, f *os.File, deep bool) error {
	if err := restart(f); err != nil {
		return local(err)
	}
	ctx, s, err := g.connect(ctx, repo.remote)
	if err != nil {
		return err
	}
	defer s.close()
	if repo.format, err = s.format(); err != nil {
		return err
	}
	if repo.target, err = choose(ctx, s); err != nil {
		return stalled(ctx, err)
	}
	if repo.target.want.Size() != repo.format.Size() {
		return fmt.Errorf("%s is no name of an object in a repository of %s", repo.target.want, repo.format)
	}
	// With somewhere to put its messages the server tells that it is still at work, and why it stops.
	req := &transport.FetchRequest{Progress: io.Discard}
	if req.Wants, deep, err = s.wants(ctx, repo.target, deep); err != nil {
		return stalled(ctx, err)
	}
	if len(req.Wants) == 0 {
		return notGiven(repo.target)
	}
	if !deep && s.mayBeShallow(repo.format) {
		req.Depth = 1
	}
	s.patience.Stop()
	sink := &packSink{
		Storage: memory.NewStorage(memory.WithObjectFormat(repo.format)),
		w:       bufio.NewWriterSize(localWriter{f}, 256<<10), most: g.opts.MaxPack, left: g.opts.MaxPack,
	}
	err = s.Fetch(withLimit(ctx, g.opts.MaxPack+maxAdvertisement), sink, req)
	var line *pktline.ErrorLine
	switch {
	case err == nil:
		if !repo.remote.isHTTP() {
			if err := whole(f, repo.format); err != nil {
				return err
			}
		}
		repo.shallow, err = sink.Shallow()
		return err
	case errors.Is(err, packfile.ErrEmptyPackfile):
		return stalled(ctx, io.ErrUnexpectedEOF) // as whole says, at the very beginning
	case deep || !repo.target.bySHA || !errors.As(err, &line):
		return stalled(ctx, err)
	case s.isVersion2() && isRefusal(err):
		// Git's own program gives out all that it has, in this protocol: it is not there.
		return notGiven(repo.target)
	default:
		return fmt.Errorf("%w: %w", errNotByName, err)
	}
}

// whole reports an unexpected end where a pack does not end with the sum of the rest. Only http tells a connection that broke from
// an answer that has ended.
func whole(f *os.File, format formatcfg.ObjectFormat) error {
	size, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return local(err)
	}
	if err := checkPack(f, size, newHash(format)); errors.Is(err, errPack) {
		return io.ErrUnexpectedEOF
	} else if err != nil {
		return err
	}
	return nil
}

// packSink is where the transport puts what it fetches. It is a repository in memory that keeps the pack out of it, so
// that nothing but the commits whose parents were left out is ever in memory.
type packSink struct {
	*memory.Storage
	w *bufio.Writer
	// most is how many bytes are taken, of which some are left.
	most, left int64
}

// PackfileWriter implements storer.PackfileWriter.
func (s *packSink) PackfileWriter() (io.WriteCloser, error) { return s, nil }

// Write implements io.Writer.
func (s *packSink) Write(p []byte) (int, error) {
	if s.left -= int64(len(p)); s.left < 0 {
		return 0, fmt.Errorf("%w: more than %d bytes of the repository would have to be downloaded", ErrLimit, s.most)
	}
	return s.w.Write(p)
}

// Close implements io.Closer.
func (s *packSink) Close() error { return s.w.Flush() }

// wants lists what to ask the server for. A commit that it does not give out by its name has to be looked for in all
// branches and tags, with their history.
func (s *session) wants(ctx context.Context, t target, deep bool) (_ []plumbing.Hash, all bool, err error) {
	if !t.bySHA || !deep && s.Capabilities().Supports(capability.AllowReachableSHA1InWant) {
		return []plumbing.Hash{t.want}, false, nil
	}
	refs, err := s.refs(ctx, plumbing.HEAD.String(), "refs/heads/", "refs/tags/")
	if err != nil {
		return nil, false, err
	}
	var hashes []plumbing.Hash
	for name, h := range refs.hashes {
		bare, peeled := strings.CutSuffix(name, peeledSuffix)
		switch {
		case h == t.want && peeled:
			return []plumbing.Hash{refs.hashes[bare]}, false, nil
		case h == t.want:
			return []plumbing.Hash{h}, false, nil
		case !peeled && (strings.HasPrefix(name, "refs/heads/") || strings.HasPrefix(name, "refs/tags/")):
			hashes = append(hashes, h)
		}
	}
	plumbing.HashesSort(hashes)
	return slices.Compact(hashes), true, nil
}

// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/go-git/go-git/v6/plumbing"
	formatcfg "github.com/go-git/go-git/v6/plumbing/format/config"

	"github.com/kaniko-go/kaniko-go/builder/internal/store"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// GitOptions says what is taken from a repository and how it is reached. What the URL says wins where
// the two do not conflict; where they do it is an error.
type GitOptions struct {
	// Branch is fetched in place of what the URL names, unless that is a commit; "" is what the URL names.
	Branch string
	// Checksum is the SHA that the commit (or the annotated tag) must have, or the beginning of it.
	Checksum string
	// KeepGitDir is ADD's flag; nil means not given.
	KeepGitDir *bool
	// MTime is the policy for file times: "checkout" for Now, "commit" for the time of the commit, "" for what the
	// URL says, else checkout.
	MTime string
	// Now is the time of a checkout; zero means the present.
	Now time.Time
	// Header and Token return, for the host[:port] of the URL, the value of an Authorization header and an access token, ""
	// if there is none. The header wins. Both may be nil. They are for http and https, and before credentials in the URL.
	Header, Token func(host string) string
	// SSH is what ssh addresses need; nil means that they are refused.
	SSH *SSH
	// DaemonScheme is the scheme, https or http, that git:// stands for; "" for git's own protocol.
	DaemonScheme string
	// NoSubmodules leaves submodules out where the URL does not say.
	NoSubmodules bool
	// MaxPack is how many bytes are downloaded of one repository; 0 means 2 GiB.
	MaxPack int64
	// MaxTree is how many bytes the objects of all repositories may have, and the files of the result; 0 means 10 GiB.
	MaxTree int64
	// MaxEntries is how many objects and how many files there may be; 0 means 4 million.
	MaxEntries int
	Network    Network
}

func (o GitOptions) withDefaults() GitOptions {
	if o.MaxPack <= 0 {
		o.MaxPack = 2 << 30
	}
	if o.MaxTree <= 0 {
		o.MaxTree = 10 << 30
	}
	if o.MaxEntries <= 0 {
		o.MaxEntries = 4_000_000
	}
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	o.Network.Timing = o.Network.Timing.withDefaults()
	return o
}

// Commit is what a git URL stands for today.
type Commit struct {
	// Hash is the commit's SHA. ResolveGit cannot always tell: then it is that of the annotated tag.
	Hash string
	// Tag is the SHA of the annotated tag that led to the commit, "" if none did.
	Tag string
	// Ref is the full name of the branch or tag, "" if the URL names a commit.
	Ref string
	// Time is when the commit was made; zero from ResolveGit.
	Time time.Time
}

// ResolveGit asks the server what a git URL stands for, and downloads nothing. A URL that names a full
// SHA is answered without asking. Errors are those of Git.
func ResolveGit(ctx context.Context, rawURL string, o GitOptions) (Commit, error) {
	g, err := newGit(rawURL, o)
	if err != nil {
		return Commit{}, err
	}
	defer g.close()
	t, ok, err := g.named()
	if err != nil {
		return Commit{}, g.fail(ctx, err)
	}
	if !ok {
		err = g.journey(ctx, g.url.remote, func(ctx context.Context) error {
			ctx, s, err := g.connect(ctx, g.url.remote)
			if err != nil {
				return err
			}
			defer s.close()
			t, err = s.choose(ctx, g.url.Ref)
			return stalled(ctx, err)
		})
		if err != nil {
			return Commit{}, g.fail(ctx, err)
		}
	}
	if err := g.checkSum(t.want, t.peeled); err != nil {
		return Commit{}, g.fail(ctx, err)
	}
	return t.commit(), nil
}

// Git fetches a directory of a repository: as little of its history as the server lets us. Files have mode 0644 or 0755 and the
// owner 0:0; links are kept; submodules are fetched unless the URL says otherwise; .git is there only if it is
// asked for and the directory is the whole repository. Contents lie in nameless files of the store and live as long as
// the Tree. Of .gitattributes the line ends are honoured (eol=crlf); filters are not run, nor keywords expanded, nor encodings changed.
//
// The error is an *Error, except where the caller's context has ended or our own disk failed. It wraps ErrChecksum,
// ErrLimit or ErrForbidden where those are the reason.
func Git(ctx context.Context, s *store.Store, rawURL string, o GitOptions) (*tree.Tree, Commit, error) {
	g, err := newGit(rawURL, o)
	if err != nil {
		return nil, Commit{}, err
	}
	defer g.close()
	t, c, err := g.get(ctx, s)
	if err != nil {
		if g.objects != nil {
			err = errors.Join(g.fail(ctx, err), g.objects.close())
		}
		return nil, Commit{}, g.fail(ctx, err)
	}
	return t, c, nil
}

// git is one call of Git, with all its submodules.
type git struct {
	url  *GitURL
	opts GitOptions
	wire *wire
	// local says that the user's server is this machine: then a submodule's may be.
	local   bool
	store   *store.Store
	objects *objects
	keep    bool
	budget  budget
}

// budget is what is left for all repositories together.
type budget struct {
	bytes   int64
	entries int
	modules int
	// attributes and matches are what .gitattributes may cost.
	attributes int64
	matches    int
}

// newGit reconciles the URL with the options.
func newGit(rawURL string, o GitOptions) (*git, error) {
	u, _, err := ParseGitURL(rawURL)
	if err != nil {
		return nil, &Error{URL: "git URL", Reason: strings.TrimPrefix(err.Error(), "git URL: "), Err: err}
	}
	bad := func(format string, args ...any) (*git, error) {
		return nil, &Error{URL: u.Redacted(), Reason: fmt.Sprintf(format, args...)}
	}
	if u.KeepGitDir != nil && o.KeepGitDir != nil && *u.KeepGitDir != *o.KeepGitDir {
		return bad("inconsistent keep-git-dir configuration")
	}
	if u.KeepGitDir == nil {
		u.KeepGitDir = o.KeepGitDir
	}
	if u.Checksum != "" && o.Checksum != "" && u.Checksum != o.Checksum {
		return bad("checksum mismatch %q != %q", o.Checksum, u.Checksum)
	}
	if u.Checksum == "" {
		u.Checksum = o.Checksum
	}
	if u.Checksum != "" && !isHex(u.Checksum) {
		return bad("invalid checksum %s for Git URL, expected hex commit hash", escape(u.Checksum))
	}
	u.Checksum = strings.ToLower(u.Checksum)
	if o.Branch != "" && u.Checksum == "" && !isSHA(u.Ref) {
		if err := checkRef(o.Branch); err != nil {
			return bad("%v", err)
		}
		u.Ref = o.Branch
	}
	if u.Submodules == nil && o.NoSubmodules {
		u.Submodules = new(bool)
	}
	if o.DaemonScheme != "" && u.remote.scheme == "git" {
		u.remote = u.remote.overHTTP(o.DaemonScheme)
	}
	if o.MTime != "" {
		u.MTime = o.MTime
	}
	o = o.withDefaults()
	return &git{
		url: u, opts: o, wire: newWire(o.Network),
		keep: u.KeepGitDir != nil && *u.KeepGitDir && u.Subdir == "",
		budget: budget{
			bytes: o.MaxTree, entries: o.MaxEntries, modules: maxModules,
			attributes: maxAttributeBytes, matches: maxAttributeMatches,
		},
	}, nil
}

func (g *git) close() { g.wire.close() }

func (g *git) fail(ctx context.Context, err error) error {
	return fail(ctx, g.url.Redacted(), err)
}

// get does the work.
func (g *git) get(ctx context.Context, s *store.Store) (*tree.Tree, Commit, error) {
	objects, err := newObjects(s, g.opts.MaxTree, g.opts.MaxEntries)
	if err != nil {
		return nil, Commit{}, local(err)
	}
	g.store, g.objects = s, objects
	r, err := g.fetchTop(ctx)
	if err != nil {
		return nil, Commit{}, err
	}
	commit, err := g.peel(r)
	if err != nil {
		return nil, Commit{}, err
	}
	now := g.opts.Now
	if g.url.MTime == "commit" {
		now = commit.Time
	}
	c := &checkout{git: g, mtime: now.Unix()}
	root, err := c.repository(ctx, r, "", 0)
	if err != nil {
		return nil, Commit{}, err
	}
	root, err = subdirectory(root, g.url.Subdir)
	if err != nil {
		return nil, Commit{}, err
	}
	return tree.FromRoot(root), commit, nil
}

// fetchTop fetches the repository that the user named.
func (g *git) fetchTop(ctx context.Context) (*repository, error) {
	t, fixed, err := g.named()
	if err != nil {
		return nil, err
	}
	if fixed {
		if err := g.checkSum(t.want, t.peeled); err != nil {
			return nil, err
		}
	}
	return g.fetch(ctx, g.url.remote, func(ctx context.Context, s *session) (target, error) {
		if fixed {
			return t, nil
		}
		t, err := s.choose(ctx, g.url.Ref)
		if err != nil {
			return target{}, err
		}
		return t, g.checkSum(t.want, t.peeled)
	})
}

// named returns the target of a URL that says it all: by a full SHA.
func (g *git) named() (t target, ok bool, err error) {
	sha := ""
	switch {
	case isSHA(g.url.Ref):
		sha = g.url.Ref
	case g.url.FetchByCommit:
		if sha = g.url.Checksum; !isSHA(sha) {
			return target{}, false, fmt.Errorf("fetch-by-commit requires a full commit SHA checksum, got %q", sha)
		}
		if t.ref = g.url.Ref; t.ref != "" && !strings.HasPrefix(t.ref, "refs/") {
			t.ref = "refs/heads/" + t.ref
		}
	default:
		return target{}, false, nil
	}
	t.want, t.bySHA = plumbing.FromHex(sha)
	return t, true, nil
}

// checkSum compares what a URL stands for with the checksum: the tag or the commit may be meant.
func (g *git) checkSum(hashes ...plumbing.Hash) error {
	if g.url.Checksum == "" {
		return nil
	}
	var got []string
	for _, h := range hashes {
		if h.IsZero() {
			continue
		}
		if strings.HasPrefix(h.String(), g.url.Checksum) {
			return nil
		}
		got = append(got, h.String())
	}
	reason := fmt.Sprintf("expected checksum to match %s, got %s", g.url.Checksum, strings.Join(got, " or "))
	return &Error{URL: g.url.Redacted(), Reason: reason, Err: ErrChecksum}
}

// peel follows annotated tags to the commit.
func (g *git) peel(r *repository) (Commit, error) {
	c := Commit{Ref: r.target.ref}
	h := r.target.want
	for range maxTags {
		o, err := g.objects.get(h)
		if err != nil {
			return Commit{}, err
		}
		switch o.kind {
		case plumbing.CommitObject:
			info, err := g.objects.commit(h)
			if err != nil {
				return Commit{}, err
			}
			r.commit, r.tree = h, info.tree
			c.Hash, c.Time = h.String(), info.time
			return c, nil
		case plumbing.TagObject:
			if c.Tag == "" {
				c.Tag = h.String()
			}
			if h, err = g.objects.tag(h); err != nil {
				return Commit{}, err
			}
		default:
			return Commit{}, fmt.Errorf("expected commit or tag object, got %s", o.kind)
		}
	}
	return Commit{}, fmt.Errorf("%w: more than %d tags of tags", ErrLimit, maxTags)
}

// repository is what was fetched of one repository.
type repository struct {
	remote remote
	target target
	// format is the kind of its objects' names: SHA-1 or SHA-256.
	format formatcfg.ObjectFormat
	commit plumbing.Hash
	tree   plumbing.Hash
	// shallow are the commits whose parents were left out.
	shallow []plumbing.Hash
	// pack and packed, what its index will list, are kept for a .git directory only.
	pack   *os.File
	packed *packIndex
}

const (
	maxTags    = 10
	maxModules = 1000
	maxNesting = 16
	maxDepth   = 256
)

// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path"
	"strings"

	"github.com/kaniko-go/kaniko-go/builder/internal/buildcontext"
	"github.com/kaniko-go/kaniko-go/builder/internal/dockerfile"
	"github.com/kaniko-go/kaniko-go/builder/internal/fetch"
	"github.com/kaniko-go/kaniko-go/builder/internal/plan"
	"github.com/kaniko-go/kaniko-go/builder/internal/progress"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
	"github.com/kaniko-go/kaniko-go/builder/registry"
)

// SourceOptions say how a build context that is not on disk is reached.
type SourceOptions struct {
	Git    GitSource
	S3     S3Source
	Google GoogleSource
	Azure  AzureSource
	// Labels asks for labels that name the repository and the commit.
	Labels bool
}

// The object stores' addresses and logins.
type (
	// S3Source is for a build context in S3; the login is what the AWS SDK finds.
	S3Source = fetch.S3Options
	// GoogleSource is for a build context in Google's store.
	GoogleSource struct {
		fetch.GoogleOptions
		Login registry.GoogleLogin
	}
	// AzureSource is for a build context in Azure's store. Its Credential is that of Login.
	AzureSource struct {
		fetch.AzureOptions
		Login registry.AzureLogin
	}
)

// GitSource is for a build context in a repository.
type GitSource struct {
	// Branch is what is built, unless the URL names a commit.
	Branch string
	// NoSubmodules leaves them out where the URL does not say.
	NoSubmodules bool
	// InsecureTLS leaves out the check of the server's certificate.
	InsecureTLS bool
	// Scheme is what git:// stands for, https or http.
	Scheme string
	// User, Password and Token are for the host of the build context alone. The token takes the password's place, and needs no user.
	User, Password, Token string
}

// authorization is the value of the header. A user without a password may be a token itself.
func (g GitSource) authorization() string {
	user, password := g.User, cmp.Or(g.Token, g.Password)
	switch {
	case user == "" && password == "":
		return ""
	case user == "":
		user = "x-access-token"
	}
	return fetch.BasicAuthorization(user, password)
}

// commit is where a build context comes from, for people and for labels.
type commit struct{ hash, address string }

// maxContext is the size that an archive from a server may have.
const maxContext = 1 << 40

// openContext opens the build context, which for most kinds means to download it.
func (b *Builder) openContext(ctx context.Context, r Request, in *inputs) (*buildcontext.Context, error) {
	at, err := buildcontext.Locate(r.Context, r.Source.Azure.Endpoint)
	if err != nil {
		return nil, &setupError{fmt.Errorf("KANIKO_CONTEXT: %w", err)}
	}
	if at.Kind == buildcontext.Dir {
		bc, err := buildcontext.Open(at.Path, r.ContextSub)
		return bc, setup(err)
	}
	if at.Kind == buildcontext.Git {
		return b.openGit(ctx, r, in, at.URL)
	}
	o := buildcontext.Options{Sub: r.ContextSub, Dockerfile: r.Dockerfile, Select: b.selector(ctx, r, in)}
	if o.Given, err = in.givenDockerfile(ctx, r.Dockerfile); err != nil {
		return nil, err
	}
	var bc *buildcontext.Context
	switch at.Kind {
	case buildcontext.Tar:
		bc, err = buildcontext.OpenFile(ctx, in.disk, at.Path, o)
	case buildcontext.Stdin:
		bc, err = buildcontext.OpenStdin(ctx, in.disk, o)
	default:
		bc, err = b.openObject(ctx, r, in, at, o)
	}
	if err != nil {
		return nil, setup(err)
	}
	if stored, passed := bc.Kept(); stored+passed > 0 {
		b.Log.Info(fmt.Sprintf("build context %s: %s of its files stored, %s passed over", bc.Name(), progress.Bytes(stored), progress.Bytes(passed)))
	}
	return bc, nil
}

// setup marks what is wrong with a build context; what is wrong with a Dockerfile in it is marked already.
func setup(err error) error {
	var file *dockerfile.Error
	if err == nil || errors.As(err, &file) {
		return err
	}
	return &setupError{err}
}

// openObject downloads an archive.
func (b *Builder) openObject(ctx context.Context, r Request, in *inputs, at buildcontext.Location, o buildcontext.Options) (*buildcontext.Context, error) {
	network := fetch.Network{OnRetry: in.remotes.retry}
	object, err := object(ctx, r, in, at, network)
	if err != nil {
		return nil, &setupError{err}
	}
	in.closers = append(in.closers, object.Close)
	s, err := fetch.OpenObject(ctx, object, network)
	if err != nil {
		return nil, fmt.Errorf("build context: %w", err)
	}
	defer func() { _ = s.Close() }()
	input := buildcontext.Input{Reader: s}
	if s.Version() != "" {
		input.Again = s.AgainReader
	}
	return buildcontext.OpenArchive(ctx, in.disk, object.Where(), input, o)
}

func object(ctx context.Context, r Request, in *inputs, at buildcontext.Location, network fetch.Network) (fetch.Object, error) {
	switch at.Kind {
	case buildcontext.S3:
		c, err := registry.AmazonConfig(ctx)
		if err != nil {
			return nil, err
		}
		return fetch.S3Object(c, at.Bucket, at.Key, r.Source.S3, network), nil
	case buildcontext.Google:
		from := r.Source.Google
		token := func(ctx context.Context) (string, error) { return registry.GoogleToken(ctx, from.Login) }
		if from.Endpoint != "" {
			// A server of one's own is not shown Google's tokens.
			token = func(context.Context) (string, error) { return "", nil }
		}
		return fetch.GoogleObject(at.Bucket, at.Key, from.GoogleOptions, token, network)
	case buildcontext.Azure:
		from, err := r.Source.Azure, error(nil)
		u, _ := url.Parse(at.URL) // Locate has seen it
		if from.Credential, err = from.Login.TokenCredential(u.Hostname()); err != nil {
			return nil, err
		}
		return fetch.AzureObject(at.URL, from.AzureOptions, network)
	default:
		o := in.remotes.httpOptions()
		o.MaxBytes = maxContext
		return fetch.WebObject(at.URL, o)
	}
}

// openGit fetches a repository's directory.
func (b *Builder) openGit(ctx context.Context, r Request, in *inputs, address string) (*buildcontext.Context, error) {
	git := r.Source.Git
	u, _, err := fetch.ParseGitURL(address)
	if err != nil {
		return nil, &setupError{err}
	}
	o := in.remotes.gitOptions()
	o.Branch = git.Branch
	o.KeepGitDir, o.DaemonScheme, o.NoSubmodules = in.remotes.keepGitDir, git.Scheme, git.NoSubmodules
	o.Network.InsecureTLS = git.InsecureTLS
	if own := git.authorization(); own != "" {
		o.Header = func(string) string { return own }
	}
	if u.MTime == "" && r.Epoch != nil {
		o.MTime = "commit"
	}
	t, found, err := fetch.Git(ctx, in.disk, address, o)
	if err != nil {
		return nil, &setupError{fmt.Errorf("build context: %w", err)}
	}
	in.commit = commit{hash: found.Hash, address: u.Redacted()}
	b.Log.Info(fmt.Sprintf("build context %s at commit %s%s", u.Redacted(), found.Hash, named(found.Ref)))
	bc, err := buildcontext.FromTree(u.Redacted(), t, r.ContextSub)
	return bc, setup(err)
}

func named(ref string) string {
	if ref == "" {
		return ""
	}
	return ", " + ref
}

// dockerfile finds the Dockerfile, which may be at a URL.
func (in *inputs) dockerfile(ctx context.Context, bc *buildcontext.Context, name string) (*buildcontext.Dockerfile, error) {
	if !strings.Contains(name, "://") {
		return bc.Dockerfile(name)
	}
	return in.givenDockerfile(ctx, name)
}

// givenDockerfile is one that does not come from the build context: at a URL, or on disk; nil if there is none.
func (in *inputs) givenDockerfile(ctx context.Context, name string) (*buildcontext.Dockerfile, error) {
	if !strings.Contains(name, "://") {
		d, err := buildcontext.DockerfileOnDisk(name)
		return d, setup(err)
	}
	got, err := in.remotes.file(ctx, name, "")
	if err != nil {
		return nil, &setupError{fmt.Errorf("dockerfile: %w", err)}
	}
	data, err := tree.FromRoot(tree.NewDir(tree.Meta{}, tree.Entry{Name: "Dockerfile", Inode: got.inode})).ReadFile("Dockerfile", dockerfile.MaxSize)
	if err != nil {
		return nil, &setupError{fmt.Errorf("dockerfile %s: %w", fetch.Shown(name), err)}
	}
	return &buildcontext.Dockerfile{Name: "Dockerfile", Data: data}, nil
}

// selector plans the build while the build context comes in, to know what of it is needed.
func (b *Builder) selector(ctx context.Context, r Request, in *inputs) buildcontext.Selector {
	return func(d *buildcontext.Dockerfile) (func(string) bool, error) {
		file, err := dockerfile.Parse(d.Name, d.Data)
		if err != nil {
			return nil, err
		}
		if r.linting {
			return func(string) bool { return false }, nil
		}
		early := *in
		early.file = file
		plans, err := makePlans(ctx, r, early)
		if err != nil {
			return nil, err
		}
		return needed(plans), nil
	}
}

// needed tells what of the build context the plans may ask for, links not followed.
func needed(plans []*plan.Plan) func(string) bool {
	var roots []string
	add := func(p string) {
		if dir, pattern, ok := strings.Cut(p, "/./"); ok {
			p = path.Join(dir, pattern)
		}
		roots = append(roots, literal(p))
	}
	for _, p := range plans {
		for _, s := range p.Stages {
			for _, i := range s.Instructions {
				switch op := i.Op.(type) {
				case plan.Copy:
					for _, src := range op.Sources {
						if op.From == nil && src.Path != "" {
							add(src.Path)
						}
					}
				case plan.Run:
					for _, m := range op.Mounts {
						if m.Type == "bind" && m.From == nil {
							add(m.Source)
						}
					}
				}
			}
		}
	}
	return func(name string) bool {
		for _, root := range roots {
			if root == "" || name == root || strings.HasPrefix(name, root+"/") {
				return true
			}
		}
		return false
	}
}

// literal is the part of a pattern before the element with the first wildcard; "" is the whole context.
func literal(pattern string) string {
	var out []string
	for element := range strings.SplitSeq(strings.TrimPrefix(path.Clean("/"+pattern), "/"), "/") {
		if strings.ContainsAny(element, `*?[\`) {
			break
		}
		out = append(out, element)
	}
	return strings.Join(out, "/")
}

// labels are those of the image: what the user gave wins over where the build context comes from.
func (in *inputs) labels(r Request) map[string]string {
	if !r.Source.Labels || in.commit.hash == "" {
		return r.Labels
	}
	all := map[string]string{
		"org.opencontainers.image.revision": in.commit.hash,
		"org.opencontainers.image.source":   in.commit.address,
	}
	maps.Copy(all, r.Labels)
	return all
}

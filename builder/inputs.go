// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/kaniko-go/kaniko-go/builder/internal/buildcontext"
	"github.com/kaniko-go/kaniko-go/builder/internal/cache"
	"github.com/kaniko-go/kaniko-go/builder/internal/dockerfile"
	"github.com/kaniko-go/kaniko-go/builder/internal/fetch"
	"github.com/kaniko-go/kaniko-go/builder/internal/plan"
	"github.com/kaniko-go/kaniko-go/builder/internal/store"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// inputs are what a build works on.
type inputs struct {
	file   *dockerfile.File
	source *tree.Tree
	// ignored tells whether the ignore file hides a path of the build context; nil if there is none.
	ignored func(path string) bool
	images  *images
	disk    *store.Store
	secrets map[string][]byte
	agents  map[string]sshAgent
	caches  *caches
	// unpacked are base images on disk; nil where they do not outlive the build.
	unpacked *unpackedBases
	remotes  *remotes
	cache    *cache.Cache
	// commit is what the build context was made of; closers let go of what it was fetched from.
	commit  commit
	closers []func()
}

// open is what every verb that reads a Dockerfile begins with: store, build context and Dockerfile. done lets go of them.
func (b *Builder) open(ctx context.Context, r Request) (in inputs, done func(), err error) {
	if in.disk, err = openStore(r); err != nil {
		return in, nil, &environmentError{err}
	}
	var bc *buildcontext.Context
	done = func() {
		in.unpacked.close()
		for _, f := range in.closers {
			f()
		}
		if bc != nil {
			if err := bc.Close(); err != nil {
				b.Log.Warn(fmt.Sprintf("build context: %v", err))
			}
		}
		if err := in.disk.Close(); err != nil {
			b.Log.Warn(fmt.Sprintf("clean-up of %s: %v", in.disk.Dir(), err))
		}
	}
	if err = b.gather(r, &in); err == nil {
		bc, err = b.openContext(ctx, r, &in)
	}
	if err == nil {
		err = in.read(ctx, bc, r.Dockerfile)
	}
	if err == nil {
		err = r.Cache.check(in.file)
	}
	if err != nil {
		done()
		return in, nil, err
	}
	return in, done, nil
}

// gather reads secrets and keys, before a RUN could, and prepares for what else the stages ask for.
func (b *Builder) gather(r Request, in *inputs) (err error) {
	in.images = newImages(b.Registry)
	if in.images.kept, err = b.openBaseCache(r.Cache.Dir); err != nil {
		return err
	}
	in.caches, in.unpacked = b.openCaches(r, in.disk, in.images.kept), b.openUnpacked(r, in.images.kept)
	missing := func(id, file string) {
		b.Log.Warn(fmt.Sprintf("secret %s: there is no file %s; a RUN that does not require it goes on without", id, file))
	}
	if in.secrets, err = readSecrets(r.Secrets, missing); err != nil {
		return err
	}
	if in.agents, err = openAgents(r.SSH); err != nil {
		return err
	}
	for _, s := range in.secrets {
		b.Log.Mask(string(s))
	}
	for _, s := range []string{r.Source.Git.Password, r.Source.Git.Token, r.Source.Azure.Key, r.Source.Azure.SAS} {
		b.Log.Mask(s)
	}
	in.remotes = &remotes{disk: in.disk, secrets: in.secrets, agents: in.agents, knownHosts: fetch.ReadKnownHosts(r.KnownHosts), now: time.Now, say: func(s string) { b.Log.Info(s) }}
	if r.asks("BUILDKIT_CONTEXT_KEEP_GIT_DIR") {
		keep := true
		in.remotes.keepGitDir = &keep
	}
	if r.Epoch != nil {
		in.remotes.now = func() time.Time { return *r.Epoch }
	}
	return nil
}

// makePlans makes a plan for each platform.
func makePlans(ctx context.Context, r Request, in inputs) ([]*plan.Plan, error) {
	var plans []*plan.Plan
	for _, req := range planRequests(r, in) {
		p, err := plan.New(ctx, in.file, req)
		if err != nil {
			return nil, err
		}
		plans = append(plans, p)
	}
	return plans, nil
}

// planRequests are what the plan of each platform is asked for.
func planRequests(r Request, in inputs) []plan.Request {
	local := localPlatform()
	req := plan.Request{
		Target:        r.Target,
		BuildArgs:     r.BuildArgs,
		Labels:        in.labels(r),
		BuildPlatform: local,
		Platform:      local,
		Epoch:         r.Epoch,
		Resolve:       in.images.resolve,
		Contexts:      r.Contexts,
		ResolveLayout: in.images.resolveLayout,
		SourceEpoch:   in.remotes.epoch,
		Ignored:       in.ignored,
	}
	if len(r.Platforms) == 0 {
		return []plan.Request{req}
	}
	var all []plan.Request
	for _, platform := range r.Platforms {
		req.Platform, req.ExplicitPlatform = platform, true
		all = append(all, req)
	}
	return all
}

// read finds, reads and parses the Dockerfile and opens the context through its ignore file.
func (in *inputs) read(ctx context.Context, bc *buildcontext.Context, name string) error {
	d, err := in.dockerfile(ctx, bc, name)
	if err != nil {
		return setup(err)
	}
	if in.file, err = dockerfile.Parse(d.Name, d.Data); err != nil {
		return err
	}
	ignore, err := bc.Ignore(d)
	if err != nil {
		return &setupError{err}
	}
	in.source = bc.Tree(ignore)
	if ignore != nil {
		in.ignored = func(p string) bool {
			hidden, _ := ignore.Match(strings.TrimPrefix(path.Clean("/"+p), "/"), dockerfile.Info{})
			return hidden
		}
	}
	return nil
}

func openStore(r Request) (*store.Store, error) {
	if r.FallbackDir {
		return store.Open("", r.Dir)
	}
	return store.Open(r.Dir, "")
}

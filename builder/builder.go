// SPDX-License-Identifier: Apache-2.0

// Package builder carries out what the program is for, one exported verb for each mode. Build makes an image
// of a Dockerfile: it opens the build context, plans, executes the stages that the target needs at the same time
// where they do not depend on each other, and publishes the result.
//
// It reads no environment and writes no result files: it is handed a Request and
// returns a Result. Data goes one way, from the context through plan and stages to
// the outputs; ExitCode says what an error means for whoever started us.
package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/containerd/platforms"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kaniko-go/kaniko-go/builder/internal/plan"
	"github.com/kaniko-go/kaniko-go/builder/internal/progress"
	"github.com/kaniko-go/kaniko-go/builder/isolation"
	"github.com/kaniko-go/kaniko-go/builder/registry"
)

// Request is one build.
type Request struct {
	// Context says where the sources are: a directory, or what else buildcontext.Locate knows. ContextSub is a directory in
	// it that takes its place.
	Context, ContextSub string
	// Source is how a context that is not on disk is reached.
	Source SourceOptions
	// Dockerfile is a path: absolute, or relative to the working directory or the context; or an http or https URL.
	Dockerfile string
	// Target is the stage to build, "" for the last.
	Target            string
	BuildArgs, Labels map[string]string
	// Platforms are what the image is for: none for that of the builder; several give an index.
	Platforms []ocispec.Platform
	// Epoch is the newest time of files and the time of everything the builder makes; nil for real times.
	Epoch *time.Time

	// Contexts are named build contexts: NAME or NAME::PLATFORM -> a directory, docker-image://REF, and what else plan.Request says.
	Contexts map[string]string
	// Secrets and SSH are what mounts of those types can ask for, by id; SSH holds one socket or files with keys.
	Secrets map[string]Secret
	SSH     map[string][]string
	// Credentials are the files that registry credentials were read from.
	Credentials []string
	// KnownHosts are files in the format of known_hosts, for git over ssh. Those that are missing are left out.
	KnownHosts []string

	Output Output
	Run    RunOptions
	Cache  CacheOptions
	// IgnorePaths are absolute; what a RUN changes there is not in its layer.
	IgnorePaths []string
	// Dir holds what the build needs on disk; with FallbackDir another directory is made where Dir cannot be.
	Dir         string
	FallbackDir bool
	// DryRun, if set, receives the plan, and nothing is built.
	DryRun io.Writer

	// linting says that nothing of the context is needed but the Dockerfile.
	linting bool
}

// asks reports whether a build argument that has a meaning for the builder is true.
func (r Request) asks(arg string) bool {
	yes, err := strconv.ParseBool(r.BuildArgs[arg])
	return err == nil && yes
}

// Output says where the image goes and in what form.
type Output struct {
	// Destinations are references; all receive the same image. Nothing is pushed if there is none or NoPush is set.
	Destinations []string
	NoPush       bool
	// SkipPushCheck leaves out the early question whether pushing is permitted.
	SkipPushCheck bool
	// Layout is a directory that becomes, or already is, an OCI image layout; Tarball is a file in the format of docker save.
	Layout, Tarball string
	// Compression is "gzip" or "zstd"; Level 0 is the default of each.
	Compression string
	Level       int
	// Docker asks for Docker's media types instead of OCI's.
	Docker bool
	// Annotations are those of each platform's manifest. Docker's have none.
	Annotations map[string]string
}

// pushes returns where the image is pushed to.
func (o Output) pushes() []string {
	if o.NoPush {
		return nil
	}
	return o.Destinations
}

// RunOptions are what every RUN sees besides its Dockerfile.
type RunOptions struct {
	Hostname string
	Hosts    []isolation.Host
	// Network is "none" or "" for the network of the builder, for RUNs that do not say.
	Network string
	ShmSize int64
	Ulimits []isolation.Ulimit
	// Timeout ends a RUN that takes longer; 0 for none.
	Timeout time.Duration
}

// Builder has what builds share.
type Builder struct {
	Registry *registry.Client
	// Isolation is what isolation.Enter obtained.
	Isolation isolation.Status
	Log       *progress.Log
}

// Result is what was built.
type Result struct {
	// Digest is that of the manifest.
	Digest v1.Hash
	// Destinations are the references that now lead to it; none if nothing was pushed.
	Destinations []string
	// SourceCommit is the commit that the build context was, "" where it was not in a repository.
	SourceCommit string
}

// Build makes the image. Errors are classified by ExitCode. With Request.DryRun the Result is nil.
func (b *Builder) Build(ctx context.Context, r Request) (res *Result, err error) {
	in, done, err := b.open(ctx, r)
	if err != nil {
		return nil, err
	}
	defer done()
	plans, err := makePlans(ctx, r, in)
	if err != nil {
		return nil, err
	}
	if r.DryRun != nil {
		return nil, dryRun(r.DryRun, plans)
	}
	if err := r.Output.probeFiles(); err != nil {
		return nil, err
	}
	if err := b.checkPush(ctx, r.Output); err != nil {
		return nil, err
	}
	res, err = b.execute(ctx, r, plans, in)
	if err == nil {
		res.SourceCommit = in.commit.hash
		in.caches.store(ctx)
	}
	b.tidy(r.Cache, in.caches)
	return res, err
}

// execute carries out the plans, one after the other, and publishes what they make.
func (b *Builder) execute(ctx context.Context, r Request, plans []*plan.Plan, in inputs) (res *Result, err error) {
	in.cache = b.openCache(r)
	in.disk.Indexes = in.cache.Enabled() || in.images.kept != nil
	for attempt := 0; ; attempt++ {
		res, err := b.attempt(ctx, r, plans, in)
		var bad *badHitError
		if err == nil || attempt == maxBadHits || !errors.As(err, &bad) || ctx.Err() != nil {
			return res, err
		}
		in.distrust(b.Log, bad)
		b.Log.Restart()
		in.images.forget()
	}
}

// maxBadHits is how often a build begins again because a layer of the cache turned out to be wrong.
const maxBadHits = 5

// attempt is one go at the plans, which ends with a badHitError when the cache has promised what it does not have.
func (b *Builder) attempt(ctx context.Context, r Request, plans []*plan.Plan, in inputs) (res *Result, err error) {
	var (
		executors []*executor
		built     []platformImage
		labels    []string
		total     int
	)
	for i, p := range plans {
		x := newExecutor(ctx, b, r, p, in)
		if len(plans) > 1 {
			x.labelPlatform(platforms.Format(r.Platforms[i]))
		}
		defer func() { err = errors.Join(err, x.close()) }()
		if err := x.prepare(ctx); err != nil {
			return nil, err
		}
		total += x.steps()
		executors = append(executors, x)
	}
	b.Log.Expect(total)
	defer func() { b.flush(ctx, executors, err) }()
	for _, x := range executors {
		img, err := x.run(ctx)
		if err != nil {
			return nil, err
		}
		built = append(built, platformImage{img, x.plan.Target.Config.Platform})
		labels = append(labels, x.labels()...)
	}
	b.Log.Table(labels)
	for _, w := range plans[0].Warnings {
		b.Log.Warn(fmt.Sprintf("%s: %s (line %d)", w.Rule, w.Message, firstLine(w.Location)))
	}
	return b.publish(ctx, r.Output, built, len(built) > 1 || r.asks("BUILDKIT_MULTI_PLATFORM"))
}

func dryRun(w io.Writer, plans []*plan.Plan) error {
	for _, p := range plans {
		if _, err := io.WriteString(w, p.String()); err != nil {
			return err
		}
	}
	return nil
}

// checkPush asks every destination, before anything is built, whether it would take an image.
func (b *Builder) checkPush(ctx context.Context, o Output) error {
	if o.SkipPushCheck {
		return nil
	}
	for _, d := range o.pushes() {
		if err := b.Registry.CheckPush(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

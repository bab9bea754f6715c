// SPDX-License-Identifier: Apache-2.0

// Package plan turns a parsed Dockerfile and the wishes of a build into data:
// the stages that the target needs, in order, with every variable expanded, every
// base image resolved and the image configuration worked out. Deciding is all it
// does: it opens nothing, runs nothing, and asks the outside only through the
// functions in Request. Its semantics are BuildKit's; what the builder cannot do
// yet is refused here, with the line.
package plan

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/util/suggest"

	"github.com/kaniko-go/kaniko-go/builder/internal/dockerfile"
)

const (
	// maxEnv bounds the environment of a stage; the kernel takes no more of a process.
	maxEnv = 1 << 20
	// maxPlan bounds what one Dockerfile may make of the builder's memory.
	maxPlan = 64 << 20
	// maxWarnings bounds the build checks reported of what planning finds.
	maxWarnings = 1000
	// maxSuggest bounds the names compared with a mistyped one, maxMistyped its length.
	maxSuggest  = 1000
	maxMistyped = 100
)

// planner holds what one call of New knows. Its methods run one after another;
// only the look-up of images is concurrent.
type planner struct {
	file      *dockerfile.File
	req       Request
	expander  *dockerfile.Expander
	lint      *linter.Linter
	warnings  []Warning
	buildArgs map[string]string
	global    *dockerfile.Env
	proxies   []string
	epoch     *time.Time
	nodes     []*node
	// contexts are the named contexts by normal name.
	contexts map[string]NamedContext
	// foreign are images that only COPY --from and mounts name, by that name.
	foreign map[string]*node
	// badName is the first name that should be an image's and cannot be.
	badName error
	byName  map[string]*node
	images  map[imageKey]*Image
	spent   int
}

// New plans a build from the target backwards: stages and images that it does
// not need are neither looked up nor planned. An error of the Dockerfile is a
// *dockerfile.Error with the place; an error of Request.Resolve is wrapped in
// one. The file is not changed, so several plans may be made from it at once.
func New(ctx context.Context, file *dockerfile.File, req Request) (*Plan, error) {
	p, err := newPlanner(file, req)
	if err != nil {
		return nil, err
	}
	target, err := p.prepare(ctx)
	if err != nil {
		return nil, err
	}
	reached, err := p.settle(ctx, target, nil)
	if err != nil {
		return nil, err
	}
	plan := &Plan{Epoch: p.epoch}
	if plan.Stages, err = p.planStages(reached); err != nil {
		return nil, err
	}
	// Whatever the target needs comes before it, and nothing after it was reached.
	plan.Target = target.stage
	p.finish(plan.Target)
	plan.Warnings = p.sortedWarnings()
	if err := p.lintError(); err != nil {
		return nil, err
	}
	return plan, nil
}

// prepare does all that can be done before anything is looked up but the epoch, and finds the target.
func (p *planner) prepare(ctx context.Context) (*node, error) {
	p.lintFile()
	if err := p.readGlobalArgs(); err != nil {
		return nil, err
	}
	if err := p.readContexts(); err != nil {
		return nil, err
	}
	if err := p.readEpoch(ctx); err != nil {
		return nil, err
	}
	if err := p.makeNodes(); err != nil {
		return nil, err
	}
	target, err := p.findTarget()
	if err != nil {
		return nil, err
	}
	return target, p.linkNodes()
}

// planStages plans the reached stages in their order, those first that a named
// context takes the place of: they need nothing, and may be needed anywhere.
func (p *planner) planStages(reached map[*node]bool) ([]*Stage, error) {
	var stages []*Stage
	for _, replaced := range []bool{true, false} {
		for _, n := range p.nodes {
			if !reached[n] || n.replaced != replaced {
				continue
			}
			var err error
			if n.stage, err = p.planStage(n); err != nil {
				return nil, err
			}
			stages = append(stages, n.stage)
		}
	}
	return stages, nil
}

func newPlanner(file *dockerfile.File, req Request) (*planner, error) {
	p := &planner{
		file:      file,
		req:       req,
		expander:  dockerfile.NewExpander(file.EscapeToken),
		buildArgs: maps.Clone(req.BuildArgs),
		foreign:   map[string]*node{},
		byName:    map[string]*node{},
		images:    map[imageKey]*Image{},
	}
	if p.buildArgs == nil {
		p.buildArgs = map[string]string{}
	}
	p.req.BuildPlatform = platforms.Normalize(req.BuildPlatform)
	p.req.Platform = platforms.Normalize(req.Platform)
	if syntax := p.buildArgs["BUILDKIT_SYNTAX"]; syntax != "" {
		if err := dockerfile.CheckSyntax(syntax); err != nil {
			return nil, fmt.Errorf("build argument BUILDKIT_SYNTAX: %w", err)
		}
	}
	if options, given := p.buildArgs["BUILDKIT_DOCKERFILE_CHECK"]; given {
		var err error
		if p.file, err = file.WithChecks(options); err != nil {
			return nil, fmt.Errorf("build argument BUILDKIT_DOCKERFILE_CHECK: %w", err)
		}
	}
	if err := checkPlatform(p.req.Platform); err != nil {
		return nil, err
	}
	checks := p.file.Checks
	checks.Warn = func(rule, description, url, message string, location []parser.Range) {
		if len(p.warnings) == maxWarnings {
			return
		}
		p.warnings = append(p.warnings, Warning{
			Rule: rule, Message: message, Description: description, URL: url, Location: location,
		})
	}
	p.lint = linter.New(&checks)
	return p, nil
}

// finish applies what belongs to the result alone.
func (p *planner) finish(target *Stage) {
	config := &target.Config
	if len(p.req.Labels) > 0 && config.Config.Labels == nil {
		config.Config.Labels = map[string]string{}
	}
	maps.Copy(config.Config.Labels, p.req.Labels)
	if p.req.ExplicitPlatform {
		want := p.req.Platform
		same := want.OS == config.OS && want.Architecture == config.Architecture
		config.OS, config.Architecture = want.OS, want.Architecture
		if want.Variant != "" || !same {
			config.Variant = want.Variant
		}
		if want.OSVersion != "" || !same {
			config.OSVersion = want.OSVersion
		}
		if want.OSFeatures != nil {
			config.OSFeatures = slices.Clone(want.OSFeatures)
		}
	}
	config.Platform = platforms.Normalize(config.Platform)
}

// spend counts memory that the plan takes, so that a small Dockerfile cannot
// ask for gigabytes of it.
func (p *planner) spend(bytes int) error {
	p.spent += bytes
	if p.spent > maxPlan {
		return fmt.Errorf("the build plan is larger than %d MiB: variables expand to too much", maxPlan>>20)
	}
	return nil
}

// didYouMean adds the option nearest to a mistyped name, if one is near.
func didYouMean(err error, name string, options []string) error {
	if len(name) > maxMistyped || len(options) > 2*maxSuggest {
		return err
	}
	return suggest.WrapError(err, name, options, true)
}

func (p *planner) sortedWarnings() []Warning {
	all := make([]Warning, 0, len(p.file.Warnings)+len(p.warnings))
	for _, w := range p.file.Warnings {
		all = append(all, Warning(w))
	}
	all = append(all, p.warnings...)
	slices.SortStableFunc(all, func(a, b Warning) int {
		lineA, _, _ := dockerfile.Lines(a.Location)
		lineB, _, _ := dockerfile.Lines(b.Location)
		return lineA - lineB
	})
	if len(all) == 0 {
		return nil
	}
	return all
}

// LintError says that build checks fired in a file that says "# check=error=true".
type LintError struct {
	// Warnings are all that fired, in order of line; there is at least one.
	Warnings []Warning
}

// Error names the rules, sorted.
func (e *LintError) Error() string {
	var rules []string
	for _, w := range e.Warnings {
		rules = append(rules, w.Rule)
	}
	slices.Sort(rules)
	return "lint violation found for rules: " + strings.Join(slices.Compact(rules), ", ")
}

// lintError makes warnings fatal where the file says so.
func (p *planner) lintError() error {
	warnings := p.sortedWarnings()
	if !p.file.Checks.ReturnAsError || len(warnings) == 0 {
		return nil
	}
	return p.file.Wrap(nil, &LintError{Warnings: warnings})
}

// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kaniko-go/kaniko-go/builder/internal/dockerfile"
)

const scratch = "scratch"

// node is a stage, or something else that COPY --from or a mount names, while the plan is made.
type node struct {
	// index is the position among the stages, -1 for what is no stage.
	index    int
	name     string
	baseName string
	location []parser.Range
	comments []string
	// base is the stage that FROM names; else ref is the image, "" for scratch.
	base *node
	ref  string
	// layout says that ref is in an OCI layout. context is set instead of ref for a named
	// context that is no image.
	layout  bool
	context *NamedContext
	// replaced says that a named context takes the place of this very stage, named that
	// one takes the place of an image.
	replaced, named bool
	// unusable is what is wrong with that context, which matters only if it is needed.
	unusable error
	// platform is nil unless FROM says --platform.
	platform  *ocispec.Platform
	declared  []instructions.Command
	commands  []command
	image     *Image
	triggered bool
	// stage and state are set once the stage is planned.
	stage *Stage
	state *stageState
}

// command is an instruction and the nodes that it reads.
type command struct {
	instructions.Command
	// from is what COPY --from names; mounts has a node, or nil, for each RUN --mount.
	from   *node
	mounts []*node
	// flags are those of a RUN, as written.
	flags   []string
	onBuild bool
}

// needs are the nodes that a command reads.
func (c command) needs() []*node {
	var needs []*node
	if c.from != nil {
		needs = append(needs, c.from)
	}
	for _, n := range c.mounts {
		if n != nil {
			needs = append(needs, n)
		}
	}
	return needs
}

// makeNodes makes a node of every stage. Names are expanded in all stages,
// reached or not: they are syntax.
func (p *planner) makeNodes() error {
	for i, stage := range p.file.Stages {
		n, err := p.newNode(i, stage)
		if err != nil {
			return p.file.Wrap(stage.Location, err)
		}
		p.nodes = append(p.nodes, n)
		if stage.Name != "" {
			p.byName[strings.ToLower(stage.Name)] = n
		}
	}
	return nil
}

// linkNodes links COPY --from and mounts to the nodes.
func (p *planner) linkNodes() error {
	for _, n := range p.nodes {
		if n.replaced {
			continue
		}
		for _, cmd := range n.declared {
			linked, err := p.link(cmd, p.file.Flags(cmd))
			if err != nil {
				return p.file.Wrap(cmd.Location(), err)
			}
			n.commands = append(n.commands, linked)
		}
	}
	if err := p.checkCycles(); err != nil {
		return err
	}
	return p.badName
}

func (p *planner) newNode(index int, stage instructions.Stage) (*node, error) {
	n := &node{
		index:    index,
		name:     stage.Name,
		location: stage.Location,
		comments: stage.Comments,
		declared: stage.Commands,
	}
	if n.name == "" {
		n.name = fmt.Sprintf("stage-%d", index)
	}
	lint := p.lint.WithMergedConfigFromComments(stage.Comments)
	base, err := p.expander.Word(stage.BaseName, p.global)
	p.warnFromArgs(lint, base, stage.Location)
	if err != nil {
		return nil, err
	}
	if base.Text == "" {
		return nil, p.suggestArg(fmt.Errorf("base name (%s) should not be blank", stage.BaseName), base)
	}
	n.baseName = base.Text
	if stage.Platform != "" {
		if n.platform, err = p.stagePlatform(stage, lint); err != nil {
			return nil, err
		}
	}
	if n.replaced = p.replaceStage(n, stage.Name); n.replaced {
		return n, nil
	}
	// Only stages above count: a name further down is an image's here.
	n.base = p.byName[n.baseName]
	if n.base == nil {
		if n.ref, err = imageRef(n.baseName); err != nil && p.badName == nil {
			p.badName = p.file.Wrap(n.location, didYouMean(err, n.baseName, p.stageNames()))
		}
	}
	return n, nil
}

func (p *planner) stagePlatform(stage instructions.Stage, lint *linter.Linter) (*ocispec.Platform, error) {
	expression := stage.Platform
	expanded, err := p.expander.Word(expression, p.global)
	p.warnFromArgs(lint, expanded, stage.Location)
	p.warnFromPlatform(lint, stage, expanded)
	if err != nil {
		return nil, fmt.Errorf("failed to process arguments for platform %s: %w", expression, err)
	}
	if expanded.Text == "" {
		return nil, p.suggestArg(fmt.Errorf("empty platform value from expression %s", expression), expanded)
	}
	platform, err := platforms.Parse(expanded.Text)
	if err != nil {
		return nil, p.suggestArg(fmt.Errorf("failed to parse platform %s: %w", expression, err), expanded)
	}
	return &platform, nil
}

// suggestArg suggests a global argument for the first one that was not found.
func (p *planner) suggestArg(err error, expanded dockerfile.Expansion) error {
	if len(expanded.Undefined) == 0 {
		return err
	}
	return didYouMean(err, expanded.Undefined[0], p.global.Keys())
}

// imageRef completes an image name: "alpine" is docker.io/library/alpine:latest.
func imageRef(name string) (string, error) {
	if name == scratch {
		return "", nil
	}
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", fmt.Errorf("failed to parse stage name %q: %w", name, err)
	}
	return reference.TagNameOnly(named).String(), nil
}

// link finds what an instruction reads.
func (p *planner) link(cmd instructions.Command, flags []string) (command, error) {
	linked := command{Command: cmd, flags: flags}
	var err error
	switch c := cmd.(type) {
	case *instructions.CopyCommand:
		linked.from, err = p.linkCopy(c)
	case *instructions.RunCommand:
		linked.mounts = p.linkMounts(c)
	}
	return linked, err
}

func (p *planner) linkCopy(c *instructions.CopyCommand) (*node, error) {
	if c.From == "" {
		return nil, nil
	}
	plain, err := p.expander.Word(c.From, &dockerfile.Env{})
	if err != nil {
		return nil, err
	}
	if plain.Text != c.From {
		return nil, errors.New("variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround")
	}
	if index, err := strconv.Atoi(c.From); err == nil {
		if index < 0 || index >= len(p.nodes) {
			return nil, fmt.Errorf("invalid stage index %d", index)
		}
		return p.nodes[index], nil
	}
	return p.byNameOrImage(c.From, c.Location()), nil
}

// linkMounts looks up what mounts are from. Unlike in COPY a number is no index
// of a stage. The type of a mount may still be a variable, so even one that has no use for it is linked.
func (p *planner) linkMounts(c *instructions.RunCommand) []*node {
	mounts := instructions.GetMounts(c)
	if len(mounts) == 0 {
		return nil
	}
	nodes := make([]*node, len(mounts))
	for i, m := range mounts {
		if m.From == "" {
			continue
		}
		nodes[i] = p.byNameOrImage(m.From, c.Location())
	}
	return nodes
}

// byNameOrImage is the stage of that name, else the image. A name that cannot
// be an image's is remembered: a missing target and a circle of stages are greater mistakes.
func (p *planner) byNameOrImage(name string, location []parser.Range) *node {
	if n, ok := p.byName[strings.ToLower(name)]; ok {
		return n
	}
	if n, ok := p.foreign[name]; ok {
		return n
	}
	ref, err := imageRef(name)
	if err != nil && p.badName == nil {
		p.badName = p.file.Wrap(location, err)
	}
	n := &node{index: -1, name: name, baseName: name, ref: ref, location: location}
	p.foreign[name] = n
	return n
}

// checkCycles refuses stages that copy from each other in a circle, whether
// they are needed or not. A circle that leads through FROM always has a COPY
// from a later stage in it, which planning refuses.
func (p *planner) checkCycles() error {
	done := map[*node]bool{}
	onPath := map[*node]bool{}
	var visit func(n *node) *command
	visit = func(n *node) *command {
		if done[n] {
			return nil
		}
		done[n], onPath[n] = true, true
		for i := range n.commands {
			for _, from := range n.commands[i].needs() {
				if onPath[from] {
					return &n.commands[i]
				}
				if closing := visit(from); closing != nil {
					return closing
				}
			}
		}
		delete(onPath, n)
		return nil
	}
	for _, n := range p.nodes {
		if closing := visit(n); closing != nil {
			return p.file.Wrap(closing.Location(), fmt.Errorf("circular dependency detected on stage: %s", n.name))
		}
	}
	return nil
}

// findTarget looks a stage up by name, else by index; the default is the last.
func (p *planner) findTarget() (*node, error) {
	target := p.req.Target
	if target == "" {
		return p.nodes[len(p.nodes)-1], nil
	}
	if n, ok := p.byName[strings.ToLower(target)]; ok {
		return n, nil
	}
	if index, err := strconv.Atoi(target); err == nil && index >= 0 && index < len(p.nodes) {
		return p.nodes[index], nil
	}
	err := fmt.Errorf("target stage %q could not be found", target)
	return nil, p.file.Wrap(nil, didYouMean(err, target, p.stageNames()))
}

func (p *planner) stageNames() []string {
	var names []string
	for _, n := range p.nodes {
		names = append(names, n.name)
	}
	return names
}

// reach adds a node and all that it needs.
func reach(n *node, reached map[*node]bool) {
	if n == nil || reached[n] {
		return
	}
	reached[n] = true
	reach(n.base, reached)
	for _, cmd := range n.commands {
		for _, needed := range cmd.needs() {
			reach(needed, reached)
		}
	}
}

// source is what a node is for those that read it.
func (n *node) source() Source {
	switch {
	case n.index >= 0:
		return Source{Stage: n.stage}
	case n.context != nil:
		return Source{Context: n.context}
	default:
		return Source{Image: n.image}
	}
}

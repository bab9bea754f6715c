// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

const (
	// maxLookups is how many images are looked up at the same time.
	maxLookups = 16
	// triggerCost is about what one parsed ONBUILD trigger takes in memory. A
	// thousand stages may each inherit the same thousand triggers.
	triggerCost = 2 << 10
)

type imageKey struct {
	ref, platform string
	layout        bool
}

// settle resolves the images that the target needs and inserts ONBUILD
// triggers until neither brings anything new: a trigger may copy from a stage
// or an image that nothing needed before. What only the others need is resolved
// too, without triggers: checks look at such stages as they are written.
func (p *planner) settle(ctx context.Context, target *node, others []*node) (map[*node]bool, error) {
	for {
		built := map[*node]bool{}
		reach(target, built)
		reached := maps.Clone(built)
		for _, other := range others {
			reach(other, reached)
		}
		if err := p.resolve(ctx, reached); err != nil {
			return nil, err
		}
		grown := false
		for _, n := range p.nodes {
			if !built[n] || n.triggered || n.replaced {
				continue
			}
			n.triggered = true
			added, err := p.insertTriggers(n)
			if err != nil {
				return nil, p.file.Wrap(n.location, err)
			}
			grown = grown || added
		}
		if !grown {
			return reached, nil
		}
	}
}

// resolve looks up the images of reached nodes, each reference and platform once.
func (p *planner) resolve(ctx context.Context, reached map[*node]bool) error {
	wanted := map[imageKey]*node{}
	nodes := p.inOrder(reached)
	for _, n := range nodes {
		if n.unusable != nil {
			return p.file.Wrap(n.location, n.unusable)
		}
		if n.ref == "" || n.image != nil {
			continue
		}
		if err := p.replaceImage(n); err != nil {
			return p.file.Wrap(n.location, err)
		}
		if n.ref == "" {
			continue
		}
		if err := checkPlatform(p.platformOf(n)); err != nil {
			return p.file.Wrap(n.location, err)
		}
		key := p.keyOf(n)
		if _, ok := wanted[key]; !ok && p.images[key] == nil {
			wanted[key] = n
		}
	}
	found, err := p.lookUp(ctx, wanted)
	if err != nil {
		return err
	}
	maps.Copy(p.images, found)
	for _, n := range nodes {
		if n.ref != "" && n.image == nil {
			n.image = p.images[p.keyOf(n)]
			p.warnPlatform(n, p.platformOf(n))
		}
	}
	return nil
}

func (p *planner) keyOf(n *node) imageKey {
	return imageKey{ref: n.ref, platform: platforms.FormatAll(p.platformOf(n)), layout: n.layout}
}

func (p *planner) lookUp(ctx context.Context, wanted map[imageKey]*node) (map[imageKey]*Image, error) {
	type answer struct {
		key   imageKey
		image *Image
	}
	answers := make(chan answer, len(wanted))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxLookups)
	for key, n := range wanted {
		group.Go(func() error {
			image, err := p.ask(ctx, n)
			if err != nil {
				return p.file.Wrap(n.location, p.baseError(err, n.baseName))
			}
			answers <- answer{key: key, image: image}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	close(answers)
	found := map[imageKey]*Image{}
	for a := range answers {
		found[a.key] = a.image
	}
	return found, nil
}

// ask looks up one image.
func (p *planner) ask(ctx context.Context, n *node) (*Image, error) {
	lookUp := p.req.Resolve
	if n.layout {
		lookUp = ResolveFunc(p.req.ResolveLayout)
	}
	if lookUp == nil {
		return nil, errors.New("no way to look up images was given")
	}
	image, err := lookUp(ctx, n.ref, p.platformOf(n))
	if err == nil && image == nil {
		err = errors.New("image not found")
	}
	return image, err
}

// baseError names the image and helps with a mistyped stage or common image.
func (p *planner) baseError(err error, name string) error {
	if !strings.Contains(err.Error(), name) {
		err = fmt.Errorf("%s: %w", name, err)
	}
	options := append(p.stageNames(), "alpine", "busybox", "centos", "debian", "fedora", "golang", "ubuntu")
	return didYouMean(err, name, options)
}

// inOrder gives stages as in the file, then the images by name.
func (p *planner) inOrder(reached map[*node]bool) []*node {
	nodes := make([]*node, 0, len(reached))
	for n := range reached {
		nodes = append(nodes, n)
	}
	slices.SortFunc(nodes, func(a, b *node) int {
		switch {
		case a.index < 0 && b.index < 0:
			return strings.Compare(a.name, b.name)
		case a.index < 0:
			return 1
		case b.index < 0:
			return -1
		default:
			return a.index - b.index
		}
	})
	return nodes
}

// platformOf is the platform that a base image is wanted for. FROM scratch and
// a stage's own base ignore --platform, as in BuildKit.
func (p *planner) platformOf(n *node) ocispec.Platform {
	switch {
	case n.base != nil:
		return p.platformOf(n.base)
	case n.platform != nil && (n.ref != "" || n.named || n.replaced):
		return *n.platform
	default:
		return p.req.Platform
	}
}

func (p *planner) warnPlatform(n *node, want ocispec.Platform) {
	got := n.image.Config.Platform
	if n.named || n.replaced {
		return // who names a context knows what is in it
	}
	if want.OS == got.OS && want.Architecture == got.Architecture {
		return
	}
	if len(n.image.Config.RootFS.DiffIDs) == 0 {
		return // without layers an image fits every platform
	}
	rule := &linter.RuleInvalidBaseImagePlatform
	message := rule.Format(n.baseName, platforms.FormatAll(platforms.Normalize(want)), platforms.FormatAll(platforms.Normalize(got)))
	p.lint.Run(rule, n.location, message) // a comment above FROM does not skip this one in BuildKit either
}

// insertTriggers puts the ONBUILD instructions of a node's base before its own
// and tells whether one of them copies from somewhere.
func (p *planner) insertTriggers(n *node) (bool, error) {
	var triggers []string
	switch {
	case n.base != nil:
		for _, cmd := range n.base.declared {
			if c, ok := cmd.(*instructions.OnbuildCommand); ok {
				triggers = append(triggers, c.Expression)
			}
		}
	case n.image != nil:
		triggers = n.image.Config.Config.OnBuild
	}
	var commands []command
	grown := false
	for _, trigger := range triggers {
		if err := p.spend(len(trigger) + triggerCost); err != nil {
			return false, err
		}
		cmd, err := p.parseTrigger(trigger, n.location)
		if err != nil {
			return false, fmt.Errorf("ONBUILD trigger %q of %s: %w", trigger, n.baseName, err)
		}
		grown = grown || len(cmd.needs()) > 0
		commands = append(commands, cmd)
	}
	n.commands = append(commands, n.commands...)
	return grown, nil
}

// parseTrigger reads one instruction, which takes the place of the FROM line
// that brought it in.
func (p *planner) parseTrigger(trigger string, from []parser.Range) (command, error) {
	tree, err := parser.Parse(strings.NewReader(trigger))
	if err != nil {
		return command{}, err
	}
	if len(tree.AST.Children) != 1 {
		return command{}, errors.New("onbuild trigger should be a single expression")
	}
	instruction := tree.AST.Children[0]
	if strings.EqualFold(instruction.Value, "from") {
		return command{}, errors.New("FROM isn't allowed as an ONBUILD trigger")
	}
	if len(from) > 0 {
		instruction.StartLine, instruction.EndLine = from[0].Start.Line, from[len(from)-1].End.Line
	}
	cmd, err := instructions.ParseCommand(instruction)
	if err != nil {
		return command{}, err
	}
	linked, err := p.link(cmd, instruction.Flags)
	if err == nil {
		err = p.badName
	}
	linked.onBuild = true
	return linked, err
}

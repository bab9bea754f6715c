// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/opencontainers/go-digest"

	"github.com/kaniko-go/kaniko-go/builder/internal/dockerfile"
)

const epochArg = "SOURCE_DATE_EPOCH"

// readEpoch takes SOURCE_DATE_EPOCH from the build argument, else from a
// global ARG: seconds, or the name of a source whose time it shall be. An empty value means none.
func (p *planner) readEpoch(ctx context.Context) error {
	value, given := p.buildArgs[epochArg]
	if !given {
		value, _ = p.global.Get(epochArg)
	}
	var place []parser.Range
	if !given {
		place = p.globalArgLine(epochArg)
	}
	epoch, err := p.resolveEpoch(ctx, value)
	if err != nil {
		return p.file.Wrap(place, err)
	}
	p.epoch = epoch
	if epoch == nil {
		delete(p.buildArgs, epochArg)
		p.global.Delete(epochArg)
		return nil
	}
	text := strconv.FormatInt(epoch.Unix(), 10)
	if given {
		p.buildArgs[epochArg] = text
	}
	if _, ok := p.global.Get(epochArg); ok {
		p.global.Set(epochArg, text)
	}
	return nil
}

func (p *planner) resolveEpoch(ctx context.Context, value string) (*time.Time, error) {
	if value == "" {
		return nil, nil
	}
	if seconds, err := strconv.ParseInt(value, 10, 64); err == nil {
		epoch := time.Unix(seconds, 0).UTC()
		return &epoch, nil
	}
	source, err := p.epochSource(value)
	if err != nil || source == nil {
		return nil, err
	}
	if p.req.SourceEpoch == nil {
		return nil, fmt.Errorf("SOURCE_DATE_EPOCH=%s: there is no way to find out the time of a source", value)
	}
	epoch, err := p.req.SourceEpoch(ctx, *source)
	if err != nil {
		return nil, fmt.Errorf("SOURCE_DATE_EPOCH=%s: %w", value, err)
	}
	return epoch, nil
}

// epochSource finds the source that a name means; nil for one that never has a time.
func (p *planner) epochSource(name string) (*EpochSource, error) {
	if name == mainContext {
		return &EpochSource{Main: true}, nil
	}
	if found, ok := p.findContext(name, p.req.BuildPlatform); ok {
		n := &node{}
		if err := n.bind(found); err != nil {
			return nil, err
		}
		if n.context == nil {
			return nil, nil
		}
		return &EpochSource{Context: n.context}, nil
	}
	for _, stage := range p.file.Stages {
		if stage.Name == "" || !strings.EqualFold(stage.Name, name) {
			continue
		}
		source, err := p.epochStage(stage)
		return source, p.file.Wrap(stage.Location, err)
	}
	return nil, fmt.Errorf("invalid SOURCE_DATE_EPOCH: %s", name)
}

// epochStage takes the source out of a stage that holds nothing but one remote ADD.
func (p *planner) epochStage(stage instructions.Stage) (*EpochSource, error) {
	env := p.global.Clone()
	env.Delete(epochArg)
	base, err := p.expander.Word(stage.BaseName, env)
	if err != nil {
		return nil, fmt.Errorf("failed to process source stage base name %q: %w", stage.BaseName, err)
	}
	if base.Text != scratch {
		return nil, errors.New("SOURCE_DATE_EPOCH stage must use FROM scratch")
	}
	var source *EpochSource
	for _, cmd := range stage.Commands {
		switch c := cmd.(type) {
		case *instructions.ArgCommand:
			if err := p.epochArgs(c, env); err != nil {
				return nil, err
			}
		case *instructions.AddCommand:
			if source != nil {
				return nil, errors.New("SOURCE_DATE_EPOCH stage must contain exactly one remote ADD")
			}
			if source, err = p.epochAdd(c, env); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("SOURCE_DATE_EPOCH stage does not meet source-only requirements: unsupported %s instruction", cmd.Name())
		}
	}
	if source == nil {
		return nil, errors.New("SOURCE_DATE_EPOCH stage must contain exactly one remote ADD")
	}
	return source, nil
}

func (p *planner) epochArgs(c *instructions.ArgCommand, env *dockerfile.Env) error {
	for _, arg := range c.Args {
		value, given := p.buildArgs[arg.Key]
		if !given {
			if arg.Value == nil {
				continue
			}
			expanded, err := p.expander.Word(*arg.Value, env)
			if err != nil {
				return err
			}
			value = expanded.Text
		}
		env.Set(arg.Key, value)
		if err := checkEnv(env); err != nil {
			return err
		}
	}
	return nil
}

func (p *planner) epochAdd(c *instructions.AddCommand, env *dockerfile.Env) (*EpochSource, error) {
	if len(c.SourceContents) != 0 || len(c.SourcePaths) != 1 {
		return nil, errors.New("SOURCE_DATE_EPOCH stage must contain exactly one remote ADD source")
	}
	expanded, err := p.expander.Word(c.SourcePaths[0], env)
	if err != nil {
		return nil, err
	}
	checksum, err := p.expander.Word(c.Checksum, env)
	if err != nil {
		return nil, err
	}
	source := expanded.Text
	_, isGit, err := dockerfile.GitSource(source)
	switch {
	case err != nil:
		return nil, err
	case isGit:
		return &EpochSource{Add: &CopySource{Git: source}, Checksum: checksum.Text}, nil
	case !dockerfile.HTTPSource(source):
		return nil, errors.New("SOURCE_DATE_EPOCH stage source must be a single HTTP(S) or Git ADD")
	}
	if checksum.Text != "" {
		if _, err := digest.Parse(checksum.Text); err != nil {
			return nil, err
		}
	}
	return &EpochSource{Add: &CopySource{URL: source, Name: urlFile(source)}, Checksum: checksum.Text}, nil
}

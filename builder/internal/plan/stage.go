// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kaniko-go/kaniko-go/builder/internal/dockerfile"
)

// defaultPath is what an image without a PATH gets.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// stageState is a stage between two instructions: what a later instruction, or
// a stage built on this one, sees of those before it.
type stageState struct {
	p    *planner
	node *node
	out  *Stage
	// config becomes the stage's configuration.
	config dockerspec.DockerOCIImage
	// env is what expansion and RUN see: configuration and ARGs by order of
	// assignment. config.Config.Env has no ARGs.
	env *dockerfile.Env
	// argKeys are the ARGs in the order they were first declared.
	argKeys   []string
	argValues map[string]string
	author    string
	// workdirSet: WORKDIR was used in this stage or one below.
	workdirSet bool
	number     int
	// Where CMD, ENTRYPOINT and HEALTHCHECK were last given in this very stage.
	seen map[string][]parser.Range
	// runEnv is env with proxies, made from the slice runEnvOf.
	runEnv, runEnvOf []string

	// The instruction at hand.
	at   command
	lint *linter.Linter
}

// planStage works through a reached stage. All that it is built on must have
// been planned before.
func (p *planner) planStage(n *node) (*Stage, error) {
	s := p.newState(n)
	if err := p.spend(configCost(&s.config)); err != nil {
		return nil, p.file.Wrap(n.location, err)
	}
	for _, cmd := range n.commands {
		if err := s.apply(cmd); err != nil {
			return nil, p.file.Wrap(cmd.Location(), err)
		}
	}
	s.out.Config = s.config
	n.state = s
	return s.out, nil
}

func (p *planner) newState(n *node) *stageState {
	s := &stageState{
		p:         p,
		node:      n,
		env:       &dockerfile.Env{},
		argValues: map[string]string{},
		seen:      map[string][]parser.Range{},
		out: &Stage{
			Index:    n.index,
			Name:     n.name,
			Location: n.location,
			Platform: p.platformOf(n),
			BaseName: n.baseName,
		},
	}
	switch {
	case n.base != nil:
		s.inherit(n.base)
	case n.image != nil:
		s.out.Base = Source{Image: n.image}
		s.config = cloneImage(&n.image.Config)
		s.number = 1
	case n.replaced:
		// Unlike FROM scratch this has no working directory and no PATH.
		s.out.Base = Source{Context: n.context}
		s.config.Platform = s.out.Platform
		s.config.RootFS.Type = "layers"
		s.number = 1
	default:
		s.out.Base = Source{Context: n.context}
		s.config = emptyImage(s.out.Platform)
		if n.context != nil {
			s.number = 1
		}
	}
	s.config.Created = nil
	s.config.Config.OnBuild = nil
	if n.replaced {
		if n.image != nil && s.config.OS != "" && s.config.Architecture != "" {
			s.out.Platform = s.config.Platform
		}
	} else {
		s.fillFromConfig()
	}
	s.out.Total = s.number
	for _, cmd := range n.commands {
		if numbered(cmd) {
			s.out.Total++
		}
	}
	return s
}

// inherit takes over configuration, variables, ARGs too, and author.
func (s *stageState) inherit(base *node) {
	s.out.Base = Source{Stage: base.stage}
	s.config = cloneImage(&base.state.config)
	s.env = base.state.env.Clone()
	s.argKeys = slices.Clone(base.state.argKeys)
	s.argValues = maps.Clone(base.state.argValues)
	s.author = base.state.author
	s.workdirSet = base.state.workdirSet
}

// fillFromConfig makes the defaults explicit and the image's variables known.
func (s *stageState) fillFromConfig() {
	config := &s.config.Config
	if !slices.ContainsFunc(config.Env, func(pair string) bool {
		key, _ := dockerfile.SplitPair(pair)
		return key == "PATH"
	}) {
		config.Env = append(config.Env, "PATH="+defaultPath)
	}
	for _, pair := range config.Env {
		s.env.Set(dockerfile.SplitPair(pair))
	}
	if config.WorkingDir != "" {
		config.WorkingDir = joinWorkdir(config.WorkingDir, config.WorkingDir)
	}
}

// numbered tells which instructions count in the [n/m] that people see.
func numbered(cmd command) bool {
	switch cmd.Command.(type) {
	case *instructions.RunCommand, *instructions.CopyCommand, *instructions.AddCommand, *instructions.WorkdirCommand:
		return true
	default:
		return false
	}
}

// apply plans one instruction.
func (s *stageState) apply(cmd command) error {
	s.at = cmd
	s.lint = s.p.lint.WithMergedConfigFromComments(cmd.Comments())
	in := &Instruction{Text: oneLine(cmd.Command), Location: cmd.Location(), OnBuild: cmd.onBuild, Op: Metadata{}}
	if numbered(cmd) {
		s.number++
		in.Number = s.number
	}
	if err := s.dispatch(cmd.Command, in); err != nil {
		return err
	}
	if err := checkEnv(s.env); err != nil {
		return err
	}
	in.Author = s.author
	s.out.Instructions = append(s.out.Instructions, in)
	return s.p.spend(cost(in))
}

func (s *stageState) dispatch(cmd instructions.Command, in *Instruction) error {
	switch c := cmd.(type) {
	case *instructions.ArgCommand:
		return s.arg(c, in)
	case *instructions.EnvCommand:
		return s.setEnv(c, in)
	case *instructions.LabelCommand:
		return s.label(c, in)
	case *instructions.RunCommand:
		return s.run(c, in)
	case *instructions.CopyCommand:
		return s.copy(c, in)
	case *instructions.AddCommand:
		return s.add(c, in)
	case *instructions.WorkdirCommand:
		return s.workdir(c, in)
	case *instructions.UserCommand:
		return s.user(c, in)
	case *instructions.VolumeCommand:
		return s.volume(c, in)
	case *instructions.ExposeCommand:
		return s.expose(c, in)
	case *instructions.StopSignalCommand:
		return s.stopSignal(c, in)
	case *instructions.HealthCheckCommand:
		s.healthcheck(c, in)
	case *instructions.CmdCommand:
		s.cmd(c, in)
	case *instructions.EntrypointCommand:
		s.entrypoint(c, in)
	case *instructions.ShellCommand:
		s.shell(c, in)
	case *instructions.MaintainerCommand:
		s.maintainer(c, in)
	case *instructions.OnbuildCommand:
		s.config.Config.OnBuild = append(s.config.Config.OnBuild, c.Expression)
	default:
		return fmt.Errorf("%s is not supported yet", strings.ToUpper(cmd.Name()))
	}
	return nil
}

// expand expands a word of the instruction at hand. All words of an
// instruction see the variables as they were before it.
func (s *stageState) expand(word string) (string, error) {
	expanded, err := s.p.expander.Word(word, s.env)
	s.warnUndefined(expanded.Undefined)
	return expanded.Text, err
}

func (s *stageState) expandAll(words []string) ([]string, error) {
	out := make([]string, 0, len(words))
	for _, word := range words {
		text, err := s.expand(word)
		if err != nil {
			return nil, err
		}
		out = append(out, text)
	}
	return out, nil
}

// oneLine is an instruction as written, without what would break a log line.
func oneLine(cmd instructions.Command) string {
	source, ok := cmd.(fmt.Stringer)
	if !ok {
		return strings.ToUpper(cmd.Name())
	}
	text := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, source.String())
	name, rest, _ := strings.Cut(text, " ")
	return strings.TrimSpace(strings.ToUpper(name) + " " + rest)
}

// joinWorkdir is the working directory after WORKDIR next. An absolute path is
// kept as it is written, not even cleaned, as in BuildKit.
func joinWorkdir(current, next string) string {
	if !path.IsAbs(current) {
		current = path.Join("/", current)
	}
	switch {
	case next == "":
		return current
	case path.IsAbs(next):
		return next
	default:
		return path.Join(current, next)
	}
}

// dir is the working directory of RUN and of relative destinations. It is
// clean, as the directory is that WORKDIR made: "/a/../b" needs no /a.
func (s *stageState) dir() string {
	return path.Join("/", s.config.Config.WorkingDir)
}

func emptyImage(platform ocispec.Platform) dockerspec.DockerOCIImage {
	image := dockerspec.DockerOCIImage{}
	image.Platform = platform
	image.RootFS.Type = "layers"
	image.Config.WorkingDir = "/"
	image.Config.Env = []string{"PATH=" + defaultPath}
	return image
}

// cloneImage copies all that an instruction may change in place.
func cloneImage(src *dockerspec.DockerOCIImage) dockerspec.DockerOCIImage {
	image := *src
	config := &image.Config
	config.Env = slices.Clone(config.Env)
	config.Volumes = maps.Clone(config.Volumes)
	config.Labels = maps.Clone(config.Labels)
	config.ExposedPorts = maps.Clone(config.ExposedPorts)
	config.OnBuild = slices.Clone(config.OnBuild)
	image.History = slices.Clone(image.History)
	return image
}

// configCost is about what cloneImage takes in memory.
func configCost(image *dockerspec.DockerOCIImage) int {
	config := &image.Config
	return 64 * (len(config.Env) + len(config.Volumes) + len(config.Labels) + len(config.ExposedPorts) + len(config.OnBuild) + len(image.History))
}

// cost is about what an instruction takes in memory.
func cost(in *Instruction) int {
	bytes := len(in.Text) + len(in.History) + 256
	switch op := in.Op.(type) {
	case Run:
		bytes += 16 * len(op.Env)
		for _, arg := range op.Args {
			bytes += len(arg)
		}
		for _, mount := range op.Mounts {
			bytes += len(mount.Target) + len(mount.Source) + len(mount.ID) + 256
		}
	case Copy:
		for _, pattern := range op.Exclude {
			bytes += len(pattern) + 16
		}
		for _, source := range op.Sources {
			bytes += len(source.Path) + len(source.URL) + len(source.Git) + 64
		}
		for _, file := range op.Files {
			bytes += len(file.Data)
		}
	}
	return bytes
}

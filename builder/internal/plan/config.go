// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/sys/signal"

	"github.com/kaniko-go/kaniko-go/builder/internal/dockerfile"
)

// arg declares build arguments. Unlike in other instructions each one sees
// those before it on the same line.
func (s *stageState) arg(c *instructions.ArgCommand, in *Instruction) error {
	history := []string{"ARG"}
	for _, arg := range c.Args {
		s.warnSecret("ARG", arg.Key)
		value, known, err := s.argValue(arg)
		if err != nil {
			return err
		}
		text := arg.Key
		if known {
			text += "=" + value
			if !neverInEnv(arg.Key) {
				s.env.Set(arg.Key, value)
			}
		}
		if _, again := s.argValues[arg.Key]; !again {
			s.argKeys = append(s.argKeys, arg.Key)
		}
		s.argValues[arg.Key] = value
		history = append(history, text)
	}
	in.History = strings.Join(history, " ")
	return nil
}

// argValue is the build argument, else the default, else the global value. A
// default that is not used is not expanded, so it cannot fail either.
func (s *stageState) argValue(arg instructions.KeyValuePairOptional) (value string, known bool, err error) {
	if given, ok := s.p.buildArgs[arg.Key]; ok {
		return given, true, nil
	}
	if arg.Value != nil {
		value, err = s.expand(*arg.Value)
		return value, true, err
	}
	value, known = s.p.global.Get(arg.Key)
	return value, known, nil
}

func (s *stageState) setEnv(c *instructions.EnvCommand, in *Instruction) error {
	pairs, err := s.expandPairs(c.Env)
	if err != nil {
		return err
	}
	history := []string{"ENV"}
	for _, kv := range pairs {
		s.warnLegacy(kv, c.Name())
		s.warnSecret("ENV", kv.Key)
		history = append(history, kv.String())
		s.env.Set(kv.Key, kv.Value)
		setPair(&s.config.Config.Env, kv.Key, kv.Value)
	}
	in.History = strings.Join(history, " ")
	return nil
}

func (s *stageState) expandPairs(pairs instructions.KeyValuePairs) (instructions.KeyValuePairs, error) {
	out := make(instructions.KeyValuePairs, 0, len(pairs))
	for _, kv := range pairs {
		var err error
		if kv.Key, err = s.expand(kv.Key); err != nil {
			return nil, err
		}
		if kv.Value, err = s.expand(kv.Value); err != nil {
			return nil, err
		}
		out = append(out, kv)
	}
	return out, nil
}

// setPair replaces a variable where it stands, or appends it.
func setPair(env *[]string, key, value string) {
	pair := key + "=" + value
	at := slices.IndexFunc(*env, func(old string) bool {
		name, _ := dockerfile.SplitPair(old)
		return name == key
	})
	if at < 0 {
		*env = append(*env, pair)
		return
	}
	(*env)[at] = pair
}

func (s *stageState) label(c *instructions.LabelCommand, in *Instruction) error {
	pairs, err := s.expandPairs(c.Labels)
	if err != nil {
		return err
	}
	if s.config.Config.Labels == nil {
		s.config.Config.Labels = map[string]string{}
	}
	history := []string{"LABEL"}
	for _, kv := range pairs {
		s.warnLegacy(kv, c.Name())
		s.config.Config.Labels[kv.Key] = kv.Value
		history = append(history, kv.String())
	}
	in.History = strings.Join(history, " ")
	return nil
}

func (s *stageState) workdir(c *instructions.WorkdirCommand, in *Instruction) error {
	next, err := s.expand(c.Path)
	if err != nil {
		return err
	}
	s.warnWorkdir(next)
	s.workdirSet = true
	config := &s.config.Config
	config.WorkingDir = joinWorkdir(config.WorkingDir, next)
	in.Op = Workdir{Path: path.Clean(config.WorkingDir), Spelled: config.WorkingDir, User: config.User}
	in.History = "WORKDIR " + config.WorkingDir
	return nil
}

func (s *stageState) user(c *instructions.UserCommand, in *Instruction) error {
	user, err := s.expand(c.User)
	if err != nil {
		return err
	}
	s.config.Config.User = user
	in.History = "USER " + user
	return nil
}

func (s *stageState) volume(c *instructions.VolumeCommand, in *Instruction) error {
	volumes, err := s.expandAll(c.Volumes)
	if err != nil {
		return err
	}
	if s.config.Config.Volumes == nil {
		s.config.Config.Volumes = map[string]struct{}{}
	}
	for _, volume := range volumes {
		if volume == "" {
			return errors.New("VOLUME specified can not be an empty string")
		}
		s.config.Config.Volumes[volume] = struct{}{}
	}
	in.History = fmt.Sprintf("VOLUME %v", volumes)
	return nil
}

func (s *stageState) stopSignal(c *instructions.StopSignalCommand, in *Instruction) error {
	text, err := s.expand(c.Signal)
	if err != nil {
		return err
	}
	if _, err := signal.ParseSignal(text); err != nil {
		return err
	}
	s.config.Config.StopSignal = text
	in.History = "STOPSIGNAL " + text
	return nil
}

func (s *stageState) healthcheck(c *instructions.HealthCheckCommand, in *Instruction) {
	s.warnRepeated("HEALTHCHECK", c)
	health := *c.Health
	health.Test = slices.Clone(c.Health.Test)
	s.config.Config.Healthcheck = &health
	in.History = fmt.Sprintf("HEALTHCHECK %+v", health)
}

func (s *stageState) cmd(c *instructions.CmdCommand, in *Instruction) {
	s.warnRepeated("CMD", c)
	args := s.commandLine(c.ShellDependantCmdLine, c.Name())
	s.config.Config.Cmd = args
	s.config.Config.ArgsEscaped = true //nolint:staticcheck // Docker writes it, and clients compare.
	in.History = fmt.Sprintf("CMD %q", args)
}

// entrypoint also drops a CMD that came from the base: it was made for another entry point.
func (s *stageState) entrypoint(c *instructions.EntrypointCommand, in *Instruction) {
	s.warnRepeated("ENTRYPOINT", c)
	args := s.commandLine(c.ShellDependantCmdLine, c.Name())
	s.config.Config.Entrypoint = args
	if _, ok := s.seen["CMD"]; !ok {
		s.config.Config.Cmd = nil
	}
	in.History = fmt.Sprintf("ENTRYPOINT %q", args)
}

func (s *stageState) commandLine(line instructions.ShellDependantCmdLine, name string) []string {
	if !line.PrependShell {
		return slices.Clone(line.CmdLine)
	}
	if len(s.config.Config.Shell) == 0 {
		rule := &linter.RuleJSONArgsRecommended
		s.lint.Run(rule, s.at.Location(), rule.Format(name))
	}
	return s.withShell(line.CmdLine)
}

func (s *stageState) withShell(words []string) []string {
	shell := s.config.Config.Shell
	if len(shell) == 0 {
		shell = []string{"/bin/sh", "-c"}
	}
	return append(slices.Clone(shell), strings.Join(words, " "))
}

func (s *stageState) shell(c *instructions.ShellCommand, in *Instruction) {
	s.config.Config.Shell = slices.Clone(c.Shell)
	in.History = fmt.Sprintf("SHELL %v", c.Shell)
}

func (s *stageState) maintainer(c *instructions.MaintainerCommand, in *Instruction) {
	s.author = c.Maintainer
	s.config.Author = c.Maintainer
	in.History = "MAINTAINER " + c.Maintainer
}

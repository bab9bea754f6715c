// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/kaniko-go/kaniko-go/builder/internal/dockerfile"
)

// scriptDir is where a RUN finds its heredoc scripts.
const scriptDir = "/dev/pipes/"

func (s *stageState) run(c *instructions.RunCommand, in *Instruction) error {
	mounts, env, err := s.mounts(s.processEnv())
	if err != nil {
		return err
	}
	words, files, err := runWords(c)
	if err != nil {
		return err
	}
	if c.PrependShell {
		words = s.withShell(words)
	}
	if len(words) == 0 || words[0] == "" {
		return errors.New("RUN needs a command: arguments are required")
	}
	switch {
	case len(instructions.GetDevices(c)) > 0:
		return errors.New("RUN --device is not supported: a device of the node is not for a build to ask for")
	case instructions.GetSecurity(c) == instructions.SecurityInsecure:
		return errors.New("security.insecure is not allowed: RUN --security=insecure asks for privileges that no RUN gets here")
	}
	in.Op = Run{
		Args:     words,
		Env:      env,
		KeyEnv:   s.env.Slice(),
		User:     s.config.Config.User,
		Dir:      s.dir(),
		Files:    files,
		Network:  instructions.GetNetwork(c),
		Security: instructions.GetSecurity(c),
		Hostname: s.p.buildArgs["BUILDKIT_SANDBOX_HOSTNAME"],
		Mounts:   mounts,
	}
	in.History = "RUN " + s.argSummary() + strings.Join(words, " ") + " # buildkit"
	return nil
}

// runWords gives the command and the scripts it needs. A single heredoc with
// nothing around it is the script itself: a file to execute if it begins with
// "#!", else the shell's text. Any other use of heredocs is put together again
// for the shell, which must know them. Nothing is expanded: that is the shell's.
func runWords(c *instructions.RunCommand) ([]string, []Inline, error) {
	if len(c.Files) == 0 {
		return c.CmdLine, nil, nil
	}
	if len(c.CmdLine) != 1 || !c.PrependShell {
		return nil, nil, fmt.Errorf("parsing produced an invalid run command: %v", c.CmdLine)
	}
	if parser.MustParseHeredoc(c.CmdLine[0]) == nil {
		var text strings.Builder
		text.WriteString(c.CmdLine[0])
		for _, file := range c.Files {
			text.WriteString("\n" + file.Data + file.Name)
		}
		return []string{text.String()}, nil, nil
	}
	file := c.Files[0]
	data := file.Data
	if file.Chomp {
		data = parser.ChompHeredocContent(data)
	}
	if !strings.HasPrefix(data, "#!") {
		return []string{data}, nil, nil
	}
	if err := checkFileName(file.Name); err != nil {
		return nil, nil, err
	}
	return []string{scriptDir + file.Name}, []Inline{{Name: file.Name, Data: data}}, nil
}

// checkFileName refuses heredoc names that would lead to another directory.
func checkFileName(name string) error {
	if name == "" || name == "." || name == ".." || strings.Contains(name, "/") {
		return fmt.Errorf("heredoc name %q cannot be a file name", name)
	}
	return nil
}

// processEnv adds the proxies, which win over variables of the same name. A
// Dockerfile with no variables between its RUNs keeps one slice for all.
func (s *stageState) processEnv() []string {
	env := s.env.Slice()
	if len(s.p.proxies) == 0 {
		return env
	}
	if len(s.runEnvOf) == len(env) && len(env) > 0 && &s.runEnvOf[0] == &env[0] {
		return s.runEnv
	}
	withProxies := s.env.Clone()
	for _, pair := range s.p.proxies {
		withProxies.Set(dockerfile.SplitPair(pair))
	}
	s.runEnvOf, s.runEnv = env, withProxies.Slice()
	return s.runEnv
}

// argSummary is the "|2 A=1 B=2 " of a RUN's history entry: each ARG once, in
// the order of first declaration, with the value it has now.
func (s *stageState) argSummary() string {
	if len(s.argKeys) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("|" + strconv.Itoa(len(s.argKeys)))
	for _, key := range s.argKeys {
		value, ok := s.env.Get(key)
		if !ok {
			value = s.argValues[key]
		}
		b.WriteString(" " + key + "=" + value)
	}
	b.WriteString(" ")
	return b.String()
}

// SPDX-License-Identifier: Apache-2.0

package dockerfile

import (
	"errors"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// Flags are the "--" words of an instruction of this file as they were
// written. They are kept for RUN alone, whose mounts are read a second time, by Mounts.
func (f *File) Flags(cmd instructions.Command) []string {
	run, ok := cmd.(*instructions.RunCommand)
	if !ok {
		return nil
	}
	return f.runFlags[run]
}

// keepFlags goes along the syntax tree and the instructions made of it.
func (f *File) keepFlags(ast *parser.Node) {
	f.runFlags = map[*instructions.RunCommand][]string{}
	var nodes []*parser.Node
	for _, node := range ast.Children {
		if len(node.Flags) > 0 {
			nodes = append(nodes, node)
		}
	}
	for _, stage := range f.Stages {
		for _, cmd := range stage.Commands {
			at, _, _ := Lines(cmd.Location())
			for len(nodes) > 0 && nodes[0].StartLine < at {
				nodes = nodes[1:]
			}
			run, ok := cmd.(*instructions.RunCommand)
			if ok && len(nodes) > 0 && nodes[0].StartLine == at {
				f.runFlags[run] = nodes[0].Flags
			}
		}
	}
}

// Mounts reads the --mount flags among the flags of a RUN, expanding every value
// with expand. What a mount may say depends on what it said before, and that
// only on expanded values, so this is when most mistakes in mounts are found. The
// instruction in the file stays as it was parsed.
func Mounts(flags []string, expand func(word string) (string, error)) ([]*instructions.Mount, error) {
	if len(flags) == 0 {
		return nil, nil
	}
	cmd, err := instructions.ParseCommand(&parser.Node{Value: "run", Flags: flags, Next: &parser.Node{Value: "true"}})
	if err != nil {
		return nil, withoutLine(err)
	}
	run, ok := cmd.(*instructions.RunCommand)
	if !ok {
		return nil, errors.New("RUN is not RUN")
	}
	if err := run.Expand(expand); err != nil {
		return nil, err
	}
	return instructions.GetMounts(run), nil
}

// withoutLine takes away the place that BuildKit's parser put around an error.
func withoutLine(err error) error {
	var at *parser.LocationError
	if errors.As(err, &at) {
		return at.Unwrap()
	}
	return err
}

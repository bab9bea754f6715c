// SPDX-License-Identifier: Apache-2.0

// Package dockerfile reads Dockerfiles and ignore files. It wraps BuildKit's
// parser, instruction types, shell lexer and linter and moby's pattern matcher,
// and adds what a hostile or mistaken file needs: size limits, a bound on what
// expansion may produce, and errors that carry a line and a source excerpt. It
// knows nothing of stage graphs or images; that is the plan's work. The order of
// use is Parse, then an Expander for the words, then File.Wrap for errors.
package dockerfile

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

//go:generate go run ./gendocs -corpus ../../../e2e/corpus/testdata/differences.txt -o ../../../docs/dockerfile.md

// Limits on one Dockerfile. They are far above any written by hand and keep a
// hostile file from costing more than a few dozen megabytes.
const (
	MaxSize         = 1 << 20
	MaxStages       = 1000
	MaxInstructions = 10_000
)

// File is a parsed Dockerfile. It is never changed after Parse, so several
// plans may be made from one at the same time; nothing below Stages may be
// expanded in place.
type File struct {
	// Name is what messages call the file, usually "Dockerfile".
	Name string
	// Source is the text as read.
	Source []byte
	Stages []instructions.Stage
	// MetaArgs are the ARG instructions before the first FROM.
	MetaArgs []instructions.ArgCommand
	// EscapeToken is backslash, or backtick if the file says so.
	EscapeToken rune
	// Checks is what the "# check=" directive asks for; Warn in it is nil.
	Checks linter.Config
	// Warnings are the build checks that reading alone can raise.
	Warnings []Warning

	runFlags map[*instructions.RunCommand][]string
}

// Warning is one build check that fired.
type Warning struct {
	// Rule is the name of the check, Message says what it found here. Description
	// is what the check is about, URL where more is said about it; it may be "".
	Rule, Message, Description, URL string
	Location                        []parser.Range
}

// Parse reads a Dockerfile and checks everything that needs no values: syntax,
// instruction names, flags, limits and the frontend it asks for. Every error
// is an *Error, with a location where there is one. With an error, too, the File
// is there, as far as it was read, for its name, source and warnings.
func Parse(name string, src []byte) (*File, error) {
	f := &File{Name: name, Source: src}
	if err := checkText(src); err != nil {
		return f, f.Wrap(nil, err)
	}
	if syntax, _, loc, ok := parser.DetectSyntax(src); ok {
		if err := CheckSyntax(syntax); err != nil {
			return f, f.Wrap(loc, err)
		}
	}
	if err := f.readChecks(); err != nil {
		return f, err
	}
	return f, f.read()
}

// WithChecks is the file as it would be if its "# check=" directive were
// options, which have the same form. That is what BUILDKIT_DOCKERFILE_CHECK asks for.
func (f *File) WithChecks(options string) (*File, error) {
	cfg, err := linter.ParseLintOptions(options)
	if err != nil {
		return nil, err
	}
	other := &File{Name: f.Name, Source: f.Source, Checks: *cfg}
	return other, other.read()
}

// read parses the text.
func (f *File) read() error {
	result, err := parser.Parse(bytes.NewReader(f.Source))
	if err != nil {
		return f.wrapParse(err)
	}
	if n := len(result.AST.Children); n > MaxInstructions {
		over := result.AST.Children[MaxInstructions]
		return f.Wrap(over.Location(), fmt.Errorf("the Dockerfile has %d instructions, the limit is %d", n, MaxInstructions))
	}
	f.EscapeToken = result.EscapeToken
	lint := f.newLinter()
	for _, w := range result.Warnings {
		if w.URL == linter.RuleNoEmptyContinuation.URL && w.Location != nil {
			lint.Run(&linter.RuleNoEmptyContinuation, []parser.Range{*w.Location}, linter.RuleNoEmptyContinuation.Format())
		}
	}
	return f.readStages(result.AST, lint)
}

func checkText(src []byte) error {
	switch {
	case len(src) == 0:
		return errors.New("the Dockerfile cannot be empty")
	case len(src) > MaxSize:
		return fmt.Errorf("the Dockerfile has %d bytes, the limit is %d", len(src), MaxSize)
	case bytes.IndexByte(src, 0) >= 0:
		return errors.New("the Dockerfile contains a NUL byte: it is not a text file")
	}
	return nil
}

// readStages turns the syntax tree into typed instructions.
func (f *File) readStages(ast *parser.Node, lint *linter.Linter) error {
	stages, meta, err := instructions.Parse(ast, lint)
	if err != nil {
		return f.wrapParse(err)
	}
	if len(stages) == 0 {
		return f.Wrap(nil, errors.New("dockerfile contains no stages to build"))
	}
	if len(stages) > MaxStages {
		return f.Wrap(stages[MaxStages].Location, fmt.Errorf("the Dockerfile has %d stages, the limit is %d", len(stages), MaxStages))
	}
	f.Stages, f.MetaArgs = stages, meta
	f.keepFlags(ast)
	return nil
}

func (f *File) readChecks() error {
	_, options, loc, ok := parser.ParseDirective("check", f.Source)
	if !ok {
		return nil
	}
	cfg, err := linter.ParseLintOptions(options)
	if err != nil {
		return f.Wrap(loc, fmt.Errorf("failed to parse check options: %w", err))
	}
	f.Checks = *cfg
	return nil
}

// newLinter collects into f.Warnings.
func (f *File) newLinter() *linter.Linter {
	cfg := f.Checks
	cfg.Warn = func(rule, description, url, message string, location []parser.Range) {
		f.Warnings = append(f.Warnings, Warning{
			Rule: rule, Message: message, Description: description, URL: url, Location: location,
		})
	}
	return linter.New(&cfg)
}

// CheckSyntax says why a frontend named by "# syntax=" cannot be served. The
// language of Docker's own frontends is built in; any other is a program in an
// image, and this builder runs none.
func CheckSyntax(syntax string) error {
	name := syntax
	for _, registry := range []string{"docker.io/", "index.docker.io/", "registry-1.docker.io/"} {
		name = strings.TrimPrefix(name, registry)
	}
	if name == "dockerfile.v0" || strings.HasPrefix(name, "docker/dockerfile") {
		return nil
	}
	return fmt.Errorf("syntax %q is not supported: the Dockerfile language is built in and other frontends are not run; use docker/dockerfile or remove the line", syntax)
}

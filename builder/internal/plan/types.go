// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"context"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is what is known of an image before any layer of it is fetched.
type Image struct {
	// Ref is the reference as resolved, with the digest of the platform's manifest.
	Ref string
	// Config is the image's configuration. History and RootFS are those of the base.
	Config dockerspec.DockerOCIImage
}

// ResolveFunc looks up an image reference for a platform. It is asked once per
// reference and platform, and only for images that the target needs.
type ResolveFunc func(ctx context.Context, ref string, platform ocispec.Platform) (*Image, error)

// Plan is the build as data: what will be done, in dependency order. It holds
// no open resource and is never changed once made.
type Plan struct {
	// Stages that the target reaches, dependencies before dependents.
	Stages []*Stage
	// Target is the stage whose image is the result; always the last of Stages.
	Target *Stage
	// Warnings are build checks that fired, in order of line.
	Warnings []Warning
	// Epoch is the SOURCE_DATE_EPOCH in force, from the build argument, from
	// Request or from a global ARG; nil for none.
	Epoch *time.Time
}

// Warning is one build check that fired.
type Warning struct {
	Rule, Message, URL string
	Location           []parser.Range
}

// Source says where a stage begins or where COPY --from reads: exactly one of
// the fields is set, or none for FROM scratch.
type Source struct {
	Image *Image
	Stage *Stage
}

// Stage is one reached stage of the Dockerfile.
type Stage struct {
	// Index counts all stages of the Dockerfile from 0; Name is the alias or "stage-N".
	Index int
	Name  string
	// Location is the FROM line.
	Location []parser.Range
	Platform ocispec.Platform
	// Base is the empty Source for scratch.
	Base Source
	// BaseName is the name in FROM after expansion, for people.
	BaseName string
	// Instructions in execution order, ONBUILD triggers of the base first.
	Instructions []*Instruction
	// Total is the m of the [n/m] that people see: FROM, RUN, COPY, ADD and WORKDIR count.
	Total int
	// Config is the configuration after the last instruction. Its History and
	// RootFS are those of the image at the bottom of the chain of stages; each
	// Instruction, of this stage and of those below it, carries its own entry.
	// Created is nil.
	Config dockerspec.DockerOCIImage
}

// Instruction is one thing to do, with everything expanded.
type Instruction struct {
	// Number is the n of [n/m]; 0 for instructions that touch only the configuration.
	Number int
	// Text is the instruction as people see it in the log: on one line, as
	// written in the Dockerfile (variables not expanded, heredoc bodies left out).
	Text string
	// Location is the range of lines in the Dockerfile; of the FROM line for ONBUILD triggers.
	Location []parser.Range
	OnBuild  bool
	Op       Op
	// History is the created_by text, "" for instructions that leave no entry.
	History string
	// Author is what MAINTAINER set before or by this instruction.
	Author string
}

// Layer reports whether the instruction makes a layer; a history entry
// without one is marked empty_layer.
func (i *Instruction) Layer() bool {
	switch op := i.Op.(type) {
	case Run, Copy:
		return true
	case Workdir:
		return op.Path != "/"
	default:
		return false
	}
}

// Op is one of Run, Copy, Workdir and Metadata.
type Op interface{ op() }

// Run is a RUN instruction.
type Run struct {
	// Args is the argument vector: the shell and its one string, or the exec form.
	Args []string
	// Env is KEY=VALUE: the configuration's environment, ARG values, PATH default and
	// proxies, in that precedence as BuildKit has it; without HOME.
	Env []string
	// User is the USER in force, "" for none; resolved in the stage's own /etc/passwd when it runs.
	User string
	// Dir is the working directory, absolute and clean.
	Dir string
	// Files are scripts given as heredocs with an interpreter line, to be seen read-only below /dev/pipes.
	Files []Inline
	// Network is "default", "none" or "host".
	Network string
}

// Copy is a COPY or ADD instruction.
type Copy struct {
	// Add is true for ADD: archives among the local sources are unpacked.
	Add bool
	// From is nil for the build context.
	From *Source
	// Sources are paths with wildcards, expanded, cleaned and relative to the root of the source
	// ("." for the root itself; never beginning with "../"). Files are heredocs, which come after the Sources
	// whatever their order in the line.
	Sources []string
	Files   []Inline
	// Dest is absolute (joined with WORKDIR), clean, and keeps the trailing slash or "/." that makes it a directory.
	Dest string
	// Chown and Chmod are expanded, "" when absent. Chmod is valid: octal up to 07777, or symbolic.
	Chown, Chmod string
}

// Inline is a file given in the Dockerfile as a heredoc. Name is a single path element.
type Inline struct {
	Name string
	Data string
}

// Workdir is a WORKDIR instruction: the directory is made if it is missing.
type Workdir struct {
	// Path is absolute and clean; the configuration may spell it otherwise.
	Path string
	// User is the USER in force, who owns what is made.
	User string
}

// Metadata is an instruction that touches only the configuration.
type Metadata struct{}

func (Run) op()      {}
func (Copy) op()     {}
func (Workdir) op()  {}
func (Metadata) op() {}

// Request is what New needs besides the parsed Dockerfile.
type Request struct {
	// Target is a stage name (case-insensitive) or index, "" for the last stage.
	Target    string
	BuildArgs map[string]string
	// Labels win over LABEL instructions.
	Labels map[string]string
	// BuildPlatform is where RUN runs; Platform is what the image is for.
	BuildPlatform ocispec.Platform
	Platform      ocispec.Platform
	// ExplicitPlatform is true when the user asked for Platform: it is then written into the configuration.
	ExplicitPlatform bool
	// Epoch is SOURCE_DATE_EPOCH if the user set one; the Dockerfile's ARG default may set it otherwise.
	Epoch *time.Time
	// Resolve looks up base images.
	Resolve ResolveFunc
}

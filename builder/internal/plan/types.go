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

// NamedContext is a build context besides the main one, that is no image: a
// directory, a git repository or a file behind a URL.
type NamedContext struct {
	// Name is what the Dockerfile calls it, with the platform ("NAME::os/arch") if the context is for that one alone.
	Name string
	// Value is a directory, a git URL in either grammar, or an http or https URL. A directory has its own
	// ignore file; what a URL leads to is one file that is called "context" and never unpacked.
	Value string
}

// LayoutFunc looks up an image in an OCI image layout on disk for a platform. at is "DIR@DIGEST".
type LayoutFunc func(ctx context.Context, at string, platform ocispec.Platform) (*Image, error)

// EpochSource is where SOURCE_DATE_EPOCH is to be taken from when it names a source instead of a
// time. One of the fields is set.
type EpochSource struct {
	// Main is the main build context, Context another one.
	Main    bool
	Context *NamedContext
	// Add is the one remote source of the stage that was named.
	Add *CopySource
	// Checksum is what Add must have, if not empty.
	Checksum string
}

// EpochFunc finds the time of a source: when a git commit was made, when a file
// behind a URL was last modified, or else the newest file of the archive that it is. nil for none.
type EpochFunc func(ctx context.Context, source EpochSource) (*time.Time, error)

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
	// Rule is the name of the check, Message says what it found here. Description
	// is what the check is about, URL where more is said about it; it may be "".
	Rule, Message, Description, URL string
	Location                        []parser.Range
}

// Source says where a stage begins or where COPY --from and mounts read: exactly one of
// the fields is set, or none for scratch, which is empty.
type Source struct {
	Image   *Image
	Stage   *Stage
	Context *NamedContext
}

// Stage is one reached stage of the Dockerfile. One that a named context takes
// the place of begins with that context and has no instructions.
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
		return op.Path != "/" || op.Spelled != "" && op.Spelled != "/"
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
	// KeyEnv is Env without what the builder adds: proxies that no ARG declares, and what mounts bring.
	KeyEnv []string
	// User is the USER in force, "" for none; resolved in the stage's own /etc/passwd when it runs.
	User string
	// Dir is the working directory, absolute and clean.
	Dir string
	// Files are scripts given as heredocs with an interpreter line, to be seen read-only below /dev/pipes.
	Files []Inline
	// Network is "default", "none" or "host".
	Network string
	// Security is "sandbox" or "" for the same: nothing else is planned.
	Security string
	// Hostname is what BUILDKIT_SANDBOX_HOSTNAME asks for, "" for the builder's choice.
	Hostname string
	// Mounts are in the order they are to be made: what lies below the target of another comes after it.
	// Secrets that are only variables come first.
	Mounts []Mount
}

// Mount is one RUN --mount with everything expanded and every default filled in.
type Mount struct {
	// Type is "bind", "cache", "tmpfs", "secret" or "ssh".
	Type string
	// Target is absolute and clean, and never "/". It is "" for a secret that is only a variable.
	Target string
	// From is what bind and cache begin with. nil is the build context for a bind, an empty directory for a cache.
	From *Source
	// Source is clean and relative to the root of From, "." for the root itself.
	Source   string
	ReadOnly bool
	// ID names a cache as NAMESPACE/ID, where ID is Target unless given; or the secret or the SSH agent ("default").
	ID string
	// Sharing of a cache is "shared", "private" or "locked".
	Sharing string
	// Mode, UID and GID are nil for a cache unless given: one that gives any of
	// them is not the cache of the same ID that gives none. A secret's file and an agent's socket have all three.
	Mode, UID, GID *uint32
	// Size bounds a tmpfs, in bytes; 0 is no bound.
	Size int64
	// Required says that a missing secret or agent ends the build; otherwise there is just no mount.
	Required bool
	// Env is the variable that holds the secret, "" for none.
	Env string
}

// Copy is a COPY or ADD instruction.
type Copy struct {
	// Add is true for ADD.
	Add bool
	// From is nil for the build context.
	From *Source
	// Sources in the order of the line. Files are heredocs, which come after the Sources
	// whatever their order in the line.
	Sources []CopySource
	Files   []Inline
	// Dest is absolute (joined with WORKDIR), clean, and keeps the trailing slash or "/." that makes it a directory.
	Dest string
	// Chown and Chmod are expanded, "" when absent. Chmod is valid: octal up to 07777, or symbolic.
	Chown, Chmod string
	// Link asks for a layer that does not depend on those below. It is false
	// with Chmod, and then Chown may hold names; with Link it is numeric.
	Link bool
	// Parents keeps the directories of a source below Dest, see CopySource.Path.
	Parents bool
	// Exclude are patterns as in an ignore file, relative to each directory that is copied.
	Exclude []string
	// Checksum is what the only source must have: "ALGORITHM:HEX" for a URL, a commit or the beginning of one for git.
	Checksum string
	// KeepGitDir is the flag, nil if absent. A git URL may say this and Checksum itself: where
	// both do they say the same.
	KeepGitDir *bool
	// Unpack is nil for the default: archives among local files are unpacked by ADD, others never.
	Unpack *bool
}

// CopySource is one source of a COPY or ADD: exactly one of Path, URL and Git is set.
type CopySource struct {
	// Path may have wildcards. It is expanded, cleaned and relative to the root of the source
	// ("." for the root itself; never beginning with "../"). With Copy.Parents it is "BASE/./PATTERN", or "./PATTERN" for
	// the root: PATTERN, with "**" allowed, is looked for below BASE and kept below Dest.
	Path string
	// URL is an http or https address; Name is what its file is called.
	URL, Name string
	// Git is a git URL in one of the two grammars of BuildKit's dfgitutil, and parses there.
	Git string
}

// Inline is a file given in the Dockerfile as a heredoc. Name is a single path element.
type Inline struct {
	Name string
	Data string
}

// Workdir is a WORKDIR instruction: the directory is made if it is missing.
type Workdir struct {
	// Path is absolute and clean.
	Path string
	// Spelled is the same as the configuration has it. "/" makes no layer, but "/." does, as in BuildKit.
	Spelled string
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
	// Contexts are named contexts by NAME or NAME::os/arch. A value is docker-image://REF (asked of Resolve),
	// oci-layout://DIR@DIGEST (asked of ResolveLayout), or what NamedContext.Value may be. One that the target does not
	// need is not even looked at.
	Contexts map[string]string
	// ResolveLayout looks up images in layouts; nil if there are none.
	ResolveLayout LayoutFunc
	// SourceEpoch is asked when SOURCE_DATE_EPOCH names a source; nil if nobody can tell.
	SourceEpoch EpochFunc
	// Ignored tells whether an instruction that copies path, as written, names what the ignore file of the main
	// build context hides (dockerfile.Matcher.Names); nil if there is none.
	Ignored func(path string) bool
}

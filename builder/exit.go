// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/kaniko-go/kaniko-go/builder/internal/buildcontext"
	"github.com/kaniko-go/kaniko-go/builder/internal/dockerfile"
	"github.com/kaniko-go/kaniko-go/builder/internal/fetch"
	"github.com/kaniko-go/kaniko-go/builder/internal/layer"
	"github.com/kaniko-go/kaniko-go/builder/isolation"
	"github.com/kaniko-go/kaniko-go/builder/registry"
)

// Exit codes of the program.
const (
	ExitInternal    = 1
	ExitConfig      = 2
	ExitDockerfile  = 3
	ExitInstruction = 4
	ExitNetwork     = 5
	ExitRefused     = 6
	ExitEnvironment = 7
	ExitIntegrity   = 8
)

// setupError is a build context or Dockerfile that cannot be read.
type setupError struct{ err error }

func (e *setupError) Error() string { return e.err.Error() }
func (e *setupError) Unwrap() error { return e.err }

// environmentError is a place that does not let us do what the build needs.
type environmentError struct{ err error }

func (e *environmentError) Error() string { return e.err.Error() }
func (e *environmentError) Unwrap() error { return e.err }

// outputError is an output that could not be written; variable names its place.
type outputError struct {
	variable string
	err      error
}

func (e *outputError) Error() string { return e.err.Error() }
func (e *outputError) Unwrap() error { return e.err }

// baseError is an image to begin with, or to copy from, whose layers cannot be read.
type baseError struct{ err error }

func (e *baseError) Error() string { return e.err.Error() }
func (e *baseError) Unwrap() error { return e.err }

// instructionError is an instruction that failed.
type instructionError struct {
	text string
	err  error
}

func (e *instructionError) Error() string {
	word, _, _ := strings.Cut(e.text, " ")
	return fmt.Sprintf("%s: %v", word, e.err)
}
func (e *instructionError) Unwrap() error { return e.err }

// commandError is a RUN whose command failed, in the words that people search for.
type commandError struct {
	args []string
	exit *isolation.ExitError
}

func (e *commandError) Error() string {
	return fmt.Sprintf("process %q did not complete successfully: %v", strings.Join(e.args, " "), e.exit)
}
func (e *commandError) Unwrap() error { return e.exit }

// ExitCode is the exit code for an error that a verb of this package returned. Of several causes
// the innermost decides: a COPY that failed because the disk is full is the disk's fault.
func ExitCode(err error) int {
	var (
		fromRegistry *registry.Error
		refused      *isolation.RefusedError
		tampered     *isolation.TamperError
		environment  *environmentError
		output       *outputError
		setup        *setupError
		base         *baseError
		instruction  *instructionError
		file         *dockerfile.Error
		fetched      *fetch.Error
	)
	switch {
	case errors.As(err, &fromRegistry):
		return registryCode(fromRegistry.Class)
	case errors.As(err, &fetched) && fetched.Temporary, errors.Is(err, buildcontext.ErrChanged):
		return ExitNetwork
	case errors.Is(err, layer.ErrIntegrity), errors.As(err, &tampered):
		return ExitIntegrity
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EROFS),
		errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.As(err, &refused), errors.As(err, &environment), errors.As(err, &output):
		return ExitEnvironment
	case errors.As(err, &base):
		return ExitDockerfile
	case (errors.As(err, &setup) || errors.Is(err, buildcontext.ErrAgain)) && errors.As(err, &fetched):
		return contextCode(fetched)
	case errors.As(err, &setup):
		return ExitConfig
	case errors.As(err, &instruction):
		return ExitInstruction
	case errors.As(err, &file):
		return ExitDockerfile
	default:
		return ExitInternal
	}
}

// contextCode is the exit code for a build context or Dockerfile that could not be fetched, and that no second try would help.
func contextCode(e *fetch.Error) int {
	switch {
	case e.Refused:
		return ExitRefused
	case errors.Is(e, fetch.ErrChecksum):
		return ExitIntegrity
	default:
		return ExitConfig
	}
}

func registryCode(c registry.Class) int {
	switch c {
	case registry.Invalid:
		return ExitConfig
	case registry.Unsupported:
		return ExitDockerfile
	case registry.Transient:
		return ExitNetwork
	case registry.Refused:
		return ExitRefused
	case registry.Integrity:
		return ExitIntegrity
	default:
		return ExitInternal
	}
}

// Cause is the one line that says why a build failed.
func Cause(err error) string {
	text := printable(strings.ReplaceAll(err.Error(), "\n", "; "))
	if errors.Is(err, syscall.ENOSPC) {
		place := "KANIKO_DIR"
		if output := (*outputError)(nil); errors.As(err, &output) {
			place = output.variable
		}
		text += ": the disk is full; give " + place + " a larger volume"
	}
	return text
}

// printable writes what would do something to a terminal, or is no text, as Go writes it in strings: names of files are what
// somebody else has chosen.
func printable(s string) string {
	var b strings.Builder
	for i, r := range s {
		if _, size := utf8.DecodeRuneInString(s[i:]); unicode.IsPrint(r) && (r != utf8.RuneError || size > 1) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.Quote(s[i:i+size]), `"`))
		}
	}
	return b.String()
}

// Excerpt is the part of the Dockerfile that an error points to, "" if it points to none.
func Excerpt(err error) string {
	var e *dockerfile.Error
	if !errors.As(err, &e) {
		return ""
	}
	return e.Excerpt()
}

// Interrupted reports whether a build ended because its context did.
func Interrupted(ctx context.Context, err error) bool {
	return err != nil && ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx)))
}

func firstLine(location []parser.Range) int {
	first, _, _ := dockerfile.Lines(location)
	return first
}

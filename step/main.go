// SPDX-License-Identifier: Apache-2.0

// Command kaniko-go builds a container image from a Dockerfile inside its own
// container and pushes it. Everything is configured by environment variables; see docs/configuration.md.
//
// This package only wires: configuration, mode, results, exit code.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"go.uber.org/zap"

	"github.com/kaniko-go/kaniko-go/builder"
	"github.com/kaniko-go/kaniko-go/builder/isolation"
	"github.com/kaniko-go/kaniko-go/results"
	"github.com/kaniko-go/kaniko-go/step/config"
)

// version is set when the binary is linked.
var version = "devel"

func main() {
	isolation.Dispatch()
	enter := isolation.Enter
	if config.WantsInPlace(os.Args) {
		enter = isolation.Stay
	}
	os.Exit(run(enter()))
}

// run returns the exit code.
func run(status isolation.Status) int {
	cfg, log, code := configured(os.Args)
	if cfg == nil {
		return code
	}
	ctx, stop := untilSignal(context.Background())
	defer stop()
	modes := map[config.Mode]func(context.Context, *config.Config, isolation.Status, *zap.Logger) error{
		config.ModeBuild: build, config.ModeCheck: check, config.ModeWarm: warm, config.ModePush: push, config.ModeIndex: push,
		config.ModeCacheList: cacheList, config.ModeCachePrune: cachePrune,
	}
	if err := modes[cfg.Mode](ctx, cfg, status, log); err != nil {
		return fail(ctx, log, err)
	}
	return 0
}

// build carries out mode build.
func build(ctx context.Context, cfg *config.Config, status isolation.Status, log *zap.Logger) error {
	log.Debug("kaniko-go " + version)
	return write(ctx, cfg, status, log, func(b *builder.Builder) (*builder.Result, error) {
		return b.Build(ctx, request(cfg))
	})
}

// push carries out the modes push and index, which publish what was built before.
func push(ctx context.Context, cfg *config.Config, status isolation.Status, log *zap.Logger) error {
	return write(ctx, cfg, status, log, func(b *builder.Builder) (*builder.Result, error) {
		if cfg.Mode == config.ModeIndex {
			return b.Index(ctx, output(cfg), cfg.Image)
		}
		return b.Push(ctx, output(cfg), cacheOptions(cfg))
	})
}

// warm carries out mode warm, which has no results.
func warm(ctx context.Context, cfg *config.Config, status isolation.Status, log *zap.Logger) error {
	b, err := newBuilder(cfg, status, log)
	if err != nil {
		return err
	}
	defer b.Registry.Close()
	return b.Warm(ctx, request(cfg), cfg.Image)
}

// write does the work of a mode whose results are proved writable first and written last.
func write(ctx context.Context, cfg *config.Config, status isolation.Status, log *zap.Logger, work func(*builder.Builder) (*builder.Result, error)) error {
	out := outputs(cfg)
	if err := prepare(out); err != nil {
		return err
	}
	if !cfg.NoPush {
		if err := out.Check(cfg.Destination); err != nil {
			return &configError{err}
		}
	}
	b, err := newBuilder(cfg, status, log)
	if err != nil {
		return err
	}
	defer b.Registry.Close()
	res, err := work(b)
	if err != nil || res == nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := out.Write(results.Image{Digest: res.Digest, Destinations: res.Destinations, SourceCommit: res.SourceCommit}); err != nil {
		return &resultsError{err}
	}
	return nil
}

// prepare removes the results of an earlier run and proves that new ones can be written.
func prepare(out results.Outputs) error {
	stale := out.RemoveStale()
	err := out.Probe()
	if err == nil { // else the same place says the same once for every file
		err = stale
	}
	if err != nil {
		return &resultsError{err}
	}
	return nil
}

// check carries out mode check: the report goes to standard error for people, and to LINT.json.
func check(ctx context.Context, cfg *config.Config, status isolation.Status, log *zap.Logger) error {
	if err := prepare(outputs(cfg)); err != nil {
		return err
	}
	b, err := newBuilder(cfg, status, log)
	if err != nil {
		return err
	}
	defer b.Registry.Close()
	report, err := b.Check(ctx, request(cfg))
	if err != nil {
		return err
	}
	if err := results.WriteLint(outputs(cfg).Dir, report.JSON); err != nil {
		return &resultsError{err}
	}
	for line := range strings.Lines(report.Text) {
		log.Info(strings.TrimSuffix(line, "\n"))
	}
	if report.Err != nil {
		return report.Err
	}
	if report.Warnings > 0 {
		return &lintError{report.Warnings}
	}
	return nil
}

// lintError is a Dockerfile that can be built but about which build checks have something to say.
type lintError struct{ n int }

func (e *lintError) Error() string {
	if e.n == 1 {
		return "1 build check has something to say, see above"
	}
	return fmt.Sprintf("%d build checks have something to say, see above", e.n)
}

// resultsError is a result that could not be written.
type resultsError struct{ err error }

func (e *resultsError) Error() string { return "results: " + e.err.Error() }
func (e *resultsError) Unwrap() error { return e.err }

// configError is a configuration that asks for something impossible.
type configError struct{ err error }

func (e *configError) Error() string { return e.err.Error() }
func (e *configError) Unwrap() error { return e.err }

// signalError is the signal that ended the run.
type signalError struct{ sig syscall.Signal }

func (e *signalError) Error() string { return fmt.Sprintf("ended by signal %v", e.sig) }

// untilSignal returns a context that ends with the first SIGTERM or SIGINT. Further ones change nothing: a process group
// may deliver the same one twice.
func untilSignal(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		for s := range signals {
			if s, ok := s.(syscall.Signal); ok {
				cancel(&signalError{s})
			}
		}
	}()
	return ctx, func() { signal.Stop(signals); close(signals); cancel(nil) }
}

// fail reports why the run failed, in one last line, and returns the exit code.
func fail(ctx context.Context, log *zap.Logger, err error) int {
	code := exitCode(ctx, err)
	cause := builder.Cause(err)
	var sig *signalError
	if errors.As(context.Cause(ctx), &sig) {
		cause = sig.Error()
	} else if excerpt := builder.Excerpt(err); excerpt != "" {
		for line := range strings.Lines(excerpt) {
			log.Error(strings.TrimSuffix(line, "\n"))
		}
	}
	leave(log, cause)
	log.Error("error: "+cause, zap.Int("exit", code))
	return code
}

// terminationLog is where Kubernetes takes the message of a container from, and Argo that of a node. Tekton's steps have none: they name
// another file, in which the entrypoint keeps data of its own.
const terminationLog = "/dev/termination-log"

// leave leaves the cause of a failure where kubectl shows it, in a pod.
func leave(log *zap.Logger, cause string) {
	if err := results.WriteCause(terminationLog, cause); err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn(err.Error())
	}
}

func exitCode(ctx context.Context, err error) int {
	var (
		sig *signalError
		res *resultsError
		cfg *configError
		lnt *lintError
	)
	switch {
	case errors.As(err, &lnt):
		return builder.ExitDockerfile
	case errors.As(context.Cause(ctx), &sig):
		return 128 + int(sig.sig)
	case errors.As(err, &res):
		return builder.ExitEnvironment
	case errors.As(err, &cfg):
		return builder.ExitConfig
	default:
		return builder.ExitCode(err)
	}
}

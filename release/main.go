// SPDX-License-Identifier: Apache-2.0

// Command release makes what is published: the step images, with kaniko-go itself, lists of what is in them (SPDX), checksums, and the
// notices of third parties; and what catalogues take. It signs nothing and pushes nothing but a Tekton bundle where it is told to;
// `make release` prints what a maintainer does with the result.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

//go:generate go run . notices -o ../THIRD_PARTY_NOTICES

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	commands := map[string]func(context.Context, []string) error{
		"images": imagesCommand, "notices": noticesCommand, "sbom": sbomCommand, "sums": sumsCommand, "costs": costsCommand,
		"dist": distCommand, "bundle": bundleCommand,
	}
	if len(args) == 0 || commands[args[0]] == nil {
		return errors.New("usage: release images|notices|sbom|sums|costs|dist|bundle")
	}
	return commands[args[0]](ctx, args[1:])
}

func imagesCommand(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("images", flag.ContinueOnError)
	dist := f.String("dist", "dist", "directory with linux-ARCH/kaniko-go, which receives the images")
	builder := f.String("builder", "bin/kaniko-go", "the binary that builds the images")
	arches := f.String("arch", "amd64,arm64", "architectures")
	version := f.String("version", "devel", "version")
	revision := f.String("revision", "", "commit")
	epoch := f.String("epoch", "0", "time of the commit, in seconds since 1970")
	if err := f.Parse(args); err != nil {
		return err
	}
	seconds, err := strconv.ParseInt(*epoch, 10, 64)
	if err != nil {
		return fmt.Errorf("-epoch: %w", err)
	}
	return buildImages(ctx, images{
		Dist: *dist, Builder: *builder, Arches: strings.Split(*arches, ","), Version: *version, Revision: *revision, Epoch: time.Unix(seconds, 0).UTC(),
	})
}

func noticesCommand(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("notices", flag.ContinueOnError)
	out := f.String("o", "THIRD_PARTY_NOTICES", "file to write")
	if err := f.Parse(args); err != nil {
		return err
	}
	text, err := notices(ctx)
	if err != nil {
		return err
	}
	return os.WriteFile(*out, text, 0o644)
}

func sbomCommand(_ context.Context, args []string) error {
	f := flag.NewFlagSet("sbom", flag.ContinueOnError)
	out := f.String("o", "", "file to write")
	version := f.String("version", "devel", "version")
	epoch := f.Int64("epoch", 0, "time of the commit, in seconds since 1970")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() != 1 {
		return errors.New("usage: release sbom -o FILE BINARY")
	}
	doc, err := newSBOM("kaniko-go", *version, time.Unix(*epoch, 0).UTC(), f.Arg(0), nil)
	if err != nil {
		return err
	}
	return doc.write(*out)
}

// SPDX-License-Identifier: Apache-2.0

// Command manage makes, starts and ends the cluster of the end-to-end tests. Every verb can be given again at any time:
//
//	build     compile its programs (once a version; 75 is the exit code when the limit ended it, the next call goes on)
//	up        build, start it, and put the image of kaniko-go into its registry
//	down      end it and remove everything but the programs and the logs
//	state     say whether it is up, by the exit code
//	kubectl   run kubectl on it
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/kaniko-go/kaniko-go/e2e/cluster/node"
	"github.com/kaniko-go/kaniko-go/e2e/cluster/programs"
	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// unfinished is the exit code for "the same call again goes on".
const unfinished = 75

type options struct {
	limit  time.Duration
	binary string
}

func main() {
	var o options
	flag.DurationVar(&o.limit, "limit", 40*time.Minute, "longest time for compiling")
	flag.StringVar(&o.binary, "binary", "bin/kaniko-go", "kaniko-go, which builds its own image")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, o, flag.Args())
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		if errors.Is(err, programs.ErrLimit) {
			os.Exit(unfinished)
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, args []string) error {
	if len(args) == 0 {
		return errors.New("say build, up, down, state or kubectl")
	}
	repository, err := repositoryRoot(ctx)
	if err != nil {
		return err
	}
	switch args[0] {
	case "build":
		_, err := programs.Make(ctx, repository, o.limit, os.Stderr)
		return err
	case "up":
		return up(ctx, o, repository)
	case "down":
		n, err := node.New(nil, os.Stderr)
		if err != nil {
			return err
		}
		return n.Down(ctx)
	case "state":
		_, err := node.Running(ctx)
		return err
	case "kubectl":
		return kubectl(ctx, args[1:])
	}
	return fmt.Errorf("%q is none of build, up, down, state, kubectl", args[0])
}

func up(ctx context.Context, o options, repository string) error {
	set, err := programs.Make(ctx, repository, o.limit, os.Stderr)
	if err != nil {
		return err
	}
	layout, remove, err := ownImage(ctx, o.binary, repository)
	if err != nil {
		return err
	}
	defer remove()
	n, err := node.New(set, os.Stderr)
	if err != nil {
		return err
	}
	return n.Up(ctx, layout)
}

// ownImage builds the published image for this machine around a binary, by that binary, into an OCI layout.
func ownImage(ctx context.Context, binary, repository string) (layout string, remove func(), err error) {
	dist, err := os.MkdirTemp("", "kaniko-go-cluster-")
	if err != nil {
		return "", nil, err
	}
	remove = func() { _ = os.RemoveAll(dist) }
	defer func() {
		if err != nil {
			remove()
		}
	}()
	if binary, err = filepath.Abs(binary); err != nil {
		return "", nil, err
	}
	debian, err := testenv.CacheDir("step-images")
	if err != nil {
		return "", nil, err
	}
	arch := filepath.Join(dist, "linux-"+runtime.GOARCH)
	if err := os.MkdirAll(arch, 0o755); err != nil {
		return "", nil, err
	}
	err = errors.Join(os.Symlink(debian, filepath.Join(dist, "debian")), os.Symlink(binary, filepath.Join(arch, "kaniko-go")))
	if err != nil {
		return "", nil, err
	}
	cmd := exec.CommandContext(ctx, "go", "run", "./release", "images", "-dist", dist, "-builder", binary, "-arch", runtime.GOARCH, "-version", "cluster", "-revision", "cluster", "-epoch", "1700000000")
	cmd.Dir = repository
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", nil, fmt.Errorf("image of kaniko-go: %w\n%s", err, out)
	}
	return filepath.Join(dist, "plain.oci"), remove, nil
}

func kubectl(ctx context.Context, args []string) error {
	n, err := node.New(nil, io.Discard) // also one that is not up: to see why
	if err != nil {
		return err
	}
	out, err := n.Kubectl(ctx, "", args...)
	return errors.Join(err, write(os.Stdout, out))
}

func write(w io.Writer, text string) error {
	_, err := io.WriteString(w, text)
	return err
}

func repositoryRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out))), nil
}

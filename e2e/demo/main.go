// SPDX-License-Identifier: Apache-2.0

// Command demo builds examples/hello with bin/kaniko-go and pushes it, on a machine that has nothing but Go: the registry is
// in this process, its blobs in a temporary directory, and the base image is one static program compiled here. It then
// reads the image back from the registry and prints what is there. `make demo` runs it.
package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := demo(ctx, os.Stdout); err != nil {
		stop()
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1) //nolint:gocritic // stop was called
	}
}

func demo(ctx context.Context, w io.Writer) error {
	binary, err := filepath.Abs("bin/kaniko-go")
	if err != nil {
		return err
	}
	if _, err := os.Stat(binary); err != nil {
		return fmt.Errorf("%w (make build makes it)", err)
	}
	dir, err := os.MkdirTemp("", "kaniko-go-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary directory
	host, err := serve(ctx, filepath.Join(dir, "registry"))
	if err != nil {
		return err
	}
	base := host + "/base/toolbox:1"
	if err := pushBase(ctx, dir, base); err != nil {
		return fmt.Errorf("base image: %w", err)
	}
	destination := host + "/demo/hello:1"
	results := filepath.Join(dir, "results")
	if err := os.Mkdir(results, 0o755); err != nil {
		return err
	}
	env := []string{
		"KANIKO_CONTEXT=examples/hello",
		"KANIKO_DESTINATION=" + destination,
		"KANIKO_BUILD_ARG=BASE=" + base + "\nVERSION=1.0",
		"KANIKO_RESULTS_DIR=" + results,
		"KANIKO_DIR=" + filepath.Join(dir, "work"),
	}
	fmt.Fprintf(w, "The build is configured by its environment alone:\n\n")
	for _, e := range env {
		fmt.Fprintf(w, "  %s\n", strings.ReplaceAll(e, "\n", "\n      "))
	}
	fmt.Fprintln(w)
	start := time.Now()
	if err := build(ctx, binary, env); err != nil {
		return err
	}
	return show(ctx, w, destination, results, time.Since(start))
}

func build(ctx context.Context, binary string, env []string) error {
	cmd := exec.CommandContext(ctx, binary)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, env...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 7 {
		return errors.New("this machine does not let the build do what it needs; the last line above says what was refused and what would help")
	}
	if err != nil {
		return fmt.Errorf("kaniko-go: %w; its last line above is the cause", err)
	}
	return nil
}

// serve starts the registry and returns its host:port; it ends with the process.
func serve(ctx context.Context, dir string) (string, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	quiet := log.New(io.Discard, "", 0)
	server := &http.Server{Handler: registry.New(registry.WithBlobHandler(registry.NewDiskBlobHandler(dir)), registry.Logger(quiet)), ReadHeaderTimeout: time.Minute}
	go server.Serve(listener) //nolint:errcheck // until the process ends
	return listener.Addr().String(), nil
}

// pushBase compiles the toolbox and pushes an image of it, with a link for every command.
func pushBase(ctx context.Context, dir, reference string) error {
	program := filepath.Join(dir, "toolbox")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", program, "./e2e/demo/toolbox")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	binary, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	layer, err := toolboxLayer(binary)
	if err != nil {
		return err
	}
	image, err := mutate.AppendLayers(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON), layer)
	if err != nil {
		return err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return err
	}
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config.Env = []string{"PATH=/bin"}
	if image, err = mutate.ConfigFile(image, config); err != nil {
		return err
	}
	return crane.Push(image, reference, crane.WithContext(ctx))
}

func toolboxLayer(binary []byte) (v1.Layer, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	accounts := "root:x:0:0:root:/root:/bin/sh\n"
	entries := []tar.Header{
		{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "bin/toolbox", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(binary))},
		{Name: "etc/passwd", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(accounts))},
	}
	for _, name := range []string{"cat", "cp", "echo", "ls", "mkdir", "sh", "sha256sum", "true"} {
		entries = append(entries, tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "toolbox", Mode: 0o777})
	}
	contents := map[string][]byte{"bin/toolbox": binary, "etc/passwd": []byte(accounts)}
	for _, h := range entries {
		h.ModTime = time.Unix(0, 0)
		if err := w.WriteHeader(&h); err != nil {
			return nil, err
		}
		if _, err := w.Write(contents[h.Name]); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil }, tarball.WithMediaType(types.OCILayer))
}

// show prints what the registry holds and what the results say.
func show(ctx context.Context, w io.Writer, destination, results string, took time.Duration) error {
	image, err := crane.Pull(destination, crane.WithContext(ctx))
	if err != nil {
		return fmt.Errorf("reading back: %w", err)
	}
	digest, err := image.Digest()
	if err != nil {
		return err
	}
	manifest, err := image.Manifest()
	if err != nil {
		return err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "\nRead back from the registry:\n\n  reference  %s\n  digest     %s\n", destination, digest)
	for i, l := range manifest.Layers {
		fmt.Fprintf(w, "  layer %d    %s %8.1f kB\n", i+1, l.Digest, float64(l.Size)/1000)
	}
	fmt.Fprintf(w, "  runs       %q as %s in %s\n  built in   %.2f s\n\nResults:\n\n", config.Config.Cmd, config.Config.User, config.Config.WorkingDir, took.Seconds())
	entries, err := os.ReadDir(results)
	if err != nil {
		return err
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(results, e.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "  %-12s %s\n", e.Name(), b)
	}
	return nil
}

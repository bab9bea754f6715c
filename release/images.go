// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// mostBytes is the most that the plain image may have unpacked: nodes pull it for every build.
const mostBytes = 45_000_000

const buildLimit = 10 * time.Minute

// images says what images are made of.
type images struct {
	// Dist holds linux-ARCH/kaniko-go and receives the OCI layouts plain.oci and debug.oci, each an index of all platforms, their SBOMs,
	// and packages of Debian, which are downloaded once.
	Dist string
	// Builder is the binary that builds them.
	Builder           string
	Arches            []string
	Version, Revision string
	Epoch             time.Time
}

// buildImages builds both images for all platforms. The same binaries, packages and epoch give the same digests.
func buildImages(ctx context.Context, o images) error {
	work := filepath.Join(o.Dist, "context")
	if err := os.RemoveAll(work); err != nil {
		return err
	}
	for _, arch := range o.Arches {
		if err := o.prepare(ctx, work, arch); err != nil {
			return fmt.Errorf("%s: %w", arch, err)
		}
	}
	for _, target := range []string{"plain", "debug"} {
		digest, err := o.build(ctx, work, target)
		if err != nil {
			return fmt.Errorf("%s: %w", target, err)
		}
		fmt.Fprintf(os.Stdout, "%s.oci %s\n", target, digest)
	}
	return os.RemoveAll(work)
}

// prepare makes the trees of one architecture and the SBOMs.
func (o images) prepare(ctx context.Context, work, arch string) error {
	binary := filepath.Join(o.Dist, "linux-"+arch, "kaniko-go")
	debs, err := o.debs(ctx, arch)
	if err != nil {
		return err
	}
	program, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	plain, err := plainTree(ctx, program, debs[0])
	if err != nil {
		return err
	}
	size := plain.size()
	fmt.Fprintf(os.Stdout, "linux/%s: %.1f MB unpacked, binary %.1f MB\n", arch, float64(size)/1e6, float64(len(program))/1e6)
	if size > mostBytes {
		return fmt.Errorf("the image has %d bytes, more than %d", size, mostBytes)
	}
	applets, err := o.applets(ctx)
	if err != nil {
		return err
	}
	debug, err := debugTree(ctx, debs[1], applets)
	if err != nil {
		return err
	}
	debug.list(slices.Concat(plain.paths(), debug.paths()))
	plain.list(plain.paths())
	for name, t := range map[string]tree{"plain": plain, "debug": debug} {
		if err := t.write(filepath.Join(work, name+"-"+arch)); err != nil {
			return err
		}
	}
	for i, name := range []string{"plain", "debug"} {
		doc, err := newSBOM("kaniko-go-"+name, o.Version, o.Epoch, binary, debs[:i+1])
		if err != nil {
			return err
		}
		if err := doc.write(filepath.Join(o.Dist, name+"-"+arch+".spdx.json")); err != nil {
			return err
		}
	}
	return nil
}

// debs are the packages ca-certificates and busybox-static.
func (o images) debs(ctx context.Context, arch string) ([]deb, error) {
	if arch == "ppc64le" {
		arch = "ppc64el"
	}
	return download(ctx, filepath.Join(o.Dist, "debian", arch), arch, "ca-certificates", "busybox-static")
}

// applets asks busybox itself; that of another architecture has the same ones but cannot be asked.
func (o images) applets(ctx context.Context) ([]string, error) {
	debs, err := o.debs(ctx, runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	found, err := debs[1].files(ctx, "/bin/busybox")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "kaniko-go-busybox-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	program := filepath.Join(dir, "busybox")
	if err := os.WriteFile(program, found["/bin/busybox"], 0o755); err != nil {
		return nil, err
	}
	out, err := exec.CommandContext(ctx, program, "--list").Output()
	return strings.Fields(string(out)), err
}

// build builds one target for all platforms into an OCI layout and returns its digest.
func (o images) build(ctx context.Context, work, target string) (string, error) {
	layout, err := filepath.Abs(filepath.Join(o.Dist, target+".oci"))
	if err != nil {
		return "", err
	}
	dockerfile, err := findDockerfile()
	if err != nil {
		return "", err
	}
	temp, err := os.MkdirTemp("", "kaniko-go-images-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(temp) }()
	if err := os.RemoveAll(layout); err != nil {
		return "", err
	}
	platforms := make([]string, len(o.Arches))
	for i, arch := range o.Arches {
		platforms[i] = "linux/" + arch
	}
	ctx, cancel := context.WithTimeout(ctx, buildLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, o.Builder)
	cmd.Stderr = os.Stderr
	cmd.Env = []string{
		"KANIKO_CONTEXT=" + work, "KANIKO_DOCKERFILE=" + dockerfile, "KANIKO_TARGET=" + target, "KANIKO_PLATFORM=" + strings.Join(platforms, "\n"),
		"KANIKO_NO_PUSH=true", "KANIKO_OCI_LAYOUT_PATH=" + layout, "KANIKO_DIR=" + filepath.Join(temp, "dir"), "TMPDIR=" + temp,
		"KANIKO_DIGEST_FILE=" + filepath.Join(temp, "digest"), "KANIKO_LABEL=" + strings.Join(o.labels(target), "\n"),
		"KANIKO_VERBOSITY=warn", "SOURCE_DATE_EPOCH=" + strconv.FormatInt(o.Epoch.Unix(), 10),
	}
	if err := cmd.Run(); err != nil {
		return "", err
	}
	digest, err := os.ReadFile(filepath.Join(temp, "digest"))
	return string(digest), err
}

// labels are the ones that the OCI image specification names.
func (o images) labels(target string) []string {
	title := "kaniko-go"
	if target == "debug" {
		title += " with a shell"
	}
	const home = "https://github.com/kaniko-go/kaniko-go"
	labels := []string{
		"title=" + title, "description=Builds container images from a Dockerfile inside their own container, without a daemon",
		"url=" + home, "source=" + home, "documentation=" + home + "/blob/main/README.md", "licenses=Apache-2.0",
		"version=" + o.Version, "created=" + o.Epoch.Format(time.RFC3339),
	}
	if o.Revision != "" {
		labels = append(labels, "revision="+o.Revision)
	}
	for i := range labels {
		labels[i] = "org.opencontainers.image." + labels[i]
	}
	return labels
}

// findDockerfile looks for it where the repository's root and this package's directory are.
func findDockerfile() (string, error) {
	for _, name := range []string{"release/Dockerfile", "Dockerfile"} {
		if _, err := os.Stat(name); err == nil {
			return filepath.Abs(name)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return "", errors.New("release/Dockerfile: not here; run this in the root of the repository")
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// deb is a package of Debian of which files go into an image.
type deb struct{ Package, Version, Architecture, File string }

const aptLimit = 5 * time.Minute

// download fetches packages of one architecture as the machine's package sources have them now, without changing anything of the machine. What
// dir has already is taken again, so that images that are built twice have the same files.
func download(ctx context.Context, dir, arch string, packages ...string) ([]deb, error) {
	found, err := downloaded(ctx, dir, packages)
	if err == nil {
		return found, nil
	}
	state, err := os.MkdirTemp("", "kaniko-go-apt-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(state) }()
	for _, d := range []string{dir, filepath.Join(state, "lists/partial"), filepath.Join(state, "cache/archives/partial")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, aptLimit)
	defer cancel()
	options := []string{
		"-q", "-o", "APT::Architecture=" + arch, "-o", "APT::Architectures=" + arch, "-o", "APT::Sandbox::User=root",
		"-o", "Dir::State::lists=" + filepath.Join(state, "lists"), "-o", "Dir::Cache=" + filepath.Join(state, "cache"),
	}
	for _, args := range [][]string{{"update"}, append([]string{"download"}, packages...)} {
		cmd := exec.CommandContext(ctx, "apt-get", append(options[:len(options):len(options)], args...)...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("apt-get %s for %s: %w\n%s", strings.Join(args, " "), arch, err, out)
		}
	}
	return downloaded(ctx, dir, packages)
}

// downloaded finds packages in a directory of one architecture.
func downloaded(ctx context.Context, dir string, packages []string) ([]deb, error) {
	list := make([]deb, 0, len(packages))
	for _, p := range packages {
		files, err := filepath.Glob(filepath.Join(dir, p+"_*.deb"))
		if err != nil || len(files) != 1 {
			return nil, fmt.Errorf("%s: %d files of package %s, not one", dir, len(files), p)
		}
		out, err := exec.CommandContext(ctx, "dpkg-deb", "--field", files[0], "Version", "Architecture").Output()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", files[0], err)
		}
		d := deb{Package: p, File: files[0]}
		for line := range strings.Lines(string(out)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
			switch key {
			case "Version":
				d.Version = value
			case "Architecture":
				d.Architecture = value
			}
		}
		list = append(list, d)
	}
	return list, nil
}

// files gives the regular files of a package whose path matches a pattern, in the order of the package: path -> content.
func (d deb) files(ctx context.Context, pattern string) (map[string][]byte, error) {
	out, err := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", d.File).Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.File, err)
	}
	found := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(out)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", d.File, err)
		}
		name := strings.TrimPrefix(h.Name, ".")
		if match, err := path.Match(pattern, name); err != nil || !match || h.Typeflag != tar.TypeReg {
			continue
		}
		if found[name], err = io.ReadAll(r); err != nil {
			return nil, fmt.Errorf("%s: %w", d.File, err)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s: no file %s", d.File, pattern)
	}
	return found, nil
}

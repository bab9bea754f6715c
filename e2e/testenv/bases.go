// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/crane"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
)

// Suite is the Debian release that base images and packages come from.
const Suite = "bookworm"

const (
	defaultPath  = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	debianLimit  = 10 * time.Minute
	appletsLimit = 10 * time.Second
)

// Busybox makes an image of Debian's static busybox with one link an applet, root and nobody.
func Busybox(ctx context.Context) (v1.Image, error) {
	program, err := exec.LookPath("busybox")
	if err != nil {
		return nil, fmt.Errorf("busybox base: %w (on Debian as root: e2e/packages.sh)", err)
	}
	binary, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, appletsLimit)
	defer cancel()
	applets, err := exec.CommandContext(ctx, program, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("busybox base: %w", err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	entries := []tar.Header{
		{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "root/", Typeflag: tar.TypeDir, Mode: 0o700},
		{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777},
		{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(binary))},
	}
	for name := range strings.FieldsSeq(string(applets)) {
		if name != "busybox" {
			entries = append(entries, tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777})
		}
	}
	texts := map[string][]byte{
		"bin/busybox": binary,
		"etc/passwd":  []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
		"etc/group":   []byte("root:x:0:\nnobody:x:65534:\n"),
	}
	for _, name := range []string{"etc/passwd", "etc/group"} {
		entries = append(entries, tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(texts[name]))})
	}
	for _, h := range entries {
		h.ModTime = time.Unix(1700000000, 0)
		if err := w.WriteHeader(&h); err != nil {
			return nil, err
		}
		if _, err := w.Write(texts[h.Name]); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil }, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	return baseImage(layer)
}

// Debian makes an image of a minimal Debian with some packages more. The tree is made once and kept, compressed, under
// CacheDir; making it needs root, mmdebstrap and a package mirror.
func Debian(ctx context.Context, include ...string) (v1.Image, error) {
	name, err := DebianTree(ctx, include...)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromFile(name, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	return baseImage(layer)
}

// DebianTree is the gzipped tar of Debian's image.
func DebianTree(ctx context.Context, include ...string) (string, error) {
	dir, err := CacheDir("bases")
	if err != nil {
		return "", err
	}
	include = slices.Sorted(slices.Values(include))
	name := filepath.Join(dir, strings.Join(append([]string{"debian", Suite}, include...), "-")+".tar.gz")
	if _, err := os.Stat(name); err == nil {
		return name, nil
	}
	ctx, cancel := context.WithTimeout(ctx, debianLimit)
	defer cancel()
	args := []string{"--quiet", "--variant=minbase"}
	if len(include) > 0 {
		args = append(args, "--include="+strings.Join(include, ","))
	}
	cmd := exec.CommandContext(ctx, "mmdebstrap", append(args, Suite, "-")...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := gzipTo(name, cmd); err != nil {
		return "", fmt.Errorf("debian base (at most %v): %w\n%s", debianLimit, err, stderr.Bytes())
	}
	return name, nil
}

// gzipTo runs a command and keeps its output under name, or nothing when it fails.
func gzipTo(name string, cmd *exec.Cmd) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // it is gone when the rename worked
	w, err := gzip.NewWriterLevel(f, 6)
	if err != nil {
		return err
	}
	cmd.Stdout = w
	err = cmd.Run()
	if err = errors.Join(err, w.Close(), f.Close()); err != nil {
		return err
	}
	if err := os.Chmod(f.Name(), 0o644); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

func baseImage(layers ...v1.Layer) (v1.Image, error) {
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err := mutate.AppendLayers(image, layers...)
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config.Env, config.Config.Cmd = []string{defaultPath}, []string{"/bin/sh"}
	return mutate.ConfigFile(image, config)
}

// Image makes a base of several gzipped tars, lowest first.
func Image(tars ...string) (v1.Image, error) {
	layers := make([]v1.Layer, len(tars))
	for i, name := range tars {
		layer, err := tarball.LayerFromFile(name, tarball.WithMediaType(types.OCILayer))
		if err != nil {
			return nil, err
		}
		layers[i] = layer
	}
	return baseImage(layers...)
}

// Push pushes an image to a plain-HTTP registry.
func Push(ctx context.Context, image v1.Image, reference string) error {
	return crane.Push(image, reference, crane.WithContext(ctx), crane.Insecure)
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/gzip"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// pushBases makes the three bases (kept for the next time) and returns build argument -> reference.
func pushBases(ctx context.Context, host string, log io.Writer) (map[string]string, error) {
	refs := map[string]string{}
	for _, base := range []struct {
		argument, name string
		image          func() (v1.Image, error)
	}{
		{"BASE_BUSYBOX", "busybox", func() (v1.Image, error) { return testenv.Busybox(ctx) }},
		{"BASE_DEBIAN", "debian", func() (v1.Image, error) { return testenv.Debian(ctx) }},
		{"BASE_BIG", "big", func() (v1.Image, error) { return bigBase(ctx) }},
	} {
		fmt.Fprintf(log, "base %s\n", base.name)
		image, err := base.image()
		if err != nil {
			return nil, err
		}
		refs[base.argument] = host + "/base/" + base.name + ":1"
		if err := testenv.Push(ctx, image, refs[base.argument]); err != nil {
			return nil, fmt.Errorf("base %s: %w", base.name, err)
		}
	}
	return refs, nil
}

// bigBase is Debian with compilers, Python and a JDK (1 GB, 41 000 files with the three layers of generated files on top).
func bigBase(ctx context.Context) (v1.Image, error) {
	tree, err := testenv.DebianTree(ctx, "gcc", "g++", "make", "python3", "openjdk-17-jdk-headless", "cmake", "gdb", "vim", "ca-certificates")
	if err != nil {
		return nil, err
	}
	tars := []string{tree}
	for _, layer := range []struct{ number, files, size int }{{2, 6000, 45_000}, {3, 2000, 62_000}, {4, 1000, 42_000}} {
		dir, err := testenv.CacheDir("bench")
		if err != nil {
			return nil, err
		}
		name := filepath.Join(dir, fmt.Sprintf("big-layer%d-v1.tar.gz", layer.number))
		if _, err := os.Stat(name); err != nil {
			if err := writeLayer(name, layer.number, layer.files, layer.size); err != nil {
				return nil, fmt.Errorf("base big: %w", err)
			}
		}
		tars = append(tars, name)
	}
	return testenv.Image(tars...)
}

func writeLayer(name string, number, files, size int) (err error) {
	f, err := os.Create(name + ".new")
	if err != nil {
		return err
	}
	compressed := gzip.NewWriter(f)
	w := tar.NewWriter(compressed)
	defer func() {
		err = errors.Join(err, w.Close(), compressed.Close(), f.Close())
		if err == nil {
			err = os.Rename(name+".new", name)
		}
	}()
	s := newSource(filepath.Base(name))
	b := make([]byte, 0, size)
	for i := range files {
		b = s.mixed(b[:0], size)
		h := &tar.Header{Name: fmt.Sprintf("opt/l%d/d%02d/f%04d", number, i%40, i), Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(b)), ModTime: epoch()}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}

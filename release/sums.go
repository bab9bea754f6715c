// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// sumsCommand writes SHA256SUMS for the files given, in the form that sha256sum -c reads.
func sumsCommand(_ context.Context, args []string) error {
	f := flag.NewFlagSet("sums", flag.ContinueOnError)
	dist := f.String("dist", "dist", "directory that the names are relative to, which receives SHA256SUMS")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() == 0 {
		return errors.New("usage: release sums [-dist DIR] FILES")
	}
	var out strings.Builder
	for _, name := range f.Args() {
		sum, err := fileSum(name)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(*dist, name)
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, "%s  %s\n", sum, rel)
	}
	return os.WriteFile(filepath.Join(*dist, "SHA256SUMS"), []byte(out.String()), 0o644)
}

func fileSum(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}

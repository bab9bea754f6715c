// SPDX-License-Identifier: Apache-2.0

// Command stores serves object stores on loopback for tests of build contexts: S3 by Versity's gateway, which checks
// signatures, and Google's by fake-gcs-server. It is a module of its own, for what it needs is no part of the program.
//
//	stores OBJECTS DIRECTORY KEYS
//
// OBJECTS is a directory of files, which Google's store has as objects of the buckets "bucket" and "public". DIRECTORY is where the gateway
// keeps what it is sent. KEYS is a file with the keys that it knows; see type key. The addresses are printed, one a line, and it ends
// with its standard input.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/fsouza/fake-gcs-server/fakestorage"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: stores OBJECTS DIRECTORY KEYS")
		os.Exit(2)
	}
	if err := run(context.Background(), os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, objects, dir, keys string) error {
	google, err := serveGoogle(objects)
	if err != nil {
		return err
	}
	defer google.Stop()
	// The gateway says on standard output what it is; that is for the addresses alone.
	out := os.Stdout
	os.Stdout = os.Stderr
	ctx, cancel := context.WithCancelCause(ctx)
	address, err := serveS3(ctx, cancel, dir, keys)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(out, "http://%s\n%s\n", address, google.URL()); err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel(nil)
	}()
	<-ctx.Done()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func serveGoogle(dir string) (*fakestorage.Server, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var objects []fakestorage.Object
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return nil, err
		}
		for _, bucket := range []string{"bucket", "public"} {
			objects = append(objects, fakestorage.Object{ObjectAttrs: fakestorage.ObjectAttrs{BucketName: bucket, Name: f.Name()}, Content: data})
		}
	}
	return fakestorage.NewServerWithOptions(fakestorage.Options{Scheme: "http", Host: "127.0.0.1", InitialObjects: objects})
}

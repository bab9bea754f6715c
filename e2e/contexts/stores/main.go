// SPDX-License-Identifier: Apache-2.0

// Command stores serves object stores on loopback for tests of build contexts: S3 by gofakes3, Google's by
// fake-gcs-server, each with the objects that the directory given holds, as OBJECT in the bucket "bucket". It prints their
// addresses, one a line, and ends with its standard input. It is a module of its own, for what it needs is no
// part of the program.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"

	"github.com/fsouza/fake-gcs-server/fakestorage"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(dir string) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	backend := s3mem.New()
	if err := backend.CreateBucket("bucket"); err != nil {
		return err
	}
	var objects []fakestorage.Object
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return err
		}
		objects = append(objects, fakestorage.Object{ObjectAttrs: fakestorage.ObjectAttrs{BucketName: "bucket", Name: f.Name()}, Content: data})
		if err := putS3(backend, f.Name(), data); err != nil {
			return err
		}
	}
	google, err := fakestorage.NewServerWithOptions(fakestorage.Options{Scheme: "http", Host: "127.0.0.1", InitialObjects: objects})
	if err != nil {
		return err
	}
	defer google.Stop()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := &http.Server{Handler: gofakes3.New(backend).Server()} //nolint:gosec // on loopback, for a test
	go func() { _ = s.Serve(l) }()
	defer func() { _ = s.Close() }()
	fmt.Printf("http://%s\n%s\n", l.Addr(), google.URL())
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

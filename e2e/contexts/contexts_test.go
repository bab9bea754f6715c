// SPDX-License-Identifier: Apache-2.0

// Package contexts builds from every place that a build context may be in: directories, archives, web servers, git, and the
// object stores of Amazon, Google and Azure. The servers are real ones on loopback; between them and the builder is,
// where a test wants it, a wire that breaks. What an archive may hold is tested in builder/internal/buildcontext.
package contexts

import (
	"context"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

var full = flag.Bool("full", false, "also what takes long: 2 GiB in slow compressions and in object stores, servers that are not there, more places to cut")

// binary is the program under test; stores is the one that serves object stores, "" where it could not be made.
var binary, stores, noStores string

// needStores skips a test on a machine that cannot have the object stores, whose module is one of its own; in CI that is a failure.
func needStores(t *testing.T) {
	t.Helper()
	if stores == "" {
		t.Skip(noStores)
	}
}

func TestMain(m *testing.M) {
	testenv.Main(m, func(ctx context.Context, path, dir string) error {
		binary = path
		stores, noStores = buildStores(ctx, dir)
		return nil
	})
}

// build runs the builder on a context, without a push and with an epoch, so that the same files are the same image.
func build(t *testing.T, location string, env map[string]string, stdin string) testenv.Outcome {
	t.Helper()
	all := map[string]string{
		"KANIKO_CONTEXT": location, "KANIKO_NO_PUSH": "true", "SOURCE_DATE_EPOCH": "0", "NO_PROXY": "*",
		// What the AWS SDK would ask the machine for.
		"AWS_EC2_METADATA_DISABLED": "true",
	}
	owner, _, _ := awsKeys()
	maps.Copy(all, owner.env())
	maps.Copy(all, env)
	b := testenv.Build{Binary: binary, Env: all}
	if stdin != "" {
		b.Binary, b.Args = "/bin/sh", []string{"-c", `exec "$0" < "$1"`, binary, stdin}
	}
	return b.Run(t)
}

// digest is that of a build that must succeed and leave nothing.
func digest(t *testing.T, o testenv.Outcome) string {
	t.Helper()
	if o.Code != 0 {
		t.Fatalf("exit %d: %s", o.Code, o.Log)
	}
	if len(o.Left) > 0 {
		t.Errorf("left: %v", o.Left)
	}
	return o.Results["IMAGE_DIGEST"]
}

// TestOneDigest builds the same files from everywhere, with and without what an earlier build has left in the cache.
func TestOneDigest(t *testing.T) {
	w := newWorld(t)
	want := digest(t, build(t, w.dir, nil, ""))
	cache := testenv.Dir(t)
	for _, p := range w.places(t) {
		t.Run(p.name, func(t *testing.T) {
			if p.skip != "" {
				t.Skip(p.skip)
			}
			o := build(t, p.location, p.env, p.stdin)
			if got := digest(t, o); got != want {
				t.Errorf("another image:\n%s", o.Log)
			}
			if got := o.Results["SOURCE_COMMIT"]; got != p.commit {
				t.Errorf("the result says that the commit is %q, it is %q", got, p.commit)
			}
			env := map[string]string{"KANIKO_CACHE": "true", "KANIKO_CACHE_REPO": "oci:" + filepath.Join(cache, "layers")}
			for k, v := range p.env {
				env[k] = v
			}
			for range 2 {
				if got := digest(t, build(t, p.location, env, p.stdin)); got != want {
					t.Error("another image with a cache")
				}
			}
		})
	}
}

// TestDockerfileElsewhere takes the Dockerfile from a URL, and one that is not called so from the context.
func TestDockerfileElsewhere(t *testing.T) {
	w := newWorld(t)
	want := digest(t, build(t, w.dir, nil, ""))
	web := w.web(t, "", true)
	for _, p := range []struct{ location, dockerfile string }{
		{w.dir, web + "/Dockerfile"},
		{web + "/context.tar.gz", web + "/Dockerfile"},
		{web + "/context.tar.gz", filepath.Join(w.dir, "Dockerfile")},
		{web + "/context.tar.gz", "d/Other"},
		{"tar://" + filepath.Join(w.objects, "context.tar"), "d/Other"},
	} {
		if got := digest(t, build(t, p.location, map[string]string{"KANIKO_DOCKERFILE": p.dockerfile}, "")); got != want {
			t.Errorf("%s with %s: another image", p.location, p.dockerfile)
		}
	}
}

// TestSubPath takes a directory of what comes.
func TestSubPath(t *testing.T) {
	w := newWorld(t)
	env := map[string]string{"KANIKO_CONTEXT_SUB_PATH": "sub"}
	want := digest(t, build(t, w.dir, env, ""))
	for _, p := range w.places(t) {
		if p.skip == "" {
			for k, v := range p.env {
				env[k] = v
			}
			if got := digest(t, build(t, p.location, env, p.stdin)); got != want {
				t.Errorf("%s: another image", p.name)
			}
		}
	}
	for _, location := range []string{w.dir, "tar://" + filepath.Join(w.objects, "context.tar.gz"), w.web(t, "", true) + "/context.tar"} {
		if got := digest(t, build(t, location, map[string]string{"KANIKO_CONTEXT_SUB_PATH": "/sub/"}, "")); got != want {
			t.Errorf("%s with slashes: another image", location)
		}
	}
	git := w.git(t)
	if got := digest(t, build(t, git+"#main:sub", gitLogin(), "")); got != want {
		t.Error("the directory of the URL gives another image")
	}
}

// TestSourceLabels labels an image with what it was made of.
func TestSourceLabels(t *testing.T) {
	w := newWorld(t)
	git := w.git(t)
	plain := digest(t, build(t, git, gitLogin(), ""))
	env := gitLogin()
	env["KANIKO_SOURCE_LABELS"] = "true"
	labelled := digest(t, build(t, git, env, ""))
	delete(env, "KANIKO_SOURCE_LABELS")
	env["KANIKO_LABEL"] = "org.opencontainers.image.revision=" + w.commit + "\norg.opencontainers.image.source=" + strings.TrimSuffix(git, "#main")
	if own := digest(t, build(t, git, env, "")); labelled == plain || own != labelled {
		t.Errorf("without labels %s, with %s, with the same given %s", plain, labelled, own)
	}
}

func mustWrite(t *testing.T, name, data string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

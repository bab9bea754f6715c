// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// TestFlagsOnly builds by command lines as kaniko's users have them, without a variable of ours but the directories of the test.
func TestFlagsOnly(t *testing.T) {
	w := newWorld(t)
	directory := files{
		"Dockerfile":        "ARG BASE\nFROM ${BASE} AS build\nRUN echo made >/made\nFROM build\nARG TEXT\nRUN echo \"$TEXT\" >/text\n",
		"docker/Dockerfile": "FROM scratch AS first\nCOPY a.txt /\nFROM first\nCOPY a.txt /b.txt\n",
		"a.txt":             "a\n",
	}.write(t)
	out := testenv.Dir(t)
	for _, c := range []struct {
		name string
		env  map[string]string
		argv []string
		// notes are in the log.
		notes       []string
		annotations map[string]string
		files       map[string]string // what has been written below out, with DIGEST for the image's
	}{
		{name: "args of a pod", argv: []string{"--dockerfile=./docker/Dockerfile", "--context=dir://" + directory, "--destination=" + w.Host + "/flags:1"}},
		{name: "a job's script", env: map[string]string{"CI_TEXT": "x", "KANIKO_IMAGE_TAG": "1"}, argv: []string{
			"--context", directory, "--dockerfile", directory + "/Dockerfile", "--destination", w.Host + "/flags:1", "--destination", w.Host + "/flags:latest",
			"--build-arg", "BASE=" + w.base, "--build-arg", "TEXT=a,b c", "--build-arg", "CI_TEXT", "--force",
		}, notes: []string{"unknown variable: KANIKO_IMAGE_TAG"}},
		{name: "letters", argv: []string{"-c", directory, "-f", directory + "/docker/Dockerfile", "-d", w.Host + "/flags:1", "-v=warn", "--target=first"}},
		{name: "all that people write", argv: []string{
			"--context=" + directory, "--build-arg=BASE=" + w.base, "--destination=" + w.Host + "/flags:1", "--cache=true", "--cache-repo=" + w.Host + "/flags/cache",
			"--cache-ttl=24h", "--cache-copy-layers", "--cache-run-layers=true", "--snapshot-mode=redo", "--use-new-run", "--compressed-caching=false", "--cleanup", "--reproducible", "--label=a=b", "--annotation=org.example.a=b c",
			"--verbosity=debug", "--log-format=color", "--log-timestamp", "--image-fs-extract-retry=3", "--push-retry=5", "--image-download-retry", "5",
			"--skip-unused-stages=true", "--ignore-var-run", "--insecure-registry=" + w.Host, "--skip-tls-verify", "--digest-file=" + out + "/digest",
			"--image-name-with-digest-file=" + out + "/name", "--image-name-tag-with-digest-file=" + out + "/tag", "--compression=zstd", "--compression-level=3",
		}, notes: []string{"--snapshot-mode has no meaning here", "--use-new-run has no meaning here", "--cleanup has no meaning here"}, annotations: map[string]string{"org.example.a": "b c"}, files: map[string]string{
			"digest": "DIGEST", "name": w.Host + "/flags@DIGEST", "tag": w.Host + "/flags:1@DIGEST",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := testenv.Build{Binary: binary, Situation: testenv.DefaultRoot(), Env: c.env, Args: c.argv, Dir: directory}
			o := b.Run(t)
			image := mustSucceed(t, o, w.Host+"/flags:1")
			for _, note := range c.notes {
				if strings.Count(o.Log, note) != 1 {
					t.Errorf("%q is in the log %d times, not once:\n%s", note, strings.Count(o.Log, note), o.Log)
				}
			}
			digest, err := image.Digest()
			if err != nil {
				t.Fatal(err)
			}
			manifest, err := image.Manifest()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.annotations, manifest.Annotations); diff != "" {
				t.Errorf("annotations (-want +got):\n%s", diff)
			}
			for name, want := range c.files {
				got, err := os.ReadFile(filepath.Join(out, name))
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(strings.ReplaceAll(want, "DIGEST", digest.String()), strings.TrimSpace(string(got))); diff != "" {
					t.Errorf("%s (-want +got):\n%s", name, diff)
				}
			}
		})
	}
}

// TestPushSubcommand pushes what a build without a push has left, with a login made before.
func TestPushSubcommand(t *testing.T) {
	testenv.Need(t, "docker-registry")
	private := testenv.NewRegistry(t, testenv.RegistryOptions{User: "me", Password: "pass:word"})
	directory := files{"Dockerfile": "FROM scratch\nCOPY a.txt /\n", "a.txt": "a\n"}.write(t)
	out := testenv.Dir(t)
	env := map[string]string{"DOCKER_CONFIG": filepath.Join(out, "docker")}
	run := func(argv ...string) testenv.Outcome {
		t.Helper()
		return testenv.Build{Binary: binary, Situation: testenv.DefaultRoot(), Env: env, Args: argv, Dir: directory}.Run(t)
	}
	if o := run("--no-push", "--tar-path="+out+"/image.tar", "--oci-layout-path="+out+"/layout", "--destination="+private.Host+"/pushed:1"); o.Code != 0 {
		t.Fatalf("exit code %d\n%s", o.Code, o.Log)
	}
	mustFail(t, run("push", out+"/layout", "-d", private.Host+"/pushed:1"), 6, private.Host)
	if o := run("login", private.Host, "--username", "me", "--password", "pass:word"); o.Code != 0 {
		t.Fatalf("exit code %d\n%s", o.Code, o.Log)
	}
	digests := map[string]bool{}
	for _, source := range []string{"/layout", "/image.tar"} {
		o := run("push", out+source, "-d", private.Host+"/pushed:1")
		if o.Code != 0 || o.Results["IMAGE_URL"] != private.Host+"/pushed:1" {
			t.Fatalf("exit code %d, results %q\n%s", o.Code, o.Results, o.Log)
		}
		digests[o.Results["IMAGE_DIGEST"]] = true
	}
	if len(digests) == 0 || digests[""] {
		t.Errorf("digests %v", digests)
	}
}

// TestWarmerName: the same binary under another name fills the directory that a build then takes its base from.
func TestWarmerName(t *testing.T) {
	w := newWorld(t)
	dir := testenv.Dir(t)
	warmer := filepath.Join(dir, "warmer")
	if err := os.Symlink(binary, warmer); err != nil {
		t.Fatal(err)
	}
	cache := filepath.Join(dir, "cache")
	if err := os.Mkdir(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	o := testenv.Build{Binary: warmer, Situation: testenv.DefaultRoot(), Args: []string{"-c", cache, "-i", w.base, "--force"}}.Run(t)
	if o.Code != 0 {
		t.Fatalf("exit code %d\n%s", o.Code, o.Log)
	}
	blobs, err := filepath.Glob(filepath.Join(cache, "*"))
	if err != nil || len(blobs) == 0 {
		t.Fatalf("the warmer left nothing in its directory: %v\n%s", err, o.Log)
	}
	directory := files{"Dockerfile": "ARG BASE\nFROM ${BASE}\nRUN echo >/x\n"}.write(t)
	mustSucceed(t, testenv.Build{Binary: binary, Situation: testenv.DefaultRoot(), Args: []string{
		"--context=" + directory, "--build-arg=BASE=" + w.base, "--cache-dir=" + cache, "--destination=" + w.Host + "/warmed:1",
	}}.Run(t), w.Host+"/warmed:1")
}

// TestFlagsThatFail: the last line of the log says what to write.
func TestFlagsThatFail(t *testing.T) {
	for _, c := range []struct {
		name  string
		argv  []string
		cause string
	}{
		{"misspelt", []string{"--no-push", "--contxt=."}, "unknown flag --contxt (did you mean --context?)"},
		{"another image than asked for", []string{"--no-push", "--single-snapshot"}, "--single-snapshot: not supported"},
		{"no destination", []string{"--context=."}, "--destination is not set"},
		{"a boolean with a space", []string{"--no-push", "--cache", "true"}, "--name=true"},
	} {
		t.Run(c.name, func(t *testing.T) {
			mustFail(t, testenv.Build{Binary: binary, Args: c.argv}.Run(t), 2, c.cause)
		})
	}
}

// TestFlagsInPlace: the flag that chooses the isolation is seen before there is one.
func TestFlagsInPlace(t *testing.T) {
	w := newWorld(t)
	c := testenv.NewContainer(t, binary)
	c.Unconfined = true
	c.Mount(t, files{"Dockerfile": "ARG BASE\nFROM ${BASE}\nRUN echo >/x\n"}.write(t), "/workspace")
	o := testenv.Build{Container: c, Args: []string{"--isolation=inplace", "--context=/workspace", "--build-arg=BASE=" + w.base, "--destination=" + w.Host + "/inplace:1"}}.Run(t)
	mustSucceed(t, o, w.Host+"/inplace:1")
	if !strings.Contains(o.Log, "isolation: in place") {
		t.Errorf("not in place:\n%s", o.Log)
	}
}

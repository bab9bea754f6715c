// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// TestIndex builds for two platforms apart and puts the images together, in a repository that has neither.
func TestIndex(t *testing.T) {
	w := newWorld(t)
	directory := files{"Dockerfile": "FROM scratch\nARG TARGETARCH\nENV ARCH=${TARGETARCH}\nCOPY a /a\n", "a": "a\n"}.write(t)
	build := func(platform string) string {
		t.Helper()
		destination := w.Host + "/parts:" + strings.ReplaceAll(platform, "/", "-")
		o := testenv.Build{Binary: binary, Situation: testenv.Restricted(), Env: w.env(directory, destination, map[string]string{"KANIKO_PLATFORM": platform})}.Run(t)
		mustSucceed(t, o, destination)
		return w.Host + "/parts@" + o.Results["IMAGE_DIGEST"]
	}
	amd, arm := build("linux/amd64"), build("linux/arm64")
	destination := w.Host + "/whole:1"
	index := func(images ...string) testenv.Outcome {
		t.Helper()
		return testenv.Build{Binary: binary, Situation: testenv.Restricted(), Env: map[string]string{
			"KANIKO_MODE": "index", "KANIKO_DESTINATION": destination, "KANIKO_IMAGE": strings.Join(images, "\n"),
		}}.Run(t)
	}
	o := index(amd, arm)
	if o.Code != 0 {
		t.Fatalf("exit code %d\n%s", o.Code, o.Log)
	}
	mustBeClean(t, o)
	ref, err := name.ParseReference(destination, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	idx, err := remote.Index(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(idx); err != nil {
		t.Errorf("the index is not valid: %v", err)
	}
	m, err := idx.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range m.Manifests {
		got = append(got, fmt.Sprintf("%s %s", d.Platform, d.Digest))
	}
	want := fmt.Sprintf("[linux/amd64 %s linux/arm64 %s]", strings.SplitN(amd, "@", 2)[1], strings.SplitN(arm, "@", 2)[1])
	if fmt.Sprint(got) != want {
		t.Errorf("the index has %v, want %s", got, want)
	}
	digest, err := idx.Digest()
	if err != nil || o.Results["IMAGE_DIGEST"] != digest.String() || o.Results["IMAGE_URL"] != destination {
		t.Errorf("results %q, the index is %s (%v)", o.Results, digest, err)
	}
	for what, c := range map[string]struct {
		images []string
		code   int
		cause  string
	}{
		"the same platform twice": {[]string{amd, amd}, 2, "are both for linux/amd64"},
		"a tag":                   {[]string{w.Host + "/parts:linux-amd64", arm}, 2, "not an image by digest"},
		"an index":                {[]string{w.Host + "/whole@" + digest.String(), arm}, 3, ""},
		"nothing there":           {[]string{w.Host + "/parts@sha256:" + strings.Repeat("0", 64)}, 6, "404"},
	} {
		o := index(c.images...)
		if o.Code != c.code || !strings.Contains(o.Cause, c.cause) || len(o.Results) != 0 && o.Results["IMAGE_DIGEST"] != "" {
			t.Errorf("%s: exit code %d, results %q, %s; want %d and %q", what, o.Code, o.Results, o.Cause, c.code, c.cause)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// fileOf reads one file of an image.
func fileOf(t *testing.T, image v1.Image, name string) string {
	t.Helper()
	rc := mutate.Extract(image)
	defer rc.Close()
	for tr := tar.NewReader(rc); ; {
		h, err := tr.Next()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if h.Name == name {
			b, err := io.ReadAll(tr)
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		}
	}
}

// TestRace: builds that run at the same time disagree about what a RUN makes. Whatever the cache keeps of that, no image has the
// beginning of one and the end of another.
func TestRace(t *testing.T) {
	w := newWorld(t)
	dir := testenv.Dir(t)
	project := files{"Dockerfile": "ARG BASE\nFROM ${BASE}\nRUN cat /proc/sys/kernel/random/uuid >/one\nCOPY a /a\nRUN cp /one /two\nCOPY b /b\nRUN cat /one /two >/three\n", "a": "a", "b": "b"}
	project.write(t, dir)
	for _, place := range []string{"registry", "directory"} {
		repo := w.host + "/race-cache"
		if place == "directory" {
			repo = "oci:" + filepath.Join(testenv.Dir(t), "cache")
		}
		env := cached(repo)
		check := func(t *testing.T, n string) string {
			t.Helper()
			w.mustBuild(t, dir, w.host+"/race/"+place+":"+n, env)
			image := pull(t, w.host+"/race/"+place+":"+n)
			one, two, three := fileOf(t, image, "one"), fileOf(t, image, "two"), fileOf(t, image, "three")
			if one != two || three != one+two {
				t.Errorf("one image of several builds: %q, %q, %q", one, two, three)
			}
			return one
		}
		for round := range 3 {
			t.Run(fmt.Sprintf("%s %d", place, round), func(t *testing.T) {
				for n := range 3 {
					t.Run(fmt.Sprint(n), func(t *testing.T) {
						t.Parallel()
						check(t, fmt.Sprintf("%d-%d", round, n))
					})
				}
			})
			if after := check(t, fmt.Sprintf("after-%d", round)); after != check(t, fmt.Sprintf("again-%d", round)) {
				t.Error("the cache was not used")
			}
			// The next round must not find what this one has.
			project["Dockerfile"] += fmt.Sprintf("# %d\n", round)
			project["Dockerfile"] = strings.Replace(project["Dockerfile"], "RUN cat /proc", "RUN true; cat /proc", 1)
			project.write(t, dir)
		}
	}
}

// TestKilled: builds that share a directory are killed at any instant. What is left is whole, and serves.
func TestKilled(t *testing.T) {
	w := newWorld(t)
	dir := testenv.Dir(t)
	several(9).write(t, dir)
	cacheDir := filepath.Join(testenv.Dir(t), "cache")
	env := cached("oci:" + cacheDir)
	want := w.mustBuild(t, dir, w.host+"/killed:want", map[string]string{"SOURCE_DATE_EPOCH": epoch}).digest
	rounds := 2
	if *full {
		rounds = 30
	}
	t.Run("builds", func(t *testing.T) {
		for n := range 8 {
			t.Run(fmt.Sprint(n), func(t *testing.T) {
				t.Parallel()
				rnd := rand.New(rand.NewPCG(*seed, uint64(n)))
				for round := range rounds {
					b := testenv.Build{
						Binary: binary, Situation: testenv.PrivilegedRoot(), SignalAt: fmt.Sprintf("[%d/10]", 1+rnd.IntN(11)), Signal: syscall.SIGKILL,
						Env: with(env, "KANIKO_CONTEXT", dir, "KANIKO_DESTINATION", fmt.Sprintf("%s/killed:%d-%d", w.host, n, round), "KANIKO_BUILD_ARG", "BASE="+w.base),
					}.Run(t)
					if b.Code != 128+int(syscall.SIGKILL) && (b.Code != 0 || b.Results["IMAGE_DIGEST"] != want) {
						t.Errorf("exit code %d, %s, want %s\n%s", b.Code, b.Results, want, b.Log)
					}
				}
			})
		}
	})
	b := w.mustBuild(t, dir, w.host+"/killed:last", env)
	again := w.mustBuild(t, dir, w.host+"/killed:again", env)
	if b.digest != want || again.digest != want || len(again.made) > 0 {
		t.Errorf("afterwards %s and %s, want %s; made %q", b.digest, again.digest, want, again.made)
	}
	blobs, err := os.ReadDir(filepath.Join(cacheDir, "blobs", "sha256"))
	if err != nil {
		t.Fatal(err)
	}
	blobs = slices.DeleteFunc(blobs, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), ".") })
	for _, e := range blobs {
		b, err := os.ReadFile(filepath.Join(cacheDir, "blobs", "sha256", e.Name()))
		if sum := sha256.Sum256(b); err != nil || hex.EncodeToString(sum[:]) != e.Name() {
			t.Errorf("blob %s is not whole: %v", e.Name(), err)
		}
	}
}

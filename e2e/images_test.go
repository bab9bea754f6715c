// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// oracle makes BuildKit write the expectations of testdata/images anew, so that they are not our own opinion.
var oracle = flag.Bool("oracle", false, "rewrite testdata/images with what BuildKit makes")

// picture is one file of testdata/images: a build context with its Dockerfile, and what BuildKit made of it. Its comment
// holds lines "needs run" and "needs ids".
type picture struct {
	name, path  string
	archive     *txtar.Archive
	context     files
	tree        string
	config      string
	runs, ids   bool
	fromScratch bool
}

func pictures(t *testing.T) []picture {
	t.Helper()
	paths, err := filepath.Glob("testdata/images/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no expectations: %v", err)
	}
	list := make([]picture, 0, len(paths))
	for _, path := range paths {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		p := picture{name: strings.TrimSuffix(filepath.Base(path), ".txtar"), path: path, archive: archive, context: files{}}
		comment := string(archive.Comment)
		p.ids = strings.Contains(comment, "\nneeds ids\n")
		p.runs = p.ids || strings.Contains(comment, "\nneeds run\n")
		p.fromScratch = strings.Contains(comment, "\nfrom scratch\n")
		for _, f := range archive.Files {
			switch f.Name {
			case "want/tree":
				p.tree = string(f.Data)
			case "want/config":
				p.config = string(f.Data)
			default:
				p.context[f.Name] = string(f.Data)
			}
		}
		list = append(list, p)
	}
	return list
}

func (p picture) base(w world) v1.Image {
	if p.fromScratch {
		return scratch()
	}
	return w.baseImage
}

// TestImages builds every picture in every situation. Where it can be built the image is the expected one, and its digest is
// the same everywhere; where it cannot, the build ends with the exit code for what the environment refuses.
func TestImages(t *testing.T) {
	w := newWorld(t)
	if *oracle {
		draw(t, w)
	}
	situations := []testenv.Situation{testenv.PrivilegedRoot(), testenv.DefaultRoot(), testenv.WithSubordinateIDs(), testenv.SingleID(), testenv.Restricted()}
	for _, p := range pictures(t) {
		t.Run(p.name, func(t *testing.T) {
			directory := p.context.write(t)
			digests := map[string]string{}
			for _, s := range situations {
				t.Run(s.Name, func(t *testing.T) {
					destination := w.Host + "/images/" + p.name + ":" + s.Name
					o := testenv.Build{Binary: binary, Situation: s, Env: w.env(directory, destination, map[string]string{"KANIKO_REPRODUCIBLE": "true"})}.Run(t)
					if p.runs && !s.Runs {
						mustFail(t, o, 7, "RUN")
						return
					}
					if p.ids && !s.AllIDs {
						if o.Code == 0 {
							t.Errorf("a RUN that needs other ids passed with one id:\n%s", o.Log)
						}
						return
					}
					image := mustSucceed(t, o, destination)
					compare(t, p, image, p.base(w))
					digests[o.Results["IMAGE_DIGEST"]] += " " + s.Name
				})
			}
			if len(digests) > 1 {
				t.Errorf("the digest depends on the situation: %v", digests)
			}
		})
	}
}

func compare(t *testing.T, p picture, image, base v1.Image) {
	t.Helper()
	tree, err := testenv.Describe(image, base)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(p.tree, "\n"), strings.Split(tree, "\n")); diff != "" {
		t.Errorf("files (-BuildKit +ours):\n%s", diff)
	}
	config, err := testenv.DescribeConfig(image, base)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(p.config, "\n"), strings.Split(config, "\n")); diff != "" {
		t.Errorf("configuration and history (-BuildKit +ours):\n%s", diff)
	}
}

// draw lets BuildKit build every picture and keeps what it made.
func draw(t *testing.T, w world) {
	t.Helper()
	buildkit := testenv.NewBuildKit(t, "../.ci/tool", w.Host)
	for _, p := range pictures(t) {
		destination := w.Host + "/oracle/" + p.name + ":1"
		buildkit.Build(t, p.context.write(t), destination, "build-arg:BASE="+w.base)
		image, err := testenv.Pull(context.Background(), destination)
		if err != nil {
			t.Fatal(err)
		}
		var want [2]string
		if want[0], err = testenv.Describe(image, p.base(w)); err != nil {
			t.Fatal(err)
		}
		if want[1], err = testenv.DescribeConfig(image, p.base(w)); err != nil {
			t.Fatal(err)
		}
		kept := &txtar.Archive{Comment: p.archive.Comment}
		for _, f := range p.archive.Files {
			if !strings.HasPrefix(f.Name, "want/") {
				kept.Files = append(kept.Files, f)
			}
		}
		kept.Files = append(kept.Files, txtar.File{Name: "want/tree", Data: []byte(want[0])}, txtar.File{Name: "want/config", Data: []byte(want[1])})
		if err := os.WriteFile(p.path, txtar.Format(kept), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// mustFail holds an outcome to what every failure owes: its exit code, one cause line as the last, no results, nothing left.
func mustFail(t *testing.T, o testenv.Outcome, code int, cause ...string) {
	t.Helper()
	if o.Code != code {
		t.Errorf("exit code %d, want %d", o.Code, code)
	}
	for _, text := range cause {
		if !strings.Contains(o.Cause, text) {
			t.Errorf("the last line is %q, which does not contain %q", o.Cause, text)
		}
	}
	if len(o.Results) > 0 {
		t.Errorf("a failed build wrote results: %q", o.Results)
	}
	mustBeClean(t, o)
	if t.Failed() {
		t.Logf("the log:\n%s", o.Log)
	}
}

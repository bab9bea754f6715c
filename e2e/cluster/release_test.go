// SPDX-License-Identifier: Apache-2.0

//go:build cluster

package cluster

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/kaniko-go/kaniko-go/e2e/cluster/node"
	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// releaseLimit is for make dist and make bundle where nothing of them was compiled before.
const releaseLimit = 15 * time.Minute

// release is what a maintainer publishes, with the images and the bundle in the registry from which the cluster takes what is named ghcr.io/...
type release struct {
	dist, bundle string
	digest       string // of the step image
}

// publish makes a release by the commands with which a maintainer makes it.
func publish(t *testing.T) release {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), releaseLimit)
	defer cancel()
	r := release{dist: t.TempDir(), bundle: node.Registry + "/kaniko-go/bundle:v0.1.0"}
	debian, err := testenv.CacheDir("step-images")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(debian, filepath.Join(r.dist, "debian")); err != nil {
		t.Fatal(err)
	}
	command := func(name string, args ...string) string {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Dir = "../.."
		cmd.Env = append(os.Environ(), "KANIKO_DIR="+t.TempDir(), "KANIKO_INSECURE_REGISTRY="+node.Registry)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out.String())
		}
		return out.String()
	}
	out := command("make", "bundle", "DIST="+r.dist, "IMAGE_ARCHES="+runtime.GOARCH, "BUNDLE="+r.bundle)
	if !strings.Contains(out, "bundle "+strings.TrimSuffix(r.bundle, ":v0.1.0")+"@sha256:") {
		t.Errorf("make bundle does not say what it has pushed:\n%s", out)
	}
	image := node.Registry + "/kaniko-go/kaniko-go:v0.1.0"
	command("bin/kaniko-go", "push", filepath.Join(r.dist, "plain.oci"), "-d", image)
	p := &place{t: t}
	r.digest = p.digest(image)
	return r
}

// What a release consists of installs and builds as it is: no file of it is changed, and its step image is pulled by digest.
func TestRelease(t *testing.T) {
	t.Parallel()
	needFull(t)
	r := publish(t)
	unpacked := r.unpack(t)
	builds := func(t *testing.T, p *place, taskRef string) {
		t.Helper()
		p.files("context", hello(""))
		destination := node.Registry + "/" + p.namespace + "/released:1"
		text := strings.Replace(taskRun(destination, "", "INSECURE_REGISTRIES", node.Registry), "{name: kaniko-go}", taskRef, 1)
		run := p.tekton("taskrun", text)
		p.pushed(run, destination)
		if got := p.kubectl("", "get", "pod", run.Status.PodName, "-n", p.namespace, "-o", "jsonpath={.spec.containers[*].image}"); got != "ghcr.io/kaniko-go/kaniko-go:v0.1.0@"+r.digest {
			t.Errorf("the step runs %s, what was published is %s", got, r.digest)
		}
	}
	installed := func(args ...string) func(*testing.T, *place) {
		return func(t *testing.T, p *place) {
			t.Helper()
			p.kubectl("", append([]string{"apply", "-n", p.namespace}, args...)...)
			builds(t, p, "{name: kaniko-go}")
		}
	}
	bundled := func(kind string) string {
		return "{resolver: bundles, params: [{name: bundle, value: " + r.bundle + "}, {name: kind, value: " + kind + "}, {name: name, value: kaniko-go}]}"
	}
	for _, way := range []struct {
		name string
		run  func(*testing.T, *place)
	}{
		{"catalog.yaml", installed("-f", filepath.Join(r.dist, "catalog.yaml"))},
		{"resources.tar.gz", installed("-R", "-f", unpacked)},
		{"the layout of tektoncd catalog", func(t *testing.T, p *place) {
			t.Helper()
			installed("-f", filepath.Join(r.dist, "task/kaniko-go/0.1/kaniko-go.yaml"))(t, p)
			p.runSample(readFile(t, filepath.Join(r.dist, "task/kaniko-go/0.1/tests/run.yaml")), "")
		}},
		{"task of the bundle", func(t *testing.T, p *place) { t.Helper(); builds(t, p, bundled("task")) }},
		{"step of the bundle", func(t *testing.T, p *place) {
			t.Helper()
			p.files("context", hello(""))
			destination := node.Registry + "/" + p.namespace + "/step:1"
			p.pushed(p.tekton("taskrun", strings.NewReplacer("$STEP", bundled("stepaction"), "$IMAGE", destination).Replace(stepRun)), destination)
		}},
		{"kaniko-go-argo.yaml", func(t *testing.T, p *place) {
			t.Helper()
			p.kubectl("", "apply", "-n", p.namespace, "-f", filepath.Join(r.dist, "kaniko-go-argo.yaml"))
			destination := node.Registry + "/" + p.namespace + "/argo:1"
			w := p.argo(buildWorkflow(destination, p.serve(hello("")), "insecure-registries", node.Registry))
			p.succeeded(w)
			p.imageOutputs(w.node("build").outputs(), destination)
		}},
	} {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			way.run(t, newPlace(t, "baseline"))
		})
	}
}

// stepRun is a TaskRun whose only step is the StepAction.
const stepRun = `apiVersion: tekton.dev/v1
kind: TaskRun
metadata: {generateName: step-}
spec:
  workspaces: [{name: source, configMap: {name: context}}]
  taskSpec:
    workspaces: [{name: source}]
    results:
    - {name: IMAGE_DIGEST, value: $(steps.build.results.IMAGE_DIGEST)}
    - {name: IMAGE_URL, value: $(steps.build.results.IMAGE_URL)}
    - {name: IMAGE_REF, value: $(steps.build.results.IMAGE_REF)}
    - {name: IMAGES, value: $(steps.build.results.IMAGES)}
    volumes: [{name: work, emptyDir: {}}]
    steps:
    - name: build
      ref: $STEP
      params: [{name: IMAGE, value: "$IMAGE"}, {name: SOURCE_PATH, value: $(workspaces.source.path)}, {name: INSECURE_REGISTRIES, value: "$REGISTRY"}]
`

// unpack unpacks resources.tar.gz.
func (r release) unpack(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	f, err := os.Open(filepath.Join(r.dist, "resources.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	zip, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for archive := tar.NewReader(zip); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return dir
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, filepath.Clean("/"+h.Name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, text, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
}

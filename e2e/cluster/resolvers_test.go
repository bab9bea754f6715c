// SPDX-License-Identifier: Apache-2.0

//go:build cluster

package cluster

import (
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kaniko-go/kaniko-go/e2e/cluster/node"
)

// A task that is not in the namespace: from another one, from a git repository, from a bundle in a registry.
func TestResolvers(t *testing.T) {
	t.Parallel()
	needFull(t)
	p := newPlace(t, "baseline")
	shared := newPlace(t, "baseline")
	shared.install("../../tasks/kaniko-go/kaniko-go.yaml")
	p.files("context", hello(""))
	task := p.local(readFile(t, "../../tasks/kaniko-go/kaniko-go.yaml"))
	for _, way := range []struct{ name, reference string }{
		{"cluster", "{resolver: cluster, params: [{name: kind, value: task}, {name: name, value: kaniko-go}, {name: namespace, value: " + shared.namespace + "}]}"},
		{"git", "{resolver: git, params: [{name: url, value: " + p.serveGit(map[string]string{"tasks/kaniko-go/kaniko-go.yaml": task}) + "}, {name: revision, value: main}, {name: pathInRepo, value: tasks/kaniko-go/kaniko-go.yaml}]}"},
		{"bundles", "{resolver: bundles, params: [{name: bundle, value: " + p.bundle(task) + "}, {name: kind, value: task}, {name: name, value: kaniko-go}]}"},
	} {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			p := p.with(t)
			destination := node.Registry + "/" + p.namespace + "/" + way.name + ":1"
			p.pushed(p.tekton("taskrun", strings.Replace(taskRun(destination, ""), "{name: kaniko-go}", way.reference, 1)), destination)
		})
	}
}

// bundle pushes the Task as a Tekton bundle whose image is the cluster's.
func (p *place) bundle(task string) (reference string) {
	p.t.Helper()
	reference = node.Registry + "/" + p.namespace + "/bundle:1"
	made, err := mutate.Append(empty.Image, mutate.Addendum{
		Layer:       static.NewLayer([]byte(task), types.DockerLayer),
		Annotations: map[string]string{"dev.tekton.image.apiVersion": "v1", "dev.tekton.image.kind": "task", "dev.tekton.image.name": "kaniko-go"},
	})
	if err != nil {
		p.t.Fatal(err)
	}
	ref, err := name.ParseReference(reference)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := remote.Write(ref, made, remote.WithContext(p.t.Context())); err != nil {
		p.t.Fatal(err)
	}
	return reference
}

// needFull leaves a test that takes long to the full run; it is not counted as skipped work of the core.
func needFull(t *testing.T) {
	t.Helper()
	if !*full {
		t.Skip("only with -full (make full-cluster)")
	}
}

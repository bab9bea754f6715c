// SPDX-License-Identifier: Apache-2.0

//go:build cluster

package cluster

import (
	"strings"
	"testing"

	"github.com/kaniko-go/kaniko-go/e2e/cluster/node"
)

// A task that is not in the namespace: from another one, and from a git repository. From a bundle: TestRelease.
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
	} {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			p := p.with(t)
			destination := node.Registry + "/" + p.namespace + "/" + way.name + ":1"
			p.pushed(p.tekton("taskrun", strings.Replace(taskRun(destination, ""), "{name: kaniko-go}", way.reference, 1)), destination)
		})
	}
}

// needFull leaves a test that takes long to the full run; it is not counted as skipped work of the core.
func needFull(t *testing.T) {
	t.Helper()
	if !*full {
		t.Skip("only with -full (make full-cluster)")
	}
}

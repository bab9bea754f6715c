// SPDX-License-Identifier: Apache-2.0

//go:build cluster

package cluster

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/kaniko-go/kaniko-go/e2e/cluster/node"
)

// attempts are the nodes of a template's tries.
func (w workflow) attempts() (messages []string) {
	for _, n := range w.Status.Nodes {
		if n.Type == "Pod" {
			messages = append(messages, n.Phase+" "+n.Message)
		}
	}
	return messages
}

// The sample of a retryStrategy tries again where the registry is away, and only there. The registry that it takes away is nobody else's.
func TestRetry(t *testing.T) {
	t.Parallel()
	needFull(t)
	p := newPlace(t, "baseline")
	p.team()
	sample := readFile(t, "../../workflows/kaniko-go/samples/retry.yaml")
	t.Run("registry away", func(t *testing.T) {
		p := p.with(t)
		team := node.TransientRegistry + "/" + p.namespace
		p.survives(func() string { return p.create(siteText(sample, team, "", p.serveGit(hello("")))) }, team+"/app:v1")
	})
	t.Run("registry away, split", func(t *testing.T) {
		p := p.with(t)
		// The exit code of its node is that of the last container, and the message that of the first that failed: here the one that fetches the base.
		const expression = "lastRetry.message contains 'Error (exit code 5)'"
		if !strings.Contains(readFile(t, "../../docs/argo.md"), expression) {
			t.Errorf("the documentation does not have %s", expression)
		}
		team := node.TransientRegistry + "/" + p.namespace + "/split"
		p.platformImage(team+"/base", runtime.GOARCH)
		url := p.serveGit(map[string]string{"Dockerfile": "FROM " + team + "/base:" + runtime.GOARCH + "\nCOPY note /\n", "note": "a note\n"})
		split := strings.NewReplacer("template: build\n", "template: split\n", "lastRetry.exitCode == '5'", expression).Replace(sample)
		p.survives(func() string { return p.create(siteText(split, team, "", url)) }, team+"/app:v1")
	})
	t.Run("registry away, Pipeline", func(t *testing.T) {
		p := p.with(t)
		p.files("context", hello(""))
		destination := node.TransientRegistry + "/" + p.namespace + "/pipeline:1"
		p.node.Stop(node.TransientRegistryService)
		t.Cleanup(p.startRegistry)
		name := p.create(strings.ReplaceAll(retried, "$IMAGE", destination))
		p.await(runLimit, "a failed attempt", func() (string, bool) {
			out := p.kubectl("", "get", "taskrun", "-l", "tekton.dev/pipelineRun="+name, "-n", p.namespace, "-o", "jsonpath={.items[*].status.retriesStatus[*].steps[*].terminated.exitCode}")
			return out, strings.Contains(out, "5")
		})
		p.startRegistry()
		if r := p.awaitRun("pipelinerun", name); !r.succeeded() || p.digest(destination) == "" {
			t.Errorf("%s: %s\n%s", r.reason(), r.message(), p.runLogs(r))
		}
	})
	t.Run("registry away for a while", func(t *testing.T) {
		p := p.with(t)
		p.files("context", hello("RUN echo waiting && sleep 8"))
		destination := node.TransientRegistry + "/" + p.namespace + "/while:1"
		name := p.create(strings.Replace(taskRun(destination, "", "SKIP_PUSH_PERMISSION_CHECK", "true"), "configMap: {name: context}}\n", "configMap: {name: context}}\n  - {name: dockerconfig, secret: {secretName: registry-credentials}}\n", 1))
		p.inRUN(p.podOf(name), "step-build-and-push")
		p.node.Stop(node.TransientRegistryService)
		t.Cleanup(p.startRegistry)
		time.Sleep(20 * time.Second) // as long as it is away
		p.startRegistry()
		p.pushed(p.awaitRun("taskrun", name), destination)
	})
	t.Run("RUN failure", func(t *testing.T) {
		p := p.with(t)
		w := p.argo(siteText(sample, node.PrivateRegistry+"/"+p.namespace+"/never", "", p.serveGit(map[string]string{"Dockerfile": "FROM $BASE\nRUN false\n"})))
		if got := w.attempts(); w.Status.Phase != "Failed" || len(got) != 1 || !strings.Contains(got[0], "exit code 4") {
			t.Errorf("%s after %q", w.Status.Phase, got)
		}
	})
}

// retried is a Pipeline that tries a build again.
const retried = `apiVersion: tekton.dev/v1
kind: PipelineRun
metadata: {generateName: retried-}
spec:
  workspaces: [{name: source, configMap: {name: context}}, {name: credentials, secret: {secretName: registry-credentials}}]
  pipelineSpec:
    workspaces: [{name: source}, {name: credentials}]
    tasks:
    - name: build
      retries: 3
      taskRef: {name: kaniko-go}
      params: [{name: IMAGE, value: "$IMAGE"}]
      workspaces: [{name: source, workspace: source}, {name: dockerconfig, workspace: credentials}]
`

// survives takes the registry away until an attempt of a Workflow has failed for it; then the Workflow succeeds.
func (p *place) survives(create func() string, destination string) {
	p.t.Helper()
	p.node.Stop(node.TransientRegistryService)
	p.t.Cleanup(p.startRegistry)
	name := create()
	var w workflow
	p.await(runLimit, "a failed attempt", func() (string, bool) {
		w = workflow{}
		p.object("workflow", name, &w)
		return fmt.Sprintf("%+v", w.Status), strings.Contains(strings.Join(w.attempts(), "\n"), "exit code 5")
	})
	p.startRegistry()
	w = p.awaitWorkflow(name)
	p.succeeded(w)
	if p.digest(destination) == "" || len(w.attempts()) < 2 {
		p.t.Errorf("image %q after %q", p.digest(destination), w.attempts())
	}
}

func (p *place) startRegistry() {
	p.t.Helper()
	if err := p.node.Start(node.TransientRegistryService); err != nil {
		p.t.Error(err)
	}
}

// keeper permits the controller to keep outputs in ConfigMaps of its own namespace, which its installation does not.
const keeper = `apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: keep-outputs, namespace: argo}
rules: [{apiGroups: [""], resources: [configmaps], verbs: [get, create, update]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: keep-outputs, namespace: argo}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: keep-outputs}
subjects: [{kind: ServiceAccount, name: argo, namespace: argo}]
`

// A build that was made for a commit is not made again for it.
func TestMemoize(t *testing.T) {
	t.Parallel()
	needFull(t)
	p := newPlace(t, "baseline")
	p.team()
	p.kubectl(keeper, "apply", "-f", "-")
	url := p.serveGit(hello(""))
	team := node.PrivateRegistry + "/" + p.namespace
	commit := p.headOf(url)
	text := strings.ReplaceAll(siteText(readFile(t, "../../workflows/kaniko-go/samples/memoize.yaml"), team, "", url), "0000000000000000000000000000000000000001", commit)
	first := p.argo(text)
	p.succeeded(first)
	second := p.argo(text)
	p.succeeded(second)
	if len(first.attempts()) != 1 || len(second.attempts()) != 0 {
		t.Errorf("pods of the first run %q, of the second %q", first.attempts(), second.attempts())
	}
	if p.digest(team+"/app:"+commit) == "" {
		t.Errorf("nothing at %s/app:%s", team, commit)
	}
}

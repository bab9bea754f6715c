// SPDX-License-Identifier: Apache-2.0

//go:build cluster

package cluster

import (
	"fmt"
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

// The sample of a retryStrategy tries again where the registry is away, and only there. It is alone on the node, for it takes the registry away.
func TestRetry(t *testing.T) {
	needFull(t)
	p := newPlace(t, "baseline")
	p.team()
	sample := readFile(t, "../../workflows/kaniko-go/samples/retry.yaml")
	t.Run("registry away", func(t *testing.T) {
		p := p.with(t)
		team := node.PrivateRegistry + "/" + p.namespace
		p.node.Stop(node.PrivateRegistryService)
		t.Cleanup(p.startRegistry)
		name := p.create(siteText(sample, team, "", p.serveGit(hello(""))))
		var w workflow
		p.await(runLimit, "a failed attempt", func() (string, bool) {
			w = workflow{}
			p.object("workflow", name, &w)
			return fmt.Sprintf("%+v", w.Status), strings.Contains(strings.Join(w.attempts(), "\n"), "exit code 5")
		})
		p.startRegistry()
		w = p.awaitWorkflow(name)
		p.succeeded(w)
		if p.digest(team+"/app:v1") == "" || len(w.attempts()) < 2 {
			t.Errorf("image %q after %q", p.digest(team+"/app:v1"), w.attempts())
		}
	})
	t.Run("registry away for a while", func(t *testing.T) {
		p := p.with(t)
		p.files("context", hello("RUN echo waiting && sleep 8"))
		destination := node.PrivateRegistry + "/" + p.namespace + "/while:1"
		name := p.create(strings.Replace(taskRun(destination, "", "SKIP_PUSH_PERMISSION_CHECK", "true"), "configMap: {name: context}}\n", "configMap: {name: context}}\n  - {name: dockerconfig, secret: {secretName: registry-credentials}}\n", 1))
		p.inRUN(p.podOf(name), "step-build-and-push")
		p.node.Stop(node.PrivateRegistryService)
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

func (p *place) startRegistry() {
	p.t.Helper()
	if err := p.node.Start(node.PrivateRegistryService); err != nil {
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

// SPDX-License-Identifier: Apache-2.0

//go:build cluster

package cluster

import (
	"encoding/base64"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/kaniko-go/kaniko-go/e2e/cluster/node"
)

// search is a RUN that looks for the credential in every file that it can read, and in what processes were started with. The pattern is put together
// there, so that only the pattern's own file may be found.
func search() map[string]string {
	auth := base64.StdEncoding.EncodeToString([]byte(node.User + ":" + node.Password))
	return map[string]string{"Dockerfile": fmt.Sprintf(`FROM $BASE
RUN printf '%%s%%s' '%s' '%s' > /tmp/pattern; \
  for top in /*; do case $top in /proc|/sys|/dev) ;; *) grep -rlsF -f /tmp/pattern $top;; esac; done > /found; \
  for file in /proc/[0-9]*/environ /proc/[0-9]*/cmdline; do grep -lsF -f /tmp/pattern $file; done >> /found; rm /tmp/pattern; true
ENTRYPOINT ["/bin/cat", "/found"]
`, auth[:8], auth[8:]), "note": "Argo makes of a tar with a single entry that entry, not a directory.\n"}
}

// The container that runs the Dockerfile has no credential of the split Task and of the split template, also where RUN has no root of its own. What
// makes it so in Tekton is an account without registry secrets: the counter-example has one with them, which Tekton gives to every step. That of Argo is
// the template that is not split.
func TestSplitHidesCredentials(t *testing.T) {
	t.Parallel()
	needFull(t)
	p := newPlace(t, "baseline")
	p.team()
	p.files("context", search())
	p.apply("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: clean}\n")
	url := p.serve(search())
	destination := func(name string) string { return fmt.Sprintf("%s/%s/%s:1", node.PrivateRegistry, p.namespace, name) }
	task := func(account string) func(p *place) {
		return func(p *place) {
			text := strings.Replace(taskRun(destination(account), "  serviceAccountName: "+account+"\n  podTemplate: {automountServiceAccountToken: false, securityContext: {seccompProfile: {type: RuntimeDefault}}}\n"), "{name: kaniko-go}", "{name: kaniko-go-split}", 1)
			p.pushed(p.tekton("taskrun", text), destination(account))
		}
	}
	template := func(name string, parameters ...string) func(p *place) {
		return func(p *place) {
			text := strings.Replace(buildWorkflow(destination(name), url, parameters...), "template: build}", "template: "+name+"}", 1)
			w := p.argo(text + "  securityContext: {seccompProfile: {type: RuntimeDefault}}\n")
			p.succeeded(w)
			p.imageOutputs(w.node("build").outputs(), destination(name))
		}
	}
	for _, c := range []struct {
		name, image string
		build       func(p *place)
		found       bool
	}{
		{"account without secrets", "clean", task("clean"), false},
		{"account with secrets", "builder", task("builder"), true},
		{"Argo, split", "split", template("split", "pull-secret", "registry-pull", "push-secret", "registry-push"), false},
		{"Argo, not split", "build", template("build", "docker-config", "registry-push"), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := p.with(t)
			c.build(p)
			out := strings.ReplaceAll(p.runImage(destination(c.image)), "/tmp/pattern\n", "")
			if (out != "") != c.found {
				t.Errorf("RUN found the credential in %q", out)
			}
		})
	}
}

// The message of a split build's node is the cause, in whichever of its containers that is.
func TestSplitFailures(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "baseline")
	p.install("../../workflows/kaniko-go/kaniko-go.yaml")
	p.credentials("registry-pull", node.Password)
	p.credentials("registry-push", "not-the-password")
	for _, c := range []struct{ container, dockerfile, code, cause string }{
		{"bases", "FROM $REGISTRY/nobody/nothing:1\n", "6", "nobody/nothing:1"},
		{"build", "FROM $BASE\nRUN false\n", "4", "Dockerfile:2"},
		{"main", good, "6", node.PrivateRegistry},
	} {
		url := p.serve(map[string]string{"Dockerfile": c.dockerfile, "note": "a note\n"})
		t.Run(c.container, func(t *testing.T) {
			t.Parallel()
			p := p.with(t)
			text := buildWorkflow(node.PrivateRegistry+"/"+p.namespace+"/split:1", url)
			w := p.argo(strings.Replace(text, "template: build}", "template: split}", 1))
			message := w.node("build").Message
			if w.Status.Phase != "Failed" || !strings.HasPrefix(message, c.container+": Error (exit code "+c.code+"): ") || !strings.Contains(message, c.cause) {
				t.Errorf("workflow %s, message %q: wanted %s, exit code %s and %q", w.Status.Phase, message, c.container, c.code, c.cause)
			}
		})
	}
}

// Builds that begin at once and share a cache in a registry all make the same image.
func TestTenAtOnce(t *testing.T) {
	t.Parallel()
	needFull(t)
	p := newPlace(t, "baseline")
	p.install("../../tasks/kaniko-go/kaniko-go.yaml")
	p.files("context", hello("RUN echo more > /more\nRUN cat /more /greeting > /both"))
	repository := node.Registry + "/" + p.namespace
	digests := make([]string, 10)
	var work sync.WaitGroup
	for i := range digests {
		destination := fmt.Sprintf("%s/shared-%d:1", repository, i)
		name := p.create(taskRun(destination, "", "CACHE", "true", "CACHE_REPO", repository+"/cache", "REPRODUCIBLE", "true"))
		work.Go(func() {
			r := p.awaitRun("taskrun", name)
			digests[i] = p.pushed(r, destination)
		})
	}
	work.Wait()
	for _, digest := range digests {
		if digest != digests[0] {
			t.Errorf("digests: %q", digests)
			break
		}
	}
}

// A build that uses more than its pod may is ended by the kernel or by the kubelet; nothing of it is pushed.
func TestTooMuch(t *testing.T) {
	t.Parallel()
	needFull(t)
	p := newPlace(t, "baseline")
	p.install("../../tasks/kaniko-go/kaniko-go.yaml")
	limited := func(resource, size string) string {
		return fmt.Sprintf("  stepSpecs: [{name: build-and-push, computeResources: {limits: {%s: %s}}}]\n", resource, size)
	}
	destination := func(name string) string { return node.Registry + "/" + p.namespace + "/" + name + ":1" }
	t.Run("memory of a RUN", func(t *testing.T) {
		t.Parallel()
		p := p.with(t)
		p.files("greedy", map[string]string{"Dockerfile": "FROM $BASE\nRUN head -c 300m /dev/zero | tail > /dev/null\n"})
		build := func(size string) run {
			return p.tekton("taskrun", strings.Replace(taskRun(destination("memory"), limited("memory", size)), "configMap: {name: context}", "configMap: {name: greedy}", 1))
		}
		r := build("192Mi")
		p.endedTask(r, "StepOOM", destination("memory"))
		if line := lastLine(p.logs(r.Status.PodName, "step-build-and-push")); r.exitCode() != 4 || !strings.Contains(line, "Dockerfile:2") {
			t.Errorf("exit code %d, last line %q", r.exitCode(), line)
		}
		p.pushed(build("1Gi"), destination("memory"))
	})
	t.Run("storage of the pod", func(t *testing.T) {
		t.Parallel()
		p := p.with(t)
		p.files("large", map[string]string{"Dockerfile": "FROM $BASE\nARG WAIT=600\nRUN dd if=/dev/zero of=/large bs=1M count=300 && echo waiting && sleep $WAIT\n"})
		build := func(size string, params ...string) run {
			return p.tekton("taskrun", strings.Replace(taskRun(destination("storage"), limited("ephemeral-storage", size), params...), "configMap: {name: context}", "configMap: {name: large}", 1))
		}
		r := build("100Mi")
		if r.succeeded() || len(r.Status.Results) != 0 || p.digest(destination("storage")) != "" || !strings.Contains(r.message(), "ephemeral") {
			t.Errorf("%s: %s, results %v, image %q", r.reason(), r.message(), r.Status.Results, p.digest(destination("storage")))
		}
		p.pushed(build("4Gi", "BUILD_ARGS", "WAIT=0"), destination("storage"))
	})
}

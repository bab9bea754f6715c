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
`, auth[:8], auth[8:])}
}

// The container that runs the Dockerfile has no credential of the split Task, also where RUN has no root of its own. What makes it
// so is an account without registry secrets: the counter-example has one with them, which Tekton gives to every step.
func TestSplitHidesCredentials(t *testing.T) {
	t.Parallel()
	needFull(t)
	p := newPlace(t, "baseline")
	p.team()
	p.files("context", search())
	p.apply("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: clean}\n")
	for _, c := range []struct {
		name, account string
		found         bool
	}{{"account without secrets", "clean", false}, {"account with secrets", "builder", true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := p.with(t)
			destination := fmt.Sprintf("%s/%s/%s:1", node.PrivateRegistry, p.namespace, c.account)
			text := strings.Replace(taskRun(destination, "  serviceAccountName: "+c.account+"\n  podTemplate: {automountServiceAccountToken: false, securityContext: {seccompProfile: {type: RuntimeDefault}}}\n"), "{name: kaniko-go}", "{name: kaniko-go-split}", 1)
			p.pushed(p.tekton("taskrun", text), destination)
			out := strings.ReplaceAll(p.runImage(destination), "/tmp/pattern\n", "")
			if (out != "") != c.found {
				t.Errorf("RUN found the credential in %q", out)
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
		p.files("context", map[string]string{"Dockerfile": "FROM $BASE\nRUN tail /dev/zero\n"})
		r := p.tekton("taskrun", taskRun(destination("memory"), limited("memory", "192Mi")))
		p.endedTask(r, "StepOOM", destination("memory"))
		if line := lastLine(p.logs(r.Status.PodName, "step-build-and-push")); r.exitCode() != 4 || !strings.Contains(line, "Dockerfile:2") {
			t.Errorf("exit code %d, last line %q", r.exitCode(), line)
		}
	})
	t.Run("storage of the pod", func(t *testing.T) {
		t.Parallel()
		p := p.with(t)
		p.files("large", map[string]string{"Dockerfile": "FROM $BASE\nRUN dd if=/dev/zero of=/large bs=1M count=300 && echo waiting && sleep 600\n"})
		text := strings.Replace(taskRun(destination("storage"), limited("ephemeral-storage", "100Mi")), "configMap: {name: context}", "configMap: {name: large}", 1)
		r := p.tekton("taskrun", text)
		if r.succeeded() || len(r.Status.Results) != 0 || p.digest(destination("storage")) != "" || !strings.Contains(r.message(), "ephemeral") {
			t.Errorf("%s: %s, results %v, image %q", r.reason(), r.message(), r.Status.Results, p.digest(destination("storage")))
		}
	})
}

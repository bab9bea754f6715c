// SPDX-License-Identifier: Apache-2.0

//go:build cluster

package cluster

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/kaniko-go/kaniko-go/e2e/cluster/node"
)

// credentials makes a secret with a password for the registries that want one.
func (p *place) credentials(name, password string) {
	p.t.Helper()
	login := map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte(node.User + ":" + password))}
	config, err := json.Marshal(map[string]any{"auths": map[string]any{node.PrivateRegistry: login, node.TransientRegistry: login}})
	if err != nil {
		p.t.Fatal(err)
	}
	p.kubectl(string(config), "create", "secret", "generic", name, "--type=kubernetes.io/dockerconfigjson", "--from-file=.dockerconfigjson=/dev/stdin", "-n", p.namespace)
}

// trouble is a build that fails, as a TaskRun, as a Workflow and as a Pod.
type trouble struct {
	name       string
	dockerfile string
	image      string // the destination
	secret     string // with the registry's credentials; "" for none
	insecure   string // one more registry that speaks plain HTTP
	code       int
	cause      string // in the last line of the log, in Argo's message and in the Pod's
	full       bool   // only in the full run
}

// good is a Dockerfile that builds.
const good = "FROM $BASE\nRUN true\n"

func troubles(p *place) []trouble {
	open, private := node.Registry+"/"+p.namespace+"/app:1", node.PrivateRegistry+"/"+p.namespace+"/app:1"
	refusing := p.serveRefusing()
	return []trouble{
		{name: "Dockerfile error", dockerfile: "FROM $BASE\nCOPPY a b\n", image: open, code: 3, cause: "Dockerfile:2"},
		{name: "RUN failure", dockerfile: "FROM $BASE\nRUN echo about to fail\nRUN false || exit 7\n", image: open, code: 4, cause: "Dockerfile:3"},
		{name: "COPY of what is not there", dockerfile: "FROM $BASE\nCOPY nothing /\n", image: open, code: 4, cause: "nothing", full: true},
		{name: "base not found", dockerfile: "FROM $REGISTRY/nobody/nothing:1\nRUN true\n", image: open, code: 6, cause: "nobody/nothing:1"},
		{name: "wrong name of the image", dockerfile: good, image: node.Registry + "/Team/App:1", code: 2, cause: "Team/App", full: true},
		{name: "wrong password", dockerfile: good, image: private, secret: "wrong", code: 6, cause: node.PrivateRegistry},
		{name: "no password", dockerfile: good, image: private, code: 6, cause: node.PrivateRegistry, full: true},
		{name: "not permitted", dockerfile: good, image: refusing + "/team/app:1", insecure: refusing, code: 6, cause: refusing + "/team/app", full: true},
		{name: "nobody at the registry's address", dockerfile: good, image: node.Address + ":5999/team/app:1", insecure: node.Address + ":5999", code: 5, cause: node.Address + ":5999", full: true},
	}
}

// What people meet first. The status says that it failed and with which code; the log, Argo's message and the Pod's say why, and no result says that there is
// an image. Once the cause is gone the same run succeeds.
func TestFailures(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "baseline")
	p.install("../../tasks/kaniko-go/kaniko-go.yaml")
	p.install("../../workflows/kaniko-go/kaniko-go.yaml")
	p.credentials("wrong", "not-the-password")
	for i, c := range troubles(p) {
		if c.full && !*full {
			continue
		}
		context := fmt.Sprintf("context-%d", i)
		// Argo makes of a tar with a single entry that entry, not a directory.
		files := map[string]string{"Dockerfile": c.dockerfile, "note": "a note\n"}
		p.files(context, files)
		url := p.serve(files)
		registries := node.Registry + "\n" + node.PrivateRegistry + "\n" + c.insecure
		t.Run(c.name+", Tekton", func(t *testing.T) {
			t.Parallel()
			text := strings.ReplaceAll(taskRun(c.image, "", "INSECURE_REGISTRIES", registries), "configMap: {name: context}", "configMap: {name: "+context+"}")
			if c.secret != "" {
				text = strings.Replace(text, "  params:\n", "  - {name: dockerconfig, secret: {secretName: "+c.secret+"}}\n  params:\n", 1)
			}
			p.with(t).failedTask(text, c)
		})
		t.Run(c.name+", Argo", func(t *testing.T) {
			t.Parallel()
			p.with(t).failedWorkflow(buildWorkflow(c.image, url, "docker-config", cmp.Or(c.secret, "none"), "insecure-registries", registries), c)
		})
		t.Run(c.name+", Pod", func(t *testing.T) {
			t.Parallel()
			p.with(t).failedPod(dropped(c.image, context, c.secret, c.insecure), c)
		})
		t.Cleanup(func() {
			if c.code == 2 {
				return // that is no reference
			}
			if found := p.digest(c.image); found != "" {
				t.Errorf("%s: the failed build left %s", c.name, found)
			}
		})
	}
	t.Run("and then the right password", func(t *testing.T) {
		t.Parallel()
		p := p.with(t)
		p.credentials("late", "not-the-password")
		p.files("right", map[string]string{"Dockerfile": good})
		destination := node.PrivateRegistry + "/" + p.namespace + "/late:1"
		text := strings.Replace(taskRun(destination, ""), "configMap: {name: context}}\n", "configMap: {name: right}}\n  - {name: dockerconfig, secret: {secretName: late}}\n", 1)
		p.failedTask(text, trouble{code: 6, cause: node.PrivateRegistry})
		p.kubectl("", "delete", "secret", "late", "-n", p.namespace)
		p.credentials("late", node.Password)
		p.pushed(p.tekton("taskrun", text), destination)
	})
}

// with is the same place for a subtest, whose messages are its own.
func (p *place) with(t *testing.T) *place {
	t.Helper()
	q := *p
	q.t = t
	return &q
}

func (p *place) failedTask(text string, c trouble) {
	p.t.Helper()
	r := p.tekton("taskrun", text)
	if r.succeeded() || r.reason() != "StepFailed" || r.exitCode() != c.code {
		p.t.Errorf("reason %s, exit code %d: %s\n%s", r.reason(), r.exitCode(), r.message(), p.stepLogs(r))
	}
	if len(r.Status.Results) != 0 {
		p.t.Errorf("a failed build has results: %v", r.Status.Results)
	}
	if line := lastLine(p.logs(r.Status.PodName, "step-build-and-push")); !strings.Contains(line, c.cause) {
		p.t.Errorf("the last line of the log is %q, without %q", line, c.cause)
	}
}

func (p *place) failedWorkflow(text string, c trouble) {
	p.t.Helper()
	w := p.argo(text)
	n := w.node("build")
	if w.Status.Phase != "Failed" || !strings.Contains(n.Message, fmt.Sprintf("exit code %d", c.code)) || !strings.Contains(n.Message, c.cause) {
		p.t.Errorf("workflow %s, message %q: wanted exit code %d and %q", w.Status.Phase, n.Message, c.code, c.cause)
	}
	for name, value := range n.outputs() {
		if value != "" {
			p.t.Errorf("a failed build has the output %s=%q", name, value)
		}
	}
}

// failedPod makes a Pod that fails with a message that is the last line of its log, and nothing else.
func (p *place) failedPod(text string, c trouble) {
	p.t.Helper()
	name := p.create(text)
	if phase := p.podPhase(name); phase != "Failed" {
		p.t.Fatalf("the pod is %s", phase)
	}
	code, message := p.terminated(name)
	line := strings.TrimPrefix(lastLine(p.logs(name, "kaniko")), "error: ")
	if code != fmt.Sprint(c.code) || message != line || !strings.Contains(message, c.cause) {
		p.t.Errorf("exit code %s, message %q, last line %q: wanted %d and %q", code, message, line, c.code, c.cause)
	}
}

// terminated is how the first container of a pod has ended, and its message.
func (p *place) terminated(pod string) (code, message string) {
	p.t.Helper()
	var found struct {
		Status struct {
			ContainerStatuses []struct {
				State struct {
					Terminated struct {
						ExitCode int
						Message  string
					}
				}
			}
		}
	}
	p.object("pod", pod, &found)
	if len(found.Status.ContainerStatuses) == 0 {
		p.t.Fatalf("pod %s has no containers", pod)
	}
	ended := found.Status.ContainerStatuses[0].State.Terminated
	return fmt.Sprint(ended.ExitCode), ended.Message
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// slow is a context whose build waits in a RUN, unless it is told not to.
func slow() map[string]string {
	return hello("ARG WAIT=600\nRUN --mount=type=cache,target=/cache date >> /cache/begun && echo waiting && sleep $WAIT")
}

// inRUN waits until the build of a pod is in the RUN that waits.
func (p *place) inRUN(pod, container string) {
	p.t.Helper()
	p.await(runLimit, "the RUN that waits", func() (string, bool) {
		out, err := p.node.Kubectl(p.t.Context(), "", "logs", pod, "-c", container, "-n", p.namespace)
		return fmt.Sprint(out, err), strings.Contains(out, "waiting\n")
	})
}

// A run that somebody ends, or the clock, has no results, pushes nothing, and its pod goes.
func TestEnded(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "baseline")
	p.install("../../workflows/kaniko-go/kaniko-go.yaml")
	task := readFile(t, "../../tasks/kaniko-go/kaniko-go.yaml")
	p.apply(task)
	limited := strings.Replace(task, "- name: build-and-push\n", "- name: build-and-push\n      timeout: 15s\n", 1)
	p.apply(strings.Replace(limited, "name: kaniko-go\n", "name: limited\n", 1))
	p.files("context", slow())
	destination := func(name string) string { return node.Registry + "/" + p.namespace + "/" + name + ":1" }
	t.Run("cancelled TaskRun", func(t *testing.T) {
		t.Parallel()
		p := p.with(t)
		p.apply("apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: cache}\nspec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n")
		cached := func(params ...string) string {
			return strings.Replace(taskRun(destination("cancelled"), "", params...), "  params:\n", "  - {name: cache, persistentVolumeClaim: {claimName: cache}}\n  params:\n", 1)
		}
		name := p.create(cached())
		pod := p.podOf(name)
		p.inRUN(pod, "step-build-and-push")
		p.kubectl("", "patch", "taskrun", name, "-n", p.namespace, "--type=merge", "-p", `{"spec": {"status": "TaskRunCancelled"}}`)
		p.endedTask(p.awaitRun("taskrun", name), "TaskRunCancelled", destination("cancelled"))
		p.await(shortLimit, "end of the pod", func() (string, bool) {
			_, err := p.node.Kubectl(p.t.Context(), "", "get", "pod", pod, "-n", p.namespace)
			return fmt.Sprint(err), err != nil && strings.Contains(err.Error(), "NotFound")
		})
		// What it held of the volume that outlives it holds up nobody.
		p.pushed(p.tekton("taskrun", cached("BUILD_ARGS", "WAIT=0")), destination("cancelled"))
	})
	t.Run("timeout of the TaskRun", func(t *testing.T) {
		t.Parallel()
		p := p.with(t)
		p.endedTask(p.tekton("taskrun", taskRun(destination("late"), "  timeout: 20s\n")), "TaskRunTimeout", destination("late"))
	})
	t.Run("timeout of the step", func(t *testing.T) {
		t.Parallel()
		p := p.with(t)
		r := p.tekton("taskrun", strings.ReplaceAll(taskRun(destination("long"), ""), "{name: kaniko-go}", "{name: limited}"))
		p.endedTask(r, "StepFailed", destination("long"))
		if !strings.Contains(r.message(), "timeout") {
			t.Errorf("message: %s", r.message())
		}
	})
	t.Run("terminated Workflow", func(t *testing.T) {
		t.Parallel()
		p := p.with(t)
		name := p.create(buildWorkflow(destination("terminated"), p.serve(slow())))
		p.inRUN(p.workflowPod(name), "main")
		p.kubectl("", "patch", "workflow", name, "-n", p.namespace, "--type=merge", "-p", `{"spec": {"shutdown": "Terminate"}}`)
		w := p.awaitWorkflow(name)
		if w.Status.Phase != "Failed" || p.digest(destination("terminated")) != "" {
			t.Errorf("workflow %s (%s), image %q", w.Status.Phase, w.Status.Message, p.digest(destination("terminated")))
		}
		for name, value := range w.node("build").outputs() {
			if value != "" {
				t.Errorf("a terminated build has the output %s=%q", name, value)
			}
		}
	})
}

func (p *place) endedTask(r run, reason, destination string) {
	p.t.Helper()
	if r.succeeded() || r.reason() != reason {
		p.t.Errorf("reason %s, not %s: %s", r.reason(), reason, r.message())
	}
	if len(r.Status.Results) != 0 {
		p.t.Errorf("results: %v", r.Status.Results)
	}
	if found := p.digest(destination); found != "" {
		p.t.Errorf("it left %s", found)
	}
}

// podOf waits for the pod of a TaskRun.
func (p *place) podOf(taskRun string) string {
	p.t.Helper()
	var r run
	p.await(shortLimit, "pod of "+taskRun, func() (string, bool) {
		p.object("taskrun", taskRun, &r)
		return r.message(), r.Status.PodName != ""
	})
	return r.Status.PodName
}

// workflowPod waits for the only pod of a Workflow.
func (p *place) workflowPod(workflow string) string {
	p.t.Helper()
	pod := ""
	p.await(shortLimit, "pod of "+workflow, func() (string, bool) {
		pod = p.kubectl("", "get", "pods", "-l", "workflows.argoproj.io/workflow="+workflow, "-n", p.namespace, "-o", "jsonpath={.items[*].metadata.name}")
		return pod, pod != ""
	})
	return pod
}

// A run that lacks the workspace does not start, and says which.
func TestMissingWorkspace(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "baseline")
	p.install("../../tasks/kaniko-go/kaniko-go.yaml")
	destination := node.Registry + "/" + p.namespace + "/nothing:1"
	text := strings.Replace(taskRun(destination, ""), "  workspaces:\n  - {name: source, configMap: {name: context}}\n", "", 1)
	r := p.tekton("taskrun", text)
	p.endedTask(r, "TaskRunValidationFailed", destination)
	if !strings.Contains(r.message(), "source") {
		t.Errorf("message: %s", r.message())
	}
}

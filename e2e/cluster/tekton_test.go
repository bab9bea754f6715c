// SPDX-License-Identifier: Apache-2.0

//go:build cluster

package cluster

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/kaniko-go/kaniko-go/e2e/cluster/node"
)

// run is a TaskRun or PipelineRun that has ended.
type run struct {
	Metadata struct{ Name string }
	Status   struct {
		Conditions []struct{ Status, Reason, Message string }
		PodName    string
		Results    []struct {
			Name  string
			Value any
		}
		Steps []struct {
			Name              string
			Container         string
			TerminationReason string
			Terminated        *struct {
				ExitCode        int
				Reason, Message string
			}
		}
	}
}

func (r run) succeeded() bool {
	return len(r.Status.Conditions) == 1 && r.Status.Conditions[0].Status == "True"
}

func (r run) reason() string {
	if len(r.Status.Conditions) != 1 {
		return ""
	}
	return r.Status.Conditions[0].Reason
}

func (r run) message() string {
	if len(r.Status.Conditions) != 1 {
		return ""
	}
	return r.Status.Conditions[0].Message
}

// results are the results of strings.
func (r run) results() map[string]string {
	found := map[string]string{}
	for _, result := range r.Status.Results {
		if text, ok := result.Value.(string); ok {
			found[result.Name] = text
		}
	}
	return found
}

// exitCode is that of the step build-and-push, -1 if it has none.
func (r run) exitCode() int {
	for _, s := range r.Status.Steps {
		if s.Name == "build-and-push" && s.Terminated != nil {
			return s.Terminated.ExitCode
		}
	}
	return -1
}

// tekton creates a TaskRun or PipelineRun and waits for its end.
func (p *place) tekton(kind, text string) run {
	p.t.Helper()
	return p.awaitRun(kind, p.create(text))
}

// create creates an object with a generated name and returns the name.
func (p *place) create(text string) string {
	p.t.Helper()
	name, err := p.node.Create(p.t.Context(), p.namespace, p.local(text))
	if err != nil {
		p.t.Fatal(err)
	}
	return name
}

func (p *place) awaitRun(kind, name string) run {
	p.t.Helper()
	var r run
	p.await(runLimit, "end of "+kind+" "+name, func() (string, bool) {
		r = run{}
		p.object(kind, name, &r)
		return fmt.Sprintf("%+v", r.Status), len(r.Status.Conditions) == 1 && r.Status.Conditions[0].Status != "Unknown"
	})
	return r
}

// taskRun is the YAML of a TaskRun of the Task kaniko-go that builds the ConfigMap context; more is added to its spec.
func taskRun(destination, more string, params ...string) string {
	text := "apiVersion: tekton.dev/v1\nkind: TaskRun\nmetadata: {generateName: build-}\nspec:\n  taskRef: {name: kaniko-go}\n" +
		"  workspaces:\n  - {name: source, configMap: {name: context}}\n  params:\n  - {name: IMAGE, value: \"" + destination + "\"}\n"
	for i := 0; i < len(params); i += 2 {
		text += fmt.Sprintf("  - {name: %s, value: %q}\n", params[i], params[i+1])
	}
	return text + more
}

var digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// pushed checks the results of a run against the registry, and returns the digest.
func (p *place) pushed(r run, destination string) string {
	p.t.Helper()
	if !r.succeeded() {
		p.t.Fatalf("%s: %s\n%s", r.reason(), r.message(), p.stepLogs(r))
	}
	return p.checkResults(r.results(), destination)
}

func (p *place) checkResults(results map[string]string, destination string) string {
	p.t.Helper()
	digest := results["IMAGE_DIGEST"]
	if !digestForm.MatchString(digest) || p.digest(destination) != digest {
		p.t.Errorf("IMAGE_DIGEST %q, and %s has %q", digest, destination, p.digest(destination))
	}
	if results["IMAGE_URL"] != destination {
		p.t.Errorf("IMAGE_URL %q, not %q", results["IMAGE_URL"], destination)
	}
	repository := destination[:strings.LastIndex(destination, ":")]
	if results["IMAGE_REF"] != repository+"@"+digest || results["IMAGES"] != repository+"@"+digest {
		p.t.Errorf("IMAGE_REF %q, IMAGES %q", results["IMAGE_REF"], results["IMAGES"])
	}
	return digest
}

// stepLogs are those of all steps of a TaskRun, for the message of a failed test.
func (p *place) stepLogs(r run) string {
	p.t.Helper()
	if r.Status.PodName == "" {
		return ""
	}
	out, err := p.node.Kubectl(p.t.Context(), "", "logs", r.Status.PodName, "--all-containers", "-n", p.namespace)
	if err != nil {
		return err.Error()
	}
	return out
}

// The first thing that somebody does: the Task by its name, in the pods that clusters give without asking, and in those that they give when
// they are strict.
func TestTaskRun(t *testing.T) {
	t.Parallel()
	for _, kind := range []struct{ name, more string }{
		{"default", ""},
		{"RuntimeDefault", "  podTemplate: {securityContext: {seccompProfile: {type: RuntimeDefault}}}\n"},
		{"user namespace", "  podTemplate: {hostUsers: false}\n"},
	} {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t, "baseline")
			p.install("../../tasks/kaniko-go/kaniko-go.yaml")
			p.files("context", hello(""))
			destination := node.Registry + "/" + p.namespace + "/hello:1"
			r := p.tekton("taskrun", taskRun(destination, kind.more, "BUILD_ARGS", "WHOM=a cluster"))
			digest := p.pushed(r, destination)
			if out := p.runImage(destination[:strings.LastIndex(destination, ":")] + "@" + digest); out != "built for a cluster\n0\na note\n" {
				t.Errorf("the image prints %q", out)
			}
		})
	}
}

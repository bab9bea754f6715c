// SPDX-License-Identifier: Apache-2.0

//go:build cluster

package cluster

import (
	"context"
	"fmt"
	"path"
	"strings"
	"testing"

	"github.com/kaniko-go/kaniko-go/e2e/cluster/node"
)

// workflow is a Workflow that has ended.
type workflow struct {
	Metadata struct{ Name string }
	Status   struct {
		Phase, Message string
		Nodes          map[string]workflowNode
	}
}

type workflowNode struct {
	ID, DisplayName, TemplateName, Type, Phase, Message string
	Outputs                                             struct {
		ExitCode   string
		Parameters []struct{ Name, Value string }
	}
}

// node is the last one of a name, of the pod of a step where there is one.
func (w workflow) node(name string) workflowNode {
	var found workflowNode
	for _, n := range w.Status.Nodes {
		if n.DisplayName == name && (found.Type != "Pod") {
			found = n
		}
	}
	return found
}

func (n workflowNode) outputs() map[string]string {
	found := map[string]string{}
	for _, parameter := range n.Outputs.Parameters {
		found[parameter.Name] = parameter.Value
	}
	return found
}

// argo creates a Workflow and waits for its end.
func (p *place) argo(text string) workflow {
	p.t.Helper()
	return p.awaitWorkflow(p.create(text))
}

func (p *place) awaitWorkflow(name string) workflow {
	p.t.Helper()
	var w workflow
	p.await(runLimit, "end of workflow "+name, func() (string, bool) {
		w = workflow{}
		p.object("workflow", name, &w)
		return fmt.Sprintf("%+v", w.Status), w.Status.Phase == "Succeeded" || w.Status.Phase == "Failed" || w.Status.Phase == "Error"
	})
	return w
}

func (p *place) succeeded(w workflow) {
	p.t.Helper()
	if w.Status.Phase == "Succeeded" {
		return
	}
	text := ""
	for _, n := range w.Status.Nodes {
		text += fmt.Sprintf("%s (%s): %s %s\n", n.DisplayName, n.Type, n.Phase, n.Message)
		if n.Type == "Pod" {
			logs, err := p.node.Kubectl(p.t.Context(), "", "logs", "-l", "workflows.argoproj.io/workflow="+w.Metadata.Name, "--all-containers", "--tail=40", "-n", p.namespace)
			text += fmt.Sprintf("%s%v\n", logs, err)
		}
	}
	p.t.Fatalf("workflow %s: %s\n%s", w.Status.Phase, w.Status.Message, text)
}

// imageOutputs checks the outputs of a build as results are checked.
func (p *place) imageOutputs(outputs map[string]string, destination string) string {
	p.t.Helper()
	return p.checkResults(map[string]string{
		"IMAGE_DIGEST": outputs["image-digest"], "IMAGE_URL": outputs["image-url"], "IMAGE_REF": outputs["image-ref"], "IMAGES": outputs["images"],
	}, destination)
}

// consume is a template that takes an image reference and tells it.
const consume = `  - name: consume
    inputs: {parameters: [{name: ref}]}
    container: {image: $BASE, command: [echo, "consumed {{inputs.parameters.ref}}"]}
    outputs: {parameters: [{name: ref, value: "{{inputs.parameters.ref}}"}]}
`

// buildWorkflow is the YAML of a Workflow whose only step builds the tar at a URL by the template build.
func buildWorkflow(destination, url string, parameters ...string) string {
	text := `apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: build-}
spec:
  entrypoint: main
  templates:
  - name: main
    steps:
    - - name: build
        templateRef: {name: kaniko-go, template: build}
        arguments:
          artifacts:
          - {name: context, http: {url: "` + url + `"}}
          parameters:
          - {name: image, value: "` + destination + `"}
`
	for i := 0; i < len(parameters); i += 2 {
		text += fmt.Sprintf("          - {name: %s, value: %q}\n", parameters[i], parameters[i+1])
	}
	return text
}

// A context from a server, and a next step that gets what was built.
func TestWorkflowArtifact(t *testing.T) {
	t.Parallel()
	for _, kind := range []struct{ name, more string }{
		{"default", ""},
		{"RuntimeDefault", "  securityContext: {seccompProfile: {type: RuntimeDefault}}\n"},
		{"user namespace", "  podSpecPatch: '{\"hostUsers\": false}'\n"},
	} {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t, "baseline")
			p.install("../../workflows/kaniko-go/kaniko-go.yaml")
			destination := node.Registry + "/" + p.namespace + "/artifact:1"
			text := buildWorkflow(destination, p.serve(hello("")), "build-args", "WHOM=a workflow") + `    - - name: consume
        template: consume
        arguments: {parameters: [{name: ref, value: "{{steps.build.outputs.parameters.image-ref}}"}]}
` + consume + kind.more
			w := p.argo(text)
			p.succeeded(w)
			reference := strings.TrimSuffix(destination, ":1") + "@" + p.imageOutputs(w.node("build").outputs(), destination)
			if got := w.node("consume").outputs()["ref"]; got != reference {
				t.Errorf("the next step got %q, not %q", got, reference)
			}
			if out := p.runImage(reference); out != "built for a workflow\n0\na note\n" {
				t.Errorf("the image prints %q", out)
			}
		})
	}
}

// Of a ClusterWorkflowTemplate the templates that refer to each other find each other, too.
func TestClusterTemplate(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "baseline")
	p.team()
	p.kubectl("", "delete", "workflowtemplate", "kaniko-go", "-n", p.namespace)
	p.kubectl(p.local(readFile(t, "../../workflows/kaniko-go/kaniko-go-cluster.yaml")), "apply", "-f", "-")
	t.Cleanup(func() {
		// Not the test's context: that has ended.
		ctx, cancel := context.WithTimeout(context.Background(), shortLimit)
		defer cancel()
		if _, err := p.node.Kubectl(ctx, "", "delete", "clusterworkflowtemplate", "kaniko-go"); err != nil {
			t.Error(err)
		}
	})
	site := newSite(p)
	for _, s := range samples() {
		if s.file != "workflows/kaniko-go/samples/git.yaml" && s.file != "workflows/kaniko-go/samples/multi-arch.yaml" {
			continue
		}
		t.Run(path.Base(s.file), func(t *testing.T) {
			t.Parallel()
			p := p.with(t)
			team := node.PrivateRegistry + "/" + p.namespace + "/" + strings.TrimSuffix(path.Base(s.file), ".yaml")
			text := strings.ReplaceAll(site.text(t, s, team), "              name: kaniko-go\n", "              name: kaniko-go\n              clusterScope: true\n")
			p.runSample(text, team+"/"+s.image)
			if s.platforms != "" {
				if got := p.platforms(team + "/" + s.image); got != s.platforms {
					t.Errorf("an index of %q, not of %q", got, s.platforms)
				}
			}
		})
	}
}

// volumeWorkflow has a first step that puts an artifact on a volume, here a text, which is always a file, and a second one that builds it.
const volumeWorkflow = `apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: volume-}
spec:
  entrypoint: main
  volumeClaimTemplates:
  - metadata: {name: sources}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
  templates:
  - name: main
    steps:
    - - {name: fetch, template: fetch}
    - - name: build
        templateRef: {name: kaniko-go, template: build-volume}
        arguments:
          parameters:
          - {name: image, value: "$IMAGE"}
          - {name: volume, value: sources}
          - {name: directory, value: repository}
    - - name: consume
        template: consume
        arguments: {parameters: [{name: ref, value: "{{steps.build.outputs.parameters.image-ref}}"}]}
  - name: fetch
    inputs:
      artifacts:
      - name: dockerfile
        path: /sources/repository/Dockerfile
        raw:
          data: |
            FROM $BASE
            RUN echo from a volume > /greeting
            ENTRYPOINT ["cat", "/greeting"]
    container:
      image: $BASE
      command: [cat, /sources/repository/Dockerfile]
      volumeMounts: [{name: sources, mountPath: /sources}]
`

func TestWorkflowVolume(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "baseline")
	p.install("../../workflows/kaniko-go/kaniko-go.yaml")
	destination := node.Registry + "/" + p.namespace + "/volume:1"
	w := p.argo(strings.ReplaceAll(volumeWorkflow, "$IMAGE", destination) + consume)
	p.succeeded(w)
	reference := strings.TrimSuffix(destination, ":1") + "@" + p.imageOutputs(w.node("build").outputs(), destination)
	if got := w.node("consume").outputs()["ref"]; got != reference {
		t.Errorf("the next step got %q, not %q", got, reference)
	}
	if out := p.runImage(reference); out != "from a volume\n" {
		t.Errorf("the image prints %q", out)
	}
}

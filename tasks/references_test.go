// SPDX-License-Identifier: Apache-2.0

package tasks

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	pipelinev1 "github.com/tektoncd/pipeline/pkg/apis/pipeline/v1"
	"github.com/tektoncd/pipeline/pkg/apis/pipeline/v1beta1"
	corev1 "k8s.io/api/core/v1"
)

var reference = regexp.MustCompile(`\$\(([^)]*)\)`)

// names says what may be referred to and has to be: name and whether it was.
type names map[string]bool

func (n names) declare(prefix string, list ...string) {
	for _, name := range list {
		n[prefix+name] = false
	}
}

// use checks the references in a text; the array forms are those of the name.
func (n names) use(t *testing.T, where, text string) {
	t.Helper()
	for _, m := range reference.FindAllStringSubmatch(text, -1) {
		name := strings.TrimSuffix(m[1], "[*]")
		if _, ok := n[name]; !ok {
			t.Errorf("%s: %s is not declared", where, m[0])
		}
		n[name] = true
	}
}

func (n names) allUsed(t *testing.T, where string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(n)) {
		if !n[name] {
			t.Errorf("%s: %s is declared and never used", where, name)
		}
	}
}

// TestReferences checks what Tekton does not: that all that is referred to is declared, workspaces and results too, and that all that is
// declared is used.
func TestReferences(t *testing.T) {
	for _, doc := range slices.Concat(published(t), samples(t)) {
		switch o := doc.object.(type) {
		case *pipelinev1.Task:
			taskReferences(t, doc.file, doc.text, &o.Spec)
		case *pipelinev1.TaskRun:
			if o.Spec.TaskSpec != nil {
				taskReferences(t, doc.file, doc.text, o.Spec.TaskSpec)
			}
		case *v1beta1.StepAction:
			n := names{"credentials.path": true}
			n.declare("params.", o.Spec.Params.GetNames()...)
			for _, r := range o.Spec.Results {
				// All results are written through the path of one.
				n["step.results."+r.Name+".path"] = true
			}
			n.use(t, doc.file, doc.text)
			n.allUsed(t, doc.file)
		case *pipelinev1.Pipeline:
			pipelineReferences(t, doc.file, doc.text, &o.Spec)
		case *pipelinev1.PipelineRun:
			if o.Spec.PipelineSpec != nil {
				pipelineReferences(t, doc.file, doc.text, o.Spec.PipelineSpec)
			}
		}
	}
}

func taskReferences(t *testing.T, where, text string, spec *pipelinev1.TaskSpec) {
	t.Helper()
	n := names{"credentials.path": true}
	for _, p := range spec.Params {
		// Those of Chains are read by Chains.
		n["params."+p.Name] = strings.HasPrefix(p.Name, "CHAINS-")
	}
	for _, w := range spec.Workspaces {
		// Secrets are named by EXTRA_ARGS.
		n["workspaces."+w.Name+".path"] = w.Name == "secrets"
	}
	for _, s := range spec.Steps {
		if s.Ref != nil { // results of a StepAction
			for _, name := range resultNames() {
				n["steps."+s.Name+".results."+name] = true
			}
		}
		for _, r := range s.Results {
			n.declare("step.results.", r.Name+".path")
		}
	}
	n.use(t, where, text)
	n.allUsed(t, where)

	volumes := map[string]bool{}
	for _, v := range spec.Volumes {
		volumes[v.Name] = false
	}
	var mounts []corev1.VolumeMount
	for _, s := range spec.Steps {
		mounts = append(mounts, s.VolumeMounts...)
		if s.Ref != nil {
			mounts = append(mounts, corev1.VolumeMount{Name: "work"})
		}
	}
	for _, m := range mounts {
		if _, ok := volumes[m.Name]; !ok {
			t.Errorf("%s: volume %s is not declared", where, m.Name)
		}
		volumes[m.Name] = true
	}
	for name, used := range volumes {
		if !used {
			t.Errorf("%s: volume %s is never mounted", where, name)
		}
	}
}

// resultNames are those of every build.
func resultNames() []string { return []string{"IMAGE_DIGEST", "IMAGE_URL", "IMAGE_REF", "IMAGES"} }

func pipelineReferences(t *testing.T, where, text string, spec *pipelinev1.PipelineSpec) {
	t.Helper()
	n := names{}
	n.declare("params.", spec.Params.GetNames()...)
	// Is for the pods of a matrix, whose tasks have it.
	n["params.ARCH"] = true
	workspaces := map[string]bool{}
	for _, w := range spec.Workspaces {
		workspaces[w.Name] = false
	}
	for _, task := range spec.Tasks {
		results := resultNames()
		if task.TaskSpec != nil {
			results = nil
			for _, r := range task.TaskSpec.Results {
				results = append(results, r.Name)
			}
			for _, p := range task.TaskSpec.Params {
				n["params."+p.Name] = n["params."+p.Name] || false
			}
			for _, w := range task.TaskSpec.Workspaces {
				n["workspaces."+w.Name+".path"] = true
			}
			for _, r := range task.TaskSpec.Results {
				n["results."+r.Name+".path"] = true
			}
		}
		for _, r := range results {
			n["tasks."+task.Name+".results."+r] = true
		}
		for _, w := range task.Workspaces {
			if _, ok := workspaces[w.Workspace]; !ok {
				t.Errorf("%s: task %s: workspace %s is not declared", where, task.Name, w.Workspace)
			}
			workspaces[w.Workspace] = true
		}
	}
	n.use(t, where, text)
	n.allUsed(t, where)
	for name, used := range workspaces {
		if !used {
			t.Errorf("%s: workspace %s is declared and never used", where, name)
		}
	}
}

// TestCallers holds that everything that is given to a Task or StepAction of ours is one of its parameters and workspaces, and that what
// it requires is given: Tekton ignores a parameter that a Task does not have, so a misspelt one would do nothing.
func TestCallers(t *testing.T) {
	ours := map[string]document{}
	for _, doc := range published(t) {
		ours[doc.kind+" "+doc.name] = doc
	}
	checked := 0
	for _, doc := range slices.Concat(published(t), samples(t)) {
		check := func(kind, name string, params pipelinev1.Params, workspaces []string) {
			t.Helper()
			callee, ok := ours[kind+" "+name]
			if !ok {
				t.Errorf("%s: there is no %s %s", doc.file, kind, name)
				return
			}
			checked++
			compare(t, doc.file, callee, params, workspaces)
		}
		switch o := doc.object.(type) {
		case *pipelinev1.TaskRun:
			var bound []string
			for _, w := range o.Spec.Workspaces {
				bound = append(bound, w.Name)
			}
			switch {
			case o.Spec.TaskRef != nil && o.Spec.TaskRef.Name != "":
				check("Task", o.Spec.TaskRef.Name, o.Spec.Params, bound)
			case o.Spec.TaskSpec != nil:
				for _, s := range o.Spec.TaskSpec.Steps {
					if s.Ref != nil {
						check("StepAction", s.Ref.Name, s.Params, nil)
					}
				}
			}
		case *pipelinev1.Pipeline:
			pipelineCalls(&o.Spec, check)
		case *pipelinev1.PipelineRun:
			if o.Spec.PipelineSpec != nil {
				pipelineCalls(o.Spec.PipelineSpec, check)
				continue
			}
			var bound []string
			for _, w := range o.Spec.Workspaces {
				bound = append(bound, w.Name)
			}
			check("Pipeline", o.Spec.PipelineRef.Name, o.Spec.Params, bound)
		}
	}
	if checked < 5 {
		t.Errorf("only %d calls were found", checked)
	}
}

func pipelineCalls(spec *pipelinev1.PipelineSpec, check func(kind, name string, params pipelinev1.Params, workspaces []string)) {
	for _, task := range spec.Tasks {
		if task.TaskRef == nil {
			continue
		}
		var bound []string
		for _, w := range task.Workspaces {
			bound = append(bound, w.Name)
		}
		params := slices.Clone(task.Params)
		if task.Matrix != nil && len(task.Matrix.Include) > 0 {
			params = append(params, task.Matrix.Include[0].Params...)
			params = slices.DeleteFunc(params, func(p pipelinev1.Param) bool { return p.Name == "ARCH" })
		}
		check("Task", task.TaskRef.Name, params, bound)
	}
}

func compare(t *testing.T, where string, callee document, params pipelinev1.Params, workspaces []string) {
	t.Helper()
	var specs pipelinev1.ParamSpecs
	required := map[string]bool{} // workspace -> must be bound
	switch o := callee.object.(type) {
	case *pipelinev1.Task:
		specs = o.Spec.Params
		for _, w := range o.Spec.Workspaces {
			required[w.Name] = !w.Optional
		}
	case *pipelinev1.Pipeline:
		specs = o.Spec.Params
		for _, w := range o.Spec.Workspaces {
			required[w.Name] = !w.Optional
		}
	case *v1beta1.StepAction:
		specs = o.Spec.Params
	}
	for _, p := range params {
		i := slices.IndexFunc(specs, func(s pipelinev1.ParamSpec) bool { return s.Name == p.Name })
		if i < 0 {
			t.Errorf("%s: %s %s has no parameter %s", where, callee.kind, callee.name, p.Name)
			continue
		}
		array := p.Value.Type == pipelinev1.ParamTypeArray || strings.Contains(p.Value.StringVal, "[*]")
		if array != (specs[i].Type == pipelinev1.ParamTypeArray) {
			t.Errorf("%s: parameter %s of %s %s is of type %q", where, p.Name, callee.kind, callee.name, specs[i].Type)
		}
	}
	for _, s := range specs {
		if s.Default == nil && !slices.ContainsFunc(params, func(p pipelinev1.Param) bool { return p.Name == s.Name }) {
			t.Errorf("%s: %s %s needs the parameter %s", where, callee.kind, callee.name, s.Name)
		}
	}
	for _, w := range workspaces {
		if _, ok := required[w]; !ok {
			t.Errorf("%s: %s %s has no workspace %s", where, callee.kind, callee.name, w)
		}
	}
	for w, must := range required {
		if must && !slices.Contains(workspaces, w) {
			t.Errorf("%s: %s %s needs the workspace %s", where, callee.kind, callee.name, w)
		}
	}
}

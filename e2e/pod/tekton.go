// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"fmt"
	"os"
	"path"
	"regexp"
	"strings"

	"sigs.k8s.io/yaml"
)

// TaskRun is what a user of a Task gives.
type TaskRun struct {
	Params map[string]string
	// Workspaces maps the name of a workspace to a directory of this machine.
	Workspaces map[string]string
}

// task holds what is needed of a Task with one step. Tekton's own types would
// do as well, but they cost a build of half of Kubernetes.
type task struct {
	Spec struct {
		Params []struct {
			Name    string  `json:"name"`
			Default *string `json:"default"`
		} `json:"params"`
		Workspaces []struct {
			Name     string `json:"name"`
			Optional bool   `json:"optional"`
		} `json:"workspaces"`
		Results []struct {
			Name string `json:"name"`
		} `json:"results"`
		Volumes []volume `json:"volumes"`
		Steps   []struct {
			Command      []string      `json:"command"`
			WorkingDir   string        `json:"workingDir"`
			Env          []envVar      `json:"env"`
			VolumeMounts []volumeMount `json:"volumeMounts"`
		} `json:"steps"`
	} `json:"spec"`
}

type volume struct {
	Name     string    `json:"name"`
	EmptyDir *struct{} `json:"emptyDir"`
	Secret   *struct {
		SecretName string `json:"secretName"`
		Optional   bool   `json:"optional"`
	} `json:"secret"`
}

type volumeMount struct {
	Name      string `json:"name"`
	MountPath string `json:"mountPath"`
}

// Where Tekton keeps results and credentials in a pod.
const (
	tektonResults     = "/tekton/results"
	tektonCredentials = "/tekton/creds" //nolint:gosec // a path
)

// Tekton makes the pod of a Task with one step below the directory root. It
// fails where the controller would refuse the run.
func Tekton(file string, run TaskRun, root string) (*Pod, error) {
	var t task
	if err := decode(file, &t); err != nil {
		return nil, err
	}
	if len(t.Spec.Steps) != 1 {
		return nil, fmt.Errorf("pod: %s has %d steps, not 1", file, len(t.Spec.Steps))
	}
	p := &Pod{root: root, read: t.results}
	replace, err := t.params(run.Params)
	if err != nil {
		return nil, err
	}
	if err := t.bind(p, run.Workspaces, replace); err != nil {
		return nil, err
	}
	for _, dir := range []string{tektonResults, tektonCredentials, "/root"} {
		if err := p.mkdir(dir); err != nil {
			return nil, err
		}
	}
	replace["credentials.path"] = tektonCredentials

	step := t.Spec.Steps[0]
	for _, m := range step.VolumeMounts {
		if err := p.mkdir(m.MountPath); err != nil { // a Task's volumes are all emptyDirs here
			return nil, err
		}
	}
	env, err := expand(step.Env, tektonVar(), replace)
	if err != nil {
		return nil, err
	}
	p.setEnv(nil, env)
	p.Command = step.Command
	dir, ok := p.outside(substitute(tektonVar(), step.WorkingDir, replace))
	if !ok {
		return nil, fmt.Errorf("pod: working directory %s is on no volume", step.WorkingDir)
	}
	p.Dir = dir
	return p, nil
}

// params gives the values of all parameters. An empty value is a value: the
// default does not come back.
func (t *task) params(given map[string]string) (map[string]string, error) {
	replace := map[string]string{}
	for _, d := range t.Spec.Params {
		value, ok := given[d.Name]
		switch {
		case ok:
		case d.Default != nil:
			value = *d.Default
		default:
			return nil, fmt.Errorf("pod: parameter %s has no value", d.Name)
		}
		replace["params."+d.Name] = value
	}
	for name := range given {
		if _, ok := replace["params."+name]; !ok {
			return nil, fmt.Errorf("pod: the Task has no parameter %s", name)
		}
	}
	return replace, nil
}

// bind mounts the workspaces. One that is optional and not bound has an empty path.
func (t *task) bind(p *Pod, given, replace map[string]string) error {
	for _, w := range t.Spec.Workspaces {
		dir, bound := given[w.Name]
		if !bound && !w.Optional {
			return fmt.Errorf("pod: workspace %s is not bound", w.Name)
		}
		inside := ""
		if bound {
			inside = path.Join("/workspace", w.Name)
			p.mount(inside, dir)
		}
		replace["workspaces."+w.Name+".path"] = inside
		replace["workspaces."+w.Name+".bound"] = fmt.Sprint(bound)
	}
	for name := range given {
		if _, ok := replace["workspaces."+name+".path"]; !ok {
			return fmt.Errorf("pod: the Task has no workspace %s", name)
		}
	}
	return nil
}

// results reads the declared results, as they are, a newline at the end included.
func (t *task) results(p *Pod) (map[string]string, error) {
	values := map[string]string{}
	for _, r := range t.Spec.Results {
		value, found, err := p.readResult(path.Join(tektonResults, r.Name))
		if err != nil {
			return nil, err
		}
		if found {
			values[r.Name] = value
		}
	}
	return values, nil
}

func tektonVar() *regexp.Regexp { return regexp.MustCompile(`\$\(([^()]*)\)`) }

// substitute replaces references in one pass, so that a value is never taken
// for a reference. Tekton leaves what it does not know as it is.
func substitute(form *regexp.Regexp, text string, replace map[string]string) string {
	return form.ReplaceAllStringFunc(text, func(ref string) string {
		if value, ok := replace[strings.TrimSpace(form.FindStringSubmatch(ref)[1])]; ok {
			return value
		}
		return ref
	})
}

func decode(file string, into any) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("pod: %w", err)
	}
	if err := yaml.Unmarshal(content, into); err != nil {
		return fmt.Errorf("pod: %s: %w", file, err)
	}
	return nil
}

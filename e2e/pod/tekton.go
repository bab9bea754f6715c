// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"errors"
	"fmt"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// TaskRun is what a user of a Task gives.
type TaskRun struct {
	Params map[string]string
	// Arrays are the parameters of type array.
	Arrays map[string][]string
	// Workspaces maps the name of a workspace to a directory of this machine.
	Workspaces map[string]string
	// Secrets maps the name of a Secret to a directory with its keys as files.
	Secrets map[string]string
}

// task holds what is needed of a Task. Tekton's own types would do as well,
// but they cost a build of half of Kubernetes.
type task struct {
	Spec struct {
		Params     []taskParam `json:"params"`
		Workspaces []struct {
			Name     string `json:"name"`
			Optional bool   `json:"optional"`
		} `json:"workspaces"`
		Results      []taskResult `json:"results"`
		Volumes      []volume     `json:"volumes"`
		StepTemplate struct {
			Env []envVar `json:"env"`
		} `json:"stepTemplate"`
		Steps []container `json:"steps"`
	} `json:"spec"`
}

// stepAction holds what is needed of a StepAction.
type stepAction struct {
	Spec struct {
		Params  []taskParam  `json:"params"`
		Results []taskResult `json:"results"`
		container
	} `json:"spec"`
}

type taskParam struct {
	Name    string `json:"name"`
	Type    string `json:"type"`
	Default any    `json:"default"`
}

type taskResult struct {
	Name string `json:"name"`
}

// Where Tekton keeps results and credentials in a pod.
const (
	tektonResults     = "/tekton/results"
	tektonCredentials = "/tekton/creds" //nolint:gosec // a path
	tektonSteps       = "/tekton/steps"
)

// Tekton makes the pod of a Task with one step below the directory root. It
// fails where the controller would refuse the run.
func Tekton(file string, run TaskRun, root string) (*Pod, error) {
	steps, err := TektonSteps(file, run, root)
	if err != nil {
		return nil, err
	}
	if len(steps) != 1 {
		return nil, fmt.Errorf("pod: %s has %d steps, not 1", file, len(steps))
	}
	return steps[0], nil
}

// TektonSteps makes the steps of a Task, to be run in this order. They share
// volumes and results; each sees only the volumes that it mounts.
func TektonSteps(file string, run TaskRun, root string) ([]*Pod, error) {
	var t task
	if err := decode(file, &t); err != nil {
		return nil, err
	}
	return t.steps(run, root, tektonResults)
}

// StepAction makes the pod of a Task whose only step is the StepAction. The
// Task has the volume "work", and workspaces as TaskRun says, all at /workspace/NAME.
func StepAction(file string, run TaskRun, root string) (*Pod, error) {
	var s stepAction
	if err := decode(file, &s); err != nil {
		return nil, err
	}
	t := task{}
	t.Spec.Params, t.Spec.Results, t.Spec.Steps = s.Spec.Params, s.Spec.Results, []container{s.Spec.container}
	t.Spec.Steps[0].Name = "build"
	t.Spec.Volumes = []volume{{Name: "work", EmptyDir: &struct{}{}}}
	for name := range run.Workspaces {
		t.Spec.Workspaces = append(t.Spec.Workspaces, struct {
			Name     string `json:"name"`
			Optional bool   `json:"optional"`
		}{Name: name})
	}
	steps, err := t.steps(run, root, tektonSteps+"/step-build/results")
	if err != nil {
		return nil, err
	}
	return steps[0], nil
}

func (t *task) steps(run TaskRun, root, results string) ([]*Pod, error) {
	replace, arrays, err := t.params(run)
	if err != nil {
		return nil, err
	}
	all := &Pod{root: root} // what every step has
	if err := t.bind(all, run.Workspaces, replace); err != nil {
		return nil, err
	}
	for _, dir := range []string{results, tektonCredentials, "/root"} {
		if err := all.mkdir(dir); err != nil {
			return nil, err
		}
	}
	replace["credentials.path"] = tektonCredentials
	for _, r := range t.Spec.Results {
		replace["step.results."+r.Name+".path"] = path.Join(results, r.Name)
	}
	v := volumes{list: t.Spec.Volumes, secrets: run.Secrets, root: root, form: tektonVar(), replace: replace}
	var steps []*Pod
	for _, s := range t.Spec.Steps {
		p := &Pod{Name: s.Name, root: root, mounts: slices.Clone(all.mounts)}
		p.read = func(p *Pod) (map[string]string, error) { return t.results(p, results) }
		if err := v.mount(p, s.VolumeMounts); err != nil {
			return nil, err
		}
		env, err := expand(slices.Concat(t.Spec.StepTemplate.Env, s.Env), tektonVar(), replace)
		if err != nil {
			return nil, err
		}
		p.setEnv(nil, env)
		if p.Command, err = words(slices.Concat(s.Command, s.Args), replace, arrays); err != nil {
			return nil, err
		}
		if err := p.workIn(substitute(tektonVar(), s.WorkingDir, replace)); err != nil {
			return nil, err
		}
		steps = append(steps, p)
	}
	return steps, nil
}

// params gives the values of all parameters. An empty value is a value: the
// default does not come back. What the Task does not have is ignored.
func (t *task) params(run TaskRun) (replace map[string]string, arrays map[string][]string, err error) {
	replace, arrays = map[string]string{}, map[string][]string{}
	for _, d := range t.Spec.Params {
		text, isText := run.Params[d.Name]
		list, isList := run.Arrays[d.Name]
		if !isText && !isList {
			switch def := d.Default.(type) {
			case string:
				text = def
			case []any:
				isList = true
				for _, item := range def {
					list = append(list, fmt.Sprint(item))
				}
			default:
				return nil, nil, fmt.Errorf("pod: parameter %s has no value", d.Name)
			}
		}
		if isList != (d.Type == "array") {
			return nil, nil, fmt.Errorf("pod: parameter %s is of type %q", d.Name, d.Type)
		}
		if isList {
			arrays["params."+d.Name+"[*]"] = list
		} else {
			replace["params."+d.Name] = text
		}
	}
	return replace, arrays, nil
}

// words replaces references in a command line; one to an array, which is a
// word by itself, becomes the words of the array.
func words(line []string, replace map[string]string, arrays map[string][]string) ([]string, error) {
	var list []string
	for _, word := range line {
		if m := tektonVar().FindStringSubmatch(word); m != nil && m[0] == word {
			if items, ok := arrays[m[1]]; ok {
				list = append(list, items...)
				continue
			}
		}
		if strings.Contains(word, "[*]") {
			return nil, fmt.Errorf("pod: %s is no array by itself", word)
		}
		list = append(list, substitute(tektonVar(), word, replace))
	}
	return list, nil
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
func (t *task) results(p *Pod, dir string) (map[string]string, error) {
	values := map[string]string{}
	for _, r := range t.Spec.Results {
		value, found, err := p.readResult(path.Join(dir, r.Name))
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

var errNoVolume = errors.New("there is no such volume")

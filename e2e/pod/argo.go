// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Call is what a user of a WorkflowTemplate gives to one of its templates.
type Call struct {
	Parameters map[string]string
	// Artifacts maps the name of an input artifact to a directory of this machine.
	Artifacts map[string]string
	// Secrets maps the name of a Secret or ConfigMap to a directory with its keys as files.
	Secrets map[string]string
	// Volumes maps the name of a volume of the calling workflow to a directory of this machine.
	Volumes map[string]string
}

type workflowTemplate struct {
	Spec struct {
		Templates []argoTemplate `json:"templates"`
	} `json:"spec"`
}

type argoTemplate struct {
	Name   string `json:"name"`
	Inputs struct {
		Parameters []argoParameter `json:"parameters"`
		Artifacts  []struct {
			Name     string `json:"name"`
			Path     string `json:"path"`
			Optional bool   `json:"optional"`
		} `json:"artifacts"`
	} `json:"inputs"`
	Outputs struct {
		Parameters []struct {
			Name      string `json:"name"`
			ValueFrom struct {
				Path      string  `json:"path"`
				Parameter string  `json:"parameter"`
				Default   *string `json:"default"`
			} `json:"valueFrom"`
		} `json:"parameters"`
	} `json:"outputs"`
	Volumes      []volume  `json:"volumes"`
	Container    container `json:"container"`
	ContainerSet struct {
		VolumeMounts []volumeMount `json:"volumeMounts"`
		Containers   []struct {
			container
			Dependencies []string `json:"dependencies"`
		} `json:"containers"`
	} `json:"containerSet"`
	Steps [][]argoStep `json:"steps"`
}

type argoParameter struct {
	Name  string  `json:"name"`
	Value *string `json:"value"`
}

// argoDir is where the executor keeps its own files in the main container.
const argoDir = "/var/run/argo"

// Argo makes the pod of a template with one container below the directory
// root. It fails where the controller would.
func Argo(file, template string, call Call, root string) (*Pod, error) {
	list, err := ArgoContainers(file, template, call, root)
	if err != nil {
		return nil, err
	}
	if len(list) != 1 {
		return nil, fmt.Errorf("pod: template %s has %d containers, not 1", template, len(list))
	}
	return list[0], nil
}

// ArgoContainers makes the containers of a template, to be run in this order.
func ArgoContainers(file, template string, call Call, root string) ([]*Pod, error) {
	t, err := findTemplate(file, template)
	if err != nil {
		return nil, err
	}
	return t.pods(call, root)
}

func findTemplate(file, template string) (*argoTemplate, error) {
	var wt workflowTemplate
	if err := decode(file, &wt); err != nil {
		return nil, err
	}
	for i := range wt.Spec.Templates {
		if t := &wt.Spec.Templates[i]; t.Name == template {
			return t, nil
		}
	}
	return nil, fmt.Errorf("pod: %s has no template %s", file, template)
}

// containers gives those of the template, those that others depend on first.
func (t *argoTemplate) containers() ([]container, error) {
	if len(t.ContainerSet.Containers) == 0 {
		c := t.Container
		c.Name = "main"
		return []container{c}, nil
	}
	var list []container
	done := map[string]bool{}
	for len(list) < len(t.ContainerSet.Containers) {
		before := len(list)
		for _, c := range t.ContainerSet.Containers {
			ready := !slices.ContainsFunc(c.Dependencies, func(d string) bool { return !done[d] })
			if ready && !done[c.Name] {
				list, done[c.Name] = append(list, c.container), true
			}
		}
		if len(list) == before {
			return nil, fmt.Errorf("pod: the containers of %s wait for each other", t.Name)
		}
	}
	return list, nil
}

func (t *argoTemplate) pods(call Call, root string) ([]*Pod, error) {
	replace, err := t.parameters(call.Parameters)
	if err != nil {
		return nil, err
	}
	all := &Pod{root: root} // what every container has
	for _, dir := range []string{argoDir, "/root"} {
		if err := all.mkdir(dir); err != nil {
			return nil, err
		}
	}
	containers, err := t.containers()
	if err != nil {
		return nil, err
	}
	v := volumes{list: t.Volumes, secrets: call.Secrets, others: call.Volumes, root: root, form: argoVar(), replace: replace}
	var list []*Pod
	for _, c := range containers {
		p := &Pod{Name: c.Name, root: root, mounts: slices.Clone(all.mounts), read: t.results, Command: slices.Concat(c.Command, c.Args)}
		if err := v.mount(p, slices.Concat(t.ContainerSet.VolumeMounts, c.VolumeMounts)); err != nil {
			return nil, err
		}
		if err := t.artifacts(p, call.Artifacts); err != nil {
			return nil, err
		}
		env, err := expand(c.Env, argoVar(), replace)
		if err != nil {
			return nil, err
		}
		p.setEnv([]envVar{
			{Name: "ARGO_CONTAINER_NAME", Value: c.Name},
			{Name: "ARGO_PROGRESS_FILE", Value: argoDir + "/progress"},
		}, env)
		if err := p.workIn(substitute(argoVar(), c.WorkingDir, replace)); err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, nil
}

func (t *argoTemplate) parameters(given map[string]string) (map[string]string, error) {
	replace := map[string]string{}
	for _, d := range t.Inputs.Parameters {
		value, ok := given[d.Name]
		switch {
		case ok:
		case d.Value != nil:
			value = *d.Value
		default:
			return nil, fmt.Errorf("pod: input parameter %s has no value", d.Name)
		}
		replace["inputs.parameters."+d.Name] = value
	}
	for name := range given {
		if _, ok := replace["inputs.parameters."+name]; !ok {
			return nil, fmt.Errorf("pod: the template has no input parameter %s", name)
		}
	}
	return replace, nil
}

func (t *argoTemplate) artifacts(p *Pod, given map[string]string) error {
	known := map[string]bool{}
	for _, a := range t.Inputs.Artifacts {
		known[a.Name] = true
		dir, ok := given[a.Name]
		// Of a set, containers other than main have an artifact only on a volume of all.
		shared := slices.ContainsFunc(t.ContainerSet.VolumeMounts, func(m volumeMount) bool { return strings.HasPrefix(a.Path, m.MountPath+"/") })
		if ok && (p.Name == "main" || shared) {
			p.mount(a.Path, dir)
		} else if !ok && !a.Optional {
			return fmt.Errorf("pod: input artifact %s is missing", a.Name)
		}
	}
	for name := range given {
		if !known[name] {
			return fmt.Errorf("pod: the template has no input artifact %s", name)
		}
	}
	return nil
}

// results reads the output parameters. Argo drops one newline at the end and
// takes the default for a file that is missing.
func (t *argoTemplate) results(p *Pod) (map[string]string, error) {
	values := map[string]string{}
	for _, o := range t.Outputs.Parameters {
		value, found, err := p.readResult(path.Clean(o.ValueFrom.Path))
		switch {
		case err != nil:
			return nil, err
		case found:
			values[o.Name] = strings.TrimSuffix(value, "\n")
		case o.ValueFrom.Default != nil:
			values[o.Name] = *o.ValueFrom.Default
		default:
			return nil, fmt.Errorf("pod: output parameter %s has neither file nor default", o.Name)
		}
	}
	return values, nil
}

func argoVar() *regexp.Regexp { return regexp.MustCompile(`\{\{([^{}]*)\}\}`) }

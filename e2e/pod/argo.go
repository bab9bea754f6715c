// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"fmt"
	"path"
	"regexp"
	"strings"
)

// Call is what a user of a WorkflowTemplate gives to one of its templates.
type Call struct {
	Parameters map[string]string
	// Artifacts maps the name of an input artifact to a directory of this machine.
	Artifacts map[string]string
	// Secrets maps the name of a Secret to a directory with its keys as files.
	Secrets map[string]string
}

type workflowTemplate struct {
	Spec struct {
		Templates []argoTemplate `json:"templates"`
	} `json:"spec"`
}

type argoTemplate struct {
	Name   string `json:"name"`
	Inputs struct {
		Parameters []struct {
			Name  string  `json:"name"`
			Value *string `json:"value"`
		} `json:"parameters"`
		Artifacts []struct {
			Name     string `json:"name"`
			Path     string `json:"path"`
			Optional bool   `json:"optional"`
		} `json:"artifacts"`
	} `json:"inputs"`
	Outputs struct {
		Parameters []struct {
			Name      string `json:"name"`
			ValueFrom struct {
				Path    string  `json:"path"`
				Default *string `json:"default"`
			} `json:"valueFrom"`
		} `json:"parameters"`
	} `json:"outputs"`
	Volumes   []volume `json:"volumes"`
	Container struct {
		Command      []string      `json:"command"`
		WorkingDir   string        `json:"workingDir"`
		Env          []envVar      `json:"env"`
		VolumeMounts []volumeMount `json:"volumeMounts"`
	} `json:"container"`
}

// argoDir is where the executor keeps its own files in the main container.
const argoDir = "/var/run/argo"

// Argo makes the pod of a template of a WorkflowTemplate below the directory
// root. It fails where the controller would.
func Argo(file, template string, call Call, root string) (*Pod, error) {
	var wt workflowTemplate
	if err := decode(file, &wt); err != nil {
		return nil, err
	}
	for i := range wt.Spec.Templates {
		if t := &wt.Spec.Templates[i]; t.Name == template {
			return t.pod(call, root)
		}
	}
	return nil, fmt.Errorf("pod: %s has no template %s", file, template)
}

func (t *argoTemplate) pod(call Call, root string) (*Pod, error) {
	p := &Pod{root: root, read: t.results, Command: t.Container.Command}
	replace, err := t.parameters(call.Parameters)
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{argoDir, "/root"} {
		if err := p.mkdir(dir); err != nil {
			return nil, err
		}
	}
	if err := t.artifacts(p, call.Artifacts); err != nil {
		return nil, err
	}
	if err := t.volumes(p, call.Secrets, replace); err != nil {
		return nil, err
	}
	env, err := expand(t.Container.Env, argoVar(), replace)
	if err != nil {
		return nil, err
	}
	p.setEnv([]envVar{
		{Name: "ARGO_CONTAINER_NAME", Value: "main"},
		{Name: "ARGO_PROGRESS_FILE", Value: argoDir + "/progress"},
	}, env)
	dir, ok := p.outside(t.Container.WorkingDir)
	if !ok {
		// The runtime makes a working directory that does not exist.
		if err := p.mkdir(t.Container.WorkingDir); err != nil {
			return nil, err
		}
		dir, _ = p.outside(t.Container.WorkingDir)
	}
	p.Dir = dir
	return p, nil
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
		if ok {
			p.mount(a.Path, dir)
		} else if !a.Optional {
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

// volumes mounts emptyDirs and Secrets. An optional Secret that is missing is
// an empty directory.
func (t *argoTemplate) volumes(p *Pod, secrets, replace map[string]string) error {
	byName := map[string]volume{}
	for _, v := range t.Volumes {
		byName[v.Name] = v
	}
	for _, m := range t.Container.VolumeMounts {
		v, ok := byName[m.Name]
		if !ok {
			return fmt.Errorf("pod: there is no volume %s", m.Name)
		}
		if v.Secret != nil {
			name := substitute(argoVar(), v.Secret.SecretName, replace)
			if dir, ok := secrets[name]; ok {
				p.mount(m.MountPath, dir)
				continue
			}
			if !v.Secret.Optional {
				return fmt.Errorf("pod: there is no secret %s", name)
			}
		}
		if err := p.mkdir(m.MountPath); err != nil {
			return err
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

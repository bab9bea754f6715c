// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"strconv"
)

type argoStep struct {
	Name      string `json:"name"`
	Template  string `json:"template"`
	WithParam string `json:"withParam"`
	Arguments struct {
		Parameters []argoParameter `json:"parameters"`
		Artifacts  []struct {
			Name string `json:"name"`
			From string `json:"from"`
		} `json:"artifacts"`
	} `json:"arguments"`
}

// ArgoSteps carries out a template that consists of steps: run gets each pod,
// the items of a loop one after the other, and gives its outputs. The result
// is the outputs of the template.
func ArgoSteps(file, template string, call Call, root string, run func(*Pod) (map[string]string, error)) (map[string]string, error) {
	t, err := findTemplate(file, template)
	if err != nil {
		return nil, err
	}
	scope, err := t.parameters(call.Parameters)
	if err != nil {
		return nil, err
	}
	for _, group := range t.Steps {
		for _, step := range group {
			s := stepRun{file: file, step: step, call: call, scope: scope, root: filepath.Join(root, step.Name), run: run}
			if err := s.do(); err != nil {
				return nil, fmt.Errorf("pod: step %s: %w", step.Name, err)
			}
		}
	}
	outputs := map[string]string{}
	for _, o := range t.Outputs.Parameters {
		outputs[o.Name] = substitute(argoVar(), o.ValueFrom.Parameter, scope)
	}
	return outputs, nil
}

// stepRun is one step of a template under way.
type stepRun struct {
	file string
	step argoStep
	call Call
	// scope is what references stand for; outputs are added to it.
	scope map[string]string
	root  string
	run   func(*Pod) (map[string]string, error)
}

func (s stepRun) do() error {
	if s.step.WithParam == "" {
		outputs, err := s.once(s.scope, s.root)
		if err != nil {
			return err
		}
		for name, value := range outputs {
			s.scope["steps."+s.step.Name+".outputs.parameters."+name] = value
		}
		return nil
	}
	var items []map[string]string
	list := substitute(argoVar(), s.step.WithParam, s.scope)
	if err := json.Unmarshal([]byte(list), &items); err != nil {
		return fmt.Errorf("withParam: %w", err)
	}
	collected := map[string][]string{}
	for i, item := range items {
		scope := maps.Clone(s.scope)
		for key, value := range item {
			scope["item."+key] = value
		}
		outputs, err := s.once(scope, filepath.Join(s.root, strconv.Itoa(i)))
		if err != nil {
			return err
		}
		for name, value := range outputs {
			collected[name] = append(collected[name], value)
		}
	}
	for name, values := range collected { // what a loop gives is a list in JSON
		text, err := json.Marshal(values)
		if err != nil {
			return err
		}
		s.scope["steps."+s.step.Name+".outputs.parameters."+name] = string(text)
	}
	return nil
}

// once runs the template of the step.
func (s stepRun) once(scope map[string]string, root string) (map[string]string, error) {
	call := Call{Parameters: map[string]string{}, Artifacts: map[string]string{}, Secrets: s.call.Secrets, Volumes: s.call.Volumes}
	for _, p := range s.step.Arguments.Parameters {
		if p.Value == nil {
			return nil, fmt.Errorf("the argument %s has no value", p.Name)
		}
		call.Parameters[p.Name] = substitute(argoVar(), *p.Value, scope)
	}
	for _, a := range s.step.Arguments.Artifacts {
		for name, dir := range s.call.Artifacts {
			if a.From == "{{inputs.artifacts."+name+"}}" {
				call.Artifacts[a.Name] = dir
			}
		}
	}
	p, err := Argo(s.file, s.step.Template, call, root)
	if err != nil {
		return nil, err
	}
	return s.run(p)
}

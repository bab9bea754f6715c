// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
)

// container is what steps and Argo's containers have in common.
type container struct {
	Name         string        `json:"name"`
	Command      []string      `json:"command"`
	Args         []string      `json:"args"`
	WorkingDir   string        `json:"workingDir"`
	Env          []envVar      `json:"env"`
	VolumeMounts []volumeMount `json:"volumeMounts"`
}

type volume struct {
	Name     string    `json:"name"`
	EmptyDir *struct{} `json:"emptyDir"`
	Secret   *struct {
		SecretName string `json:"secretName"`
		Optional   bool   `json:"optional"`
	} `json:"secret"`
	ConfigMap *struct {
		Name     string `json:"name"`
		Optional bool   `json:"optional"`
	} `json:"configMap"`
}

type volumeMount struct {
	Name      string `json:"name"`
	MountPath string `json:"mountPath"`
}

// volumes are those of a pod: what one container writes to an emptyDir the
// others that mount it find there.
type volumes struct {
	list []volume
	// secrets maps the names of Secrets and ConfigMaps to directories of this machine.
	secrets map[string]string
	// others are volumes of the caller, by name.
	others  map[string]string
	root    string
	form    *regexp.Regexp
	replace map[string]string
}

// mount puts volumes where a container wants them.
func (v volumes) mount(p *Pod, mounts []volumeMount) error {
	for _, m := range mounts {
		dir, err := v.find(substitute(v.form, m.Name, v.replace))
		if err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return err
		}
		p.mount(m.MountPath, dir)
	}
	return nil
}

// find gives the directory of a volume. A Secret that is optional and missing
// is an empty one.
func (v volumes) find(name string) (string, error) {
	if dir, ok := v.others[name]; ok {
		return dir, nil
	}
	for _, candidate := range v.list {
		if candidate.Name != name {
			continue
		}
		object, optional := "", true
		switch {
		case candidate.Secret != nil:
			object, optional = candidate.Secret.SecretName, candidate.Secret.Optional
		case candidate.ConfigMap != nil:
			object, optional = candidate.ConfigMap.Name, candidate.ConfigMap.Optional
		case candidate.EmptyDir == nil:
			return "", fmt.Errorf("pod: volume %s is of a kind that is not emulated", name)
		}
		if object != "" {
			object = substitute(v.form, object, v.replace)
			if dir, ok := v.secrets[object]; ok {
				return dir, nil
			}
		}
		if !optional {
			return "", fmt.Errorf("pod: there is no Secret or ConfigMap %s", object)
		}
		return filepath.Join(v.root, "volumes", name), nil
	}
	return "", fmt.Errorf("pod: volume %s: %w", name, errNoVolume)
}

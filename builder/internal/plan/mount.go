// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/kaniko-go/kaniko-go/builder/internal/dockerfile"
)

const (
	secretMode = 0o400
	sshMode    = 0o600
	// sshSockets is where agents' sockets are that have no target, by number.
	sshSockets = "/run/buildkit/ssh_agent."
	authSock   = "SSH_AUTH_SOCK"
)

// mounts plans the mounts of the RUN at hand. It gives the environment too,
// where the first agent's socket is named.
func (s *stageState) mounts(env []string) ([]Mount, []string, error) {
	given, err := dockerfile.Mounts(s.at.flags, s.expand)
	if err != nil || len(given) == 0 {
		return nil, env, err
	}
	var mounts []Mount
	agents := 0
	for i, m := range given {
		from := s.at.mounts[i]
		if from == s.node {
			return nil, nil, fmt.Errorf("circular dependency detected on stage: %s", s.node.name)
		}
		if from != nil && from.index >= 0 && from.stage == nil {
			return nil, nil, fmt.Errorf("cannot mount from stage %q to %q, stage needs to be defined before current command", m.From, m.Target)
		}
		var mount Mount
		switch m.Type {
		case instructions.MountTypeSecret:
			mount, err = secretMount(m)
		case instructions.MountTypeSSH:
			mount, err = sshMount(m, agents)
			if agents == 0 && err == nil {
				env = withAuthSock(env, mount.Target)
			}
			agents++
		default:
			mount, err = s.fileMount(m, from)
		}
		if err != nil {
			return nil, nil, err
		}
		mounts = append(mounts, mount)
	}
	slices.SortStableFunc(mounts, func(a, b Mount) int { return strings.Compare(a.Target, b.Target) })
	return mounts, env, nil
}

// fileMount is a bind, a cache or a tmpfs.
func (s *stageState) fileMount(m *instructions.Mount, from *node) (Mount, error) {
	mount := Mount{Type: string(m.Type), Target: m.Target, ReadOnly: m.ReadOnly}
	if !path.IsAbs(m.Target) {
		mount.Target = path.Join(s.dir(), m.Target)
	}
	if mount.Target = path.Clean(mount.Target); mount.Target == "/" {
		return Mount{}, fmt.Errorf("invalid mount target %q", mount.Target)
	}
	if m.Type == instructions.MountTypeTmpfs {
		mount.Size = m.SizeLimit
		return mount, nil
	}
	mount.Source = cleanSource(m.Source)
	if from != nil {
		source := from.source()
		mount.From = &source
	}
	if m.Type == instructions.MountTypeCache {
		mount.cache(m, s.p.buildArgs["BUILDKIT_CACHE_MOUNT_NS"])
	}
	return mount, nil
}

// cache fills in what only caches have. A new directory with an owner or mode of its
// own takes the place of the root that a cache would begin with, but not of a source below it.
func (mount *Mount) cache(m *instructions.Mount, namespace string) {
	id := m.CacheID
	if id == "" {
		id = path.Clean(m.Target)
	}
	mount.ID = namespace + "/" + id
	if mount.Sharing = string(m.CacheSharing); mount.Sharing == "" {
		mount.Sharing = string(instructions.MountSharingShared)
	}
	if mount.Source != "." || m.UID == nil && m.GID == nil && m.Mode == nil {
		return
	}
	mount.From = nil
	mount.Mode, mount.UID, mount.GID = number(m.Mode), number(m.UID), number(m.GID)
}

// secretMount is a file, a variable or both.
func secretMount(m *instructions.Mount) (Mount, error) {
	mount := Mount{Type: string(m.Type), Target: m.Target, ID: m.CacheID, Required: m.Required, ReadOnly: true}
	if m.Source != "" {
		mount.ID = m.Source
	}
	if mount.ID == "" {
		if m.Target == "" {
			return Mount{}, errors.New("one of source, target required")
		}
		mount.ID = path.Base(m.Target)
	}
	if m.Env != nil {
		mount.Env = *m.Env
	} else if mount.Target == "" {
		mount.Target = "/run/secrets/" + path.Base(mount.ID)
	}
	if mount.Target == "" {
		return mount, nil
	}
	if mount.Target = path.Join("/", mount.Target); mount.Target == "/" {
		return Mount{}, fmt.Errorf("invalid mount target %q", mount.Target)
	}
	mount.owned(m, secretMode)
	return mount, nil
}

// sshMount is the socket of an agent, the n-th of the RUN from 0.
func sshMount(m *instructions.Mount, n int) (Mount, error) {
	if m.Source != "" {
		return Mount{}, errors.New("ssh does not support source")
	}
	mount := Mount{Type: string(m.Type), Target: m.Target, ID: m.CacheID, Required: m.Required, ReadOnly: m.ReadOnly}
	if mount.ID == "" {
		mount.ID = "default"
	}
	if mount.Target == "" {
		mount.Target = fmt.Sprintf("%s%d", sshSockets, n)
	}
	if mount.Target = path.Join("/", mount.Target); mount.Target == "/" {
		return Mount{}, fmt.Errorf("invalid mount target %q", mount.Target)
	}
	mount.owned(m, sshMode)
	return mount, nil
}

// owned sets owner and mode with their defaults.
func (mount *Mount) owned(m *instructions.Mount, mode uint32) {
	mount.Mode, mount.UID, mount.GID = &mode, new(uint32), new(uint32)
	if m.Mode != nil {
		mount.Mode = number(m.Mode)
	}
	if m.UID != nil {
		mount.UID = number(m.UID)
	}
	if m.GID != nil {
		mount.GID = number(m.GID)
	}
}

// number is a number that was parsed to fit.
func number(n *uint64) *uint32 {
	if n == nil {
		return nil
	}
	small := uint32(*n)
	return &small
}

// withAuthSock names an agent's socket unless the stage does so itself.
func withAuthSock(env []string, socket string) []string {
	if slices.ContainsFunc(env, func(pair string) bool {
		key, _ := dockerfile.SplitPair(pair)
		return key == authSock
	}) {
		return env
	}
	return append(slices.Clone(env), authSock+"="+socket)
}

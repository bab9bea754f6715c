// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/kaniko-go/kaniko-go/builder/internal/plan"
	"github.com/kaniko-go/kaniko-go/builder/internal/store"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
	"github.com/kaniko-go/kaniko-go/builder/internal/unpack"
	"github.com/kaniko-go/kaniko-go/builder/isolation"
)

// mounted is what RUN --mount adds to a process.
type mounted struct {
	mounts []isolation.Mount
	env    []string
	// undo is called, last first, when the process is dead.
	undo []func()
}

func (m *mounted) release() {
	for i := len(m.undo) - 1; i >= 0; i-- {
		m.undo[i]()
	}
}

// mounts prepares all mounts of a RUN. The caller releases them when the process is dead, also after an error.
func (r *run) mounts(ctx context.Context, op plan.Run) (*mounted, error) {
	m := &mounted{}
	held, err := r.claimCaches(ctx, m, op)
	if err != nil {
		m.release()
		return nil, err
	}
	for _, pm := range op.Mounts {
		var err error
		switch pm.Type {
		case "bind":
			err = r.bindMount(ctx, m, pm)
		case "cache":
			dir := held[cacheKey(pm, idKind(r.x.Isolation))]
			m.mounts = append(m.mounts, isolation.Mount{Target: pm.Target, Source: dir, ReadOnly: pm.ReadOnly})
		case "tmpfs":
			m.mounts = append(m.mounts, isolation.Mount{Target: pm.Target, Tmpfs: &isolation.Tmpfs{Size: pm.Size}})
		case "secret":
			err = r.secretMount(m, pm)
		case "ssh":
			err = r.sshMount(m, pm)
		default:
			err = fmt.Errorf("unsupported mount type %q", pm.Type)
		}
		if err != nil {
			m.release()
			return nil, err
		}
	}
	return m, nil
}

// bindMount shows files of another source. What a writable one receives is dropped.
func (r *run) bindMount(ctx context.Context, m *mounted, pm plan.Mount) error {
	t, err := r.source(ctx, pm.From)
	if err != nil {
		return err
	}
	ino, err := t.Stat(pm.Source)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("mount source %q: not found", "/"+pm.Source)
	}
	if err != nil {
		return err
	}
	dir, err := r.x.sources.get(ctx, ino, !pm.ReadOnly)
	if err != nil {
		return err
	}
	m.mounts = append(m.mounts, isolation.Mount{Target: pm.Target, Source: dir, ReadOnly: pm.ReadOnly})
	return nil
}

// sources are parts of Trees on disk, for mounts. One that is only read is unpacked once and shared.
type sources struct {
	disk *store.Store
	mu   sync.Mutex
	read map[*tree.Inode]*unpackedSource
}

type unpackedSource struct {
	once sync.Once
	path string
	err  error
}

// get returns the path of a directory or file with what ino has.
func (s *sources) get(ctx context.Context, ino *tree.Inode, writable bool) (string, error) {
	if writable {
		return s.unpack(ctx, ino)
	}
	s.mu.Lock()
	u := s.read[ino]
	if u == nil {
		if s.read == nil {
			s.read = map[*tree.Inode]*unpackedSource{}
		}
		u = &unpackedSource{}
		s.read[ino] = u
	}
	s.mu.Unlock()
	u.once.Do(func() { u.path, u.err = s.unpack(ctx, ino) })
	return u.path, u.err
}

func (s *sources) unpack(ctx context.Context, ino *tree.Inode) (string, error) {
	dir, err := s.disk.TempDir("mount-")
	if err != nil {
		return "", err
	}
	t, path := tree.FromRoot(tree.NewDir(tree.Meta{Mode: 0o755}, tree.Entry{Name: "mount", Inode: ino})), filepath.Join(dir, "mount")
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return "", err
	}
	_, err = unpack.Apply(ctx, f, tree.Empty(), t, unpack.Lower)
	return path, errors.Join(err, f.Close())
}

// Secret is what RUN --mount=type=secret can ask for.
type Secret struct {
	// File is read when the build begins; Value is used where File is "".
	File  string
	Value []byte
}

// secretLimit is the most that one secret may have, as in BuildKit.
const secretLimit = 500 << 10

// secretMount shows a secret as a file in memory, as a variable, or both.
func (r *run) secretMount(m *mounted, pm plan.Mount) error {
	value, ok := r.x.secrets[pm.ID]
	if !ok {
		if pm.Required {
			return fmt.Errorf("secret %s: not found", pm.ID)
		}
		if pm.Env != "" {
			m.env = append(m.env, pm.Env+"=") // set and empty, as BuildKit has it
		}
		return nil
	}
	if pm.Env != "" {
		m.env = append(m.env, pm.Env+"="+string(value))
	}
	if pm.Target == "" {
		return nil
	}
	file := &isolation.DataFile{Data: value, Mode: 0o400}
	if pm.Mode != nil {
		file.Mode = *pm.Mode
	}
	if pm.UID != nil {
		file.UID = *pm.UID
	}
	if pm.GID != nil {
		file.GID = *pm.GID
	}
	m.mounts = append(m.mounts, isolation.Mount{Target: pm.Target, Data: file})
	return nil
}

// readSecrets reads all secrets, before the first RUN could get at their files. One that is not there is told to missing, and not
// found by the RUN that asks for it.
func readSecrets(in map[string]Secret, missing func(id, file string)) (map[string][]byte, error) {
	out := map[string][]byte{}
	for id, s := range in {
		value := s.Value
		if s.File != "" {
			var err error
			value, err = readSmall(s.File, secretLimit)
			if errors.Is(err, fs.ErrNotExist) {
				missing(id, s.File)
				continue
			}
			if err != nil {
				return nil, &setupError{fmt.Errorf("secret %s: %w", id, err)}
			}
		}
		if len(value) > secretLimit {
			return nil, &setupError{fmt.Errorf("secret %s: %d bytes, more than the limit of %d", id, len(value), secretLimit)}
		}
		out[id] = value
	}
	return out, nil
}

// readSmall reads a regular file that has no more than limit bytes.
func readSmall(name string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > limit {
		return nil, fmt.Errorf("%s is no regular file of at most %d bytes", name, limit)
	}
	b := make([]byte, st.Size())
	n, err := f.ReadAt(b, 0)
	if n == len(b) {
		err = nil
	}
	return b[:n], err
}

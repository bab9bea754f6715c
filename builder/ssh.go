// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/kaniko-go/kaniko-go/builder/internal/plan"
	"github.com/kaniko-go/kaniko-go/builder/isolation"
)

// keyLimit bounds a private key's file.
const keyLimit = 100 << 10

// sshAgent answers for one id of RUN --mount=type=ssh: an agent elsewhere, or keys that we hold.
type sshAgent struct {
	socket string
	keys   agent.Agent
	// pem are the keys as they were read.
	pem [][]byte
}

// openAgents looks at what is given for each id: one socket, or files with private keys.
func openAgents(in map[string][]string) (map[string]sshAgent, error) {
	out := map[string]sshAgent{}
	for id, paths := range in {
		a, err := openAgent(paths)
		if err != nil {
			return nil, &setupError{fmt.Errorf("ssh %s: %w", id, err)}
		}
		out[id] = a
	}
	return out, nil
}

func openAgent(paths []string) (sshAgent, error) {
	if len(paths) == 1 {
		st, err := os.Stat(paths[0])
		if err != nil {
			return sshAgent{}, err
		}
		if st.Mode()&os.ModeSocket != 0 {
			return sshAgent{socket: paths[0]}, nil
		}
	}
	a := sshAgent{keys: agent.NewKeyring()}
	for _, p := range paths {
		b, err := readSmall(p, keyLimit)
		if err != nil {
			return sshAgent{}, err
		}
		key, err := ssh.ParseRawPrivateKey(b)
		if err != nil {
			return sshAgent{}, fmt.Errorf("%s: %w", p, err)
		}
		if err := a.keys.Add(agent.AddedKey{PrivateKey: key}); err != nil {
			return sshAgent{}, fmt.Errorf("%s: %w", p, err)
		}
		a.pem = append(a.pem, b)
	}
	return a, nil
}

// serve answers one connection from a RUN.
func (a sshAgent) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	keys := a.keys
	if a.socket != "" {
		up, err := net.Dial("unix", a.socket) //nolint:noctx // a local socket; the connection ends with RUN's
		if err != nil {
			return
		}
		defer func() { _ = up.Close() }()
		keys = agent.NewClient(up)
	}
	// The end of a connection is an error here, whichever side ended it.
	_ = agent.ServeAgent(readOnlyAgent{keys}, conn)
}

// errReadOnly answers every request to change what the agent holds.
var errReadOnly = errors.New("the agent is read-only")

// readOnlyAgent lists and signs, and does nothing else for a RUN.
type readOnlyAgent struct{ agent.Agent }

func (readOnlyAgent) Add(agent.AddedKey) error       { return errReadOnly }
func (readOnlyAgent) Remove(ssh.PublicKey) error     { return errReadOnly }
func (readOnlyAgent) RemoveAll() error               { return errReadOnly }
func (readOnlyAgent) Lock([]byte) error              { return errReadOnly }
func (readOnlyAgent) Unlock([]byte) error            { return errReadOnly }
func (readOnlyAgent) Signers() ([]ssh.Signer, error) { return nil, errReadOnly }

// sshMount shows an agent's socket. That the first one is SSH_AUTH_SOCK is in the plan.
func (r *run) sshMount(m *mounted, pm plan.Mount) error {
	a, ok := r.x.agents[pm.ID]
	if !ok {
		if pm.Required {
			return fmt.Errorf("ssh %s: not found", pm.ID)
		}
		return nil
	}
	dir, err := r.x.roots.TempDir("ssh-")
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "agent")
	// The address of a socket has 107 bytes; the directory's descriptor is always short enough.
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	l, err := net.Listen("unix", fmt.Sprintf("/proc/self/fd/%d/agent", d.Fd())) //nolint:noctx // a local socket
	if err := errors.Join(err, d.Close()); err != nil {
		return err
	}
	m.undo = append(m.undo, func() { _ = l.Close() })
	if err := own(path, pm); err != nil {
		return err
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go a.serve(conn)
		}
	}()
	m.mounts = append(m.mounts, isolation.Mount{Target: pm.Target, Source: path})
	return nil
}

func own(path string, pm plan.Mount) error {
	uid, gid, mode := 0, 0, os.FileMode(0o600)
	if pm.UID != nil {
		uid = int(*pm.UID)
	}
	if pm.GID != nil {
		gid = int(*pm.GID)
	}
	if pm.Mode != nil {
		mode = os.FileMode(*pm.Mode & 0o777)
	}
	return errors.Join(os.Chmod(path, mode), os.Lchown(path, uid, gid))
}

// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/go-git/go-git/v5/plumbing/transport"
	gitssh "github.com/go-git/go-git/v5/plumbing/transport/ssh"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// SSH is what git over ssh needs: who we are, and which servers are who they say.
type SSH struct {
	// Agent is the socket of an ssh agent, "" if there is none.
	Agent string
	// Keys are private keys in PEM, without a passphrase. They are tried before those of the agent.
	Keys [][]byte
	// KnownHosts are the servers' keys. A server that is not among them is refused.
	KnownHosts KnownHosts
}

// KnownHosts are the keys of servers, as ReadKnownHosts found them. The zero value knows none.
type KnownHosts struct {
	callback   ssh.HostKeyCallback
	algorithms func(address string) []string
	err        error
}

// ReadKnownHosts reads files in the format of known_hosts, those of them that there are. They are read at once, for a RUN may change them
// later; what is wrong with them is told when a server is asked for.
func ReadKnownHosts(files []string) KnownHosts {
	there := slices.DeleteFunc(slices.Clone(files), func(name string) bool {
		_, err := os.Stat(name)
		return errors.Is(err, fs.ErrNotExist)
	})
	if len(there) == 0 {
		return KnownHosts{}
	}
	db, err := gitssh.NewKnownHostsDb(there...)
	if err != nil {
		return KnownHosts{err: err}
	}
	return KnownHosts{callback: db.HostKeyCallback(), algorithms: db.HostKeyAlgorithms}
}

// transport returns a client for one server. done closes the connection to the agent.
func (s *SSH) transport(ctx context.Context, r remote, timeout time.Duration) (transport.Transport, transport.AuthMethod, func(), error) {
	if s == nil || s.Agent == "" && len(s.Keys) == 0 {
		return nil, nil, nil, errors.New("an ssh address needs an ssh agent or key, and none was given")
	}
	if s.KnownHosts.err != nil {
		return nil, nil, nil, fmt.Errorf("known_hosts: %w", local(s.KnownHosts.err))
	}
	if s.KnownHosts.callback == nil {
		return nil, nil, nil, errors.New("an ssh address needs a known_hosts file to know the server by, and none was given")
	}
	signers, err := s.signers()
	if err != nil {
		return nil, nil, nil, err
	}
	done := func() {}
	if s.Agent != "" {
		conn, err := (&net.Dialer{Timeout: timeout}).DialContext(ctx, "unix", s.Agent)
		if err != nil {
			return nil, nil, nil, fmt.Errorf("ssh agent: %w", local(err))
		}
		done = func() { _ = conn.Close() }
		own := signers
		client := agent.NewClient(conn)
		signers = func() ([]ssh.Signer, error) {
			first, err := own()
			if err != nil {
				return nil, err
			}
			more, err := client.Signers()
			return append(first, more...), err
		}
	}
	n, _ := r.port() // checked by parseRemote
	if n == 0 {
		n = gitssh.DefaultPort
	}
	user := r.user
	if user == "" {
		user = gitssh.DefaultUsername
	}
	return gitssh.DefaultClient, &sshAuth{ssh.ClientConfig{
		User:              user,
		Auth:              []ssh.AuthMethod{ssh.PublicKeysCallback(signers)},
		HostKeyCallback:   s.KnownHosts.callback,
		HostKeyAlgorithms: s.KnownHosts.algorithms(net.JoinHostPort(r.hostname(), strconv.Itoa(n))),
		Timeout:           timeout,
	}}, done, nil
}

func (s *SSH) signers() (func() ([]ssh.Signer, error), error) {
	var keys []ssh.Signer
	for _, pem := range s.Keys {
		key, err := ssh.ParsePrivateKey(pem)
		if err != nil {
			return nil, fmt.Errorf("ssh key: %w", local(err))
		}
		keys = append(keys, key)
	}
	return func() ([]ssh.Signer, error) { return keys[:len(keys):len(keys)], nil }, nil
}

// sshAuth implements the transport's ssh.AuthMethod.
type sshAuth struct{ config ssh.ClientConfig }

func (*sshAuth) Name() string   { return "ssh" }
func (*sshAuth) String() string { return "ssh" }

// ClientConfig returns a copy, for the transport may change it.
func (a *sshAuth) ClientConfig() (*ssh.ClientConfig, error) {
	c := a.config
	return &c, nil
}

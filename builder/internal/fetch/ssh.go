// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-git/go-git/v6/plumbing/transport"
	gitssh "github.com/go-git/go-git/v6/plumbing/transport/ssh"
	"github.com/go-git/go-git/v6/plumbing/transport/ssh/knownhosts"
	"github.com/kevinburke/ssh_config"
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

// agentTimeout is how long the agent, which is on this machine, may take to be connected to.
const agentTimeout = 10 * time.Second

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
	db, err := knownhosts.NewDB(there...)
	if err != nil {
		return KnownHosts{err: err}
	}
	return KnownHosts{callback: db.HostKeyCallback(), algorithms: db.HostKeyAlgorithms}
}

// transport returns a client for the server of r.
func (s *SSH) transport(r remote, dial transport.DialContextFunc) (transport.Transport, error) {
	if s == nil || s.Agent == "" && len(s.Keys) == 0 {
		return nil, errors.New("an ssh address needs an ssh agent or key, and none was given")
	}
	if s.KnownHosts.err != nil {
		return nil, fmt.Errorf("known_hosts: %w", local(s.KnownHosts.err))
	}
	if s.KnownHosts.callback == nil {
		return nil, errors.New("an ssh address needs a known_hosts file to know the server by, and none was given")
	}
	n, _ := r.port() // checked by parseRemote
	if n == 0 {
		n = gitssh.DefaultPort
	}
	algorithms := s.KnownHosts.algorithms(net.JoinHostPort(r.hostname(), strconv.Itoa(n)))
	if len(algorithms) == 0 {
		return nil, &Error{URL: r.String(), Reason: "the server is not in known_hosts", Refused: true}
	}
	own, err := s.signers()
	if err != nil {
		return nil, err
	}
	config := ssh.ClientConfig{User: r.user, HostKeyCallback: s.KnownHosts.callback, HostKeyAlgorithms: algorithms}
	if config.User == "" {
		config.User = gitssh.DefaultUsername
	}
	return &sshTransport{where: r.String(), Transport: gitssh.NewTransport(gitssh.Options{
		ClientConfig: func(ctx context.Context, _ *transport.Request) (*ssh.ClientConfig, error) {
			c := config
			signers, err := s.withAgent(ctx, own)
			c.Auth = []ssh.AuthMethod{ssh.PublicKeysCallback(signers)}
			return &c, err
		},
		DialContext: dial,
		// Nothing of a user's ssh_config is read: a RUN may have written it.
		UserSettings: func(context.Context, *transport.Request) (*ssh_config.UserSettings, error) {
			none := &ssh_config.UserSettings{}
			none.ConfigFinder(func() string { return os.DevNull })
			return none, nil
		},
	})}, nil
}

// sshTransport also hears what a server says that does not answer: that there is no such repository, mostly. Otherwise it would seem to be
// gone.
type sshTransport struct {
	*gitssh.Transport
	where string
}

// Handshake implements transport.Transport.
func (t *sshTransport) Handshake(ctx context.Context, req *transport.Request) (transport.Session, error) {
	conn, err := t.Connect(ctx, req)
	if err != nil {
		return nil, err
	}
	s, err := transport.NewStreamSession(conn, req.Command)
	if err == nil {
		return s, nil
	}
	if said := complaint(ctx, conn); said != "" && errors.Is(err, io.EOF) {
		return nil, &Error{URL: t.where, Reason: said, Err: err}
	}
	return nil, err
}

// complaint is the line with which a server has ended a connection, "" if there is none: what it may have said before that is no reason.
func complaint(ctx context.Context, conn transport.Conn) string {
	c, ok := conn.(interface{ Stderr() io.Reader })
	if !ok {
		return ""
	}
	for range 100 { // it is there when the library has noticed the end
		if r := c.Stderr(); r != nil {
			text, _ := io.ReadAll(io.LimitReader(r, maxErrorBody)) // from memory
			for line := range strings.Lines(string(text)) {
				if kind, _, ok := strings.Cut(strings.ToLower(line), ":"); ok && (kind == "fatal" || kind == "error") {
					return escape(line)
				}
			}
			return ""
		}
		if sleep(ctx, 10*time.Millisecond) != nil {
			return ""
		}
	}
	return ""
}

// withAgent adds the keys of the agent, if there is one, as long as ctx lasts.
func (s *SSH) withAgent(ctx context.Context, own []ssh.Signer) (func() ([]ssh.Signer, error), error) {
	if s.Agent == "" {
		return func() ([]ssh.Signer, error) { return own, nil }, nil
	}
	conn, err := (&net.Dialer{Timeout: agentTimeout}).DialContext(ctx, "unix", s.Agent)
	if err != nil {
		return nil, fmt.Errorf("ssh agent: %w", local(err))
	}
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	client := agent.NewClient(conn)
	return func() ([]ssh.Signer, error) {
		more, err := client.Signers()
		return append(slices.Clip(own), more...), err
	}, nil
}

func (s *SSH) signers() ([]ssh.Signer, error) {
	var keys []ssh.Signer
	for _, pem := range s.Keys {
		key, err := ssh.ParsePrivateKey(pem)
		if err != nil {
			return nil, fmt.Errorf("ssh key: %w", local(err))
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/crypto/ssh/knownhosts"
)

type sshServer struct {
	addr string
	host ssh.PublicKey
}

// newSSHServer lets the owner of one key run git upload-pack on what is below dir.
func newSSHServer(t *testing.T, dir string, allowed ssh.PublicKey) *sshServer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	conf := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
		if string(k.Marshal()) != string(allowed.Marshal()) {
			return nil, errors.New("unknown key")
		}
		return &ssh.Permissions{}, nil
	}}
	conf.AddHostKey(signer)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serveSSH(t, c, conf, dir)
		}
	}()
	return &sshServer{addr: l.Addr().String(), host: signer.PublicKey()}
}

func serveSSH(t *testing.T, c net.Conn, conf *ssh.ServerConfig, dir string) {
	t.Helper()
	_, channels, requests, err := ssh.NewServerConn(c, conf)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for n := range channels {
		ch, reqs, err := n.Accept()
		if err != nil {
			return
		}
		for r := range reqs {
			_ = r.Reply(r.Type == "exec", nil)
			if r.Type != "exec" {
				continue
			}
			_, quoted, _ := strings.Cut(string(r.Payload[4:]), " ")
			status := []byte{0, 0, 0, 0}
			if uploadPack(t, filepath.Join(dir, strings.Trim(quoted, "'")), ch, ch.Stderr()) != nil {
				status[3] = 1
			}
			_, _ = ch.SendRequest("exit-status", false, status)
			_ = ch.Close()
		}
	}
}

func TestGitOverSSH(t *testing.T) {
	f := newForge(t)
	history(t, f)
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	srv := newSSHServer(t, f.dir, signer.PublicKey())
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	private := pem.EncodeToMemory(block)
	known := filepath.Join(t.TempDir(), "known_hosts")
	line := knownhosts.Line([]string{knownhosts.Normalize(srv.addr)}, srv.host)
	if err := os.WriteFile(known, []byte(line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	strangers := filepath.Join(t.TempDir(), "known_hosts")
	line = knownhosts.Line([]string{knownhosts.Normalize(srv.addr)}, signer.PublicKey())
	if err := os.WriteFile(strangers, []byte(line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	socket := serveAgent(t, key)
	_, other, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		ssh   SSH
		fails string
	}{
		{name: "key", ssh: SSH{Keys: [][]byte{private}, KnownHosts: ReadKnownHosts([]string{known})}},
		{name: "agent", ssh: SSH{Agent: socket, KnownHosts: ReadKnownHosts([]string{known})}},
		{name: "other key in the agent", ssh: SSH{Agent: serveAgent(t, other), KnownHosts: ReadKnownHosts([]string{known})}, fails: "unable to authenticate"},
		{name: "other server", ssh: SSH{Keys: [][]byte{private}, KnownHosts: ReadKnownHosts([]string{strangers})}, fails: "key mismatch"},
		{name: "no agent", ssh: SSH{Agent: socket + "-none", KnownHosts: ReadKnownHosts([]string{known})}, fails: "ssh agent"},
		{name: "no key", ssh: SSH{Keys: [][]byte{[]byte("x")}, KnownHosts: ReadKnownHosts([]string{known})}, fails: "ssh key"},
		{name: "no known hosts", ssh: SSH{Keys: [][]byte{private}, KnownHosts: ReadKnownHosts([]string{known + "-none"})}, fails: "known_hosts"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := gitOptions()
			o.SSH = &tt.ssh
			tr, _, err := Git(t.Context(), newStore(t), "ssh://git@"+srv.addr+"/r.git?tag=v1", o)
			if tt.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fails) || strings.Contains(err.Error(), "PRIVATE") {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := list(t, tr)["f"]; got != "file 644 one" {
				t.Errorf("f is %q", got)
			}
		})
	}
	o := gitOptions()
	o.SSH = &SSH{Keys: [][]byte{private}, KnownHosts: ReadKnownHosts([]string{known})}
	if _, _, err := Git(t.Context(), newStore(t), "ssh://git@"+srv.addr+"/none.git", o); err == nil {
		t.Error("a repository that does not exist was fetched")
	}
}

func serveAgent(t *testing.T, key ed25519.PrivateKey) string {
	t.Helper()
	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: key}); err != nil {
		t.Fatal(err)
	}
	// A socket's name is 107 bytes long at most.
	dir, err := os.MkdirTemp("", "agent") //nolint:usetesting // t.TempDir has the test's name in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _ = agent.ServeAgent(ring, c) }()
		}
	}()
	return l.Addr().String()
}

// TestGitDaemon speaks git's own protocol.
func TestGitDaemon(t *testing.T) {
	f := newForge(t)
	h := history(t, f)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	var stall atomic.Bool
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if stall.Load() {
				continue // and hold it
			}
			go serveGit(t, c, f.dir)
		}
	}()
	url := "git://" + l.Addr().String() + "/r.git#feature/x"
	tr, c, err := Git(t.Context(), newStore(t), url, gitOptions())
	if err != nil {
		t.Fatal(err)
	}
	if got := list(t, tr)["f"]; got != "file 644 three" || c.Hash != h.other {
		t.Errorf("f is %q, %+v", got, c)
	}
	stall.Store(true)
	o := GitOptions{Network: network()}
	o.Network.Timing.Connect = 100 * time.Millisecond
	start := time.Now()
	_, _, err = Git(t.Context(), newStore(t), url, o)
	if !errors.Is(err, errStalled) || time.Since(start) > 30*time.Second {
		t.Errorf("got %v after %s", err, time.Since(start))
	}
}

func serveGit(t *testing.T, c net.Conn, dir string) {
	t.Helper()
	defer func() { _ = c.Close() }()
	head := make([]byte, 4)
	if _, err := io.ReadFull(c, head); err != nil {
		return
	}
	n := 0
	for _, d := range head {
		n = n<<4 | strings.IndexByte("0123456789abcdef", d)
	}
	line := make([]byte, n-4)
	if _, err := io.ReadFull(c, line); err != nil {
		return
	}
	p, _, _ := strings.Cut(strings.TrimPrefix(string(line), "git-upload-pack "), "\x00")
	_ = uploadPack(t, filepath.Join(dir, p), c, io.Discard)
}

// uploadPack runs git for a client, and ends when git does, even if the client still has the line open.
func uploadPack(t *testing.T, repository string, client io.ReadWriter, stderr io.Writer) error {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", "upload-pack", repository)
	cmd.Stdout, cmd.Stderr = client, stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	go func() { _, _ = io.Copy(in, client) }()
	return cmd.Run()
}

// SPDX-License-Identifier: Apache-2.0

package contexts

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	account "os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// sshServer is OpenSSH's, with git-shell for whoever has the key.
type sshServer struct {
	// address is ssh://USER@HOST:PORT, and home a directory with its key in known_hosts.
	address, home string
	// host is its public key, and key the file of the private one that it lets in.
	host, key string
}

// sshLimit is how long the server and the agent may take to start.
const sshLimit = 20 * time.Second

// newSSH starts the server.
func newSSH(t *testing.T) *sshServer {
	t.Helper()
	testenv.Need(t, "sshd", "ssh-keygen", "git-shell")
	dir := testenv.Dir(t)
	s := &sshServer{home: filepath.Join(dir, "home"), key: newKey(t, dir, "key")}
	host, err := os.ReadFile(newKey(t, dir, "host") + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	s.host = strings.Join(strings.Fields(string(host))[:2], " ")
	me, err := account.Current()
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 { // Debian's has it in a service's own directory
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	shell, err := exec.LookPath("git-shell")
	if err != nil {
		t.Fatal(err)
	}
	// At that level bash does not read what the user has for logins.
	config := filepath.Join(dir, "config")
	mustWrite(t, config, fmt.Sprintf(`HostKey %s
AuthorizedKeysFile %s.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
MaxStartups 100
SetEnv SHLVL=2
ForceCommand %s -c "$SSH_ORIGINAL_COMMAND"
`, filepath.Join(dir, "host"), s.key, shell))
	var said string
	for range 5 { // the port may be taken by the time that the server asks for it
		port := freePort(t)
		if said = startSSH(t, config, port); said == "" {
			s.address = fmt.Sprintf("ssh://%s@127.0.0.1:%d", me.Username, port)
			mustWrite(t, filepath.Join(s.home, ".ssh", "known_hosts"), fmt.Sprintf("[127.0.0.1]:%d %s\n", port, s.host))
			return s
		}
	}
	t.Fatalf("sshd did not start: %s", said)
	return nil
}

// startSSH returns "" when the server listens, or what it said instead.
func startSSH(t *testing.T, config string, port int) string {
	t.Helper()
	program, err := exec.LookPath("sshd") // it wants its whole path
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"-D", "-e", "-f", config, "-o", fmt.Sprintf("ListenAddress=127.0.0.1:%d", port)}
	// Newer ones punish an address from which wrong keys came.
	if exec.CommandContext(t.Context(), program, "-t", "-f", config, "-o", "PerSourcePenalties=no").Run() == nil {
		args = append(args, "-o", "PerSourcePenalties=no")
	}
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := time.AfterFunc(sshLimit, func() { _ = cmd.Process.Kill() })
	defer stop.Stop()
	var said []string
	for lines := bufio.NewScanner(log); lines.Scan(); {
		if said = append(said, lines.Text()); strings.Contains(lines.Text(), "Server listening on") {
			t.Cleanup(func() {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			})
			go func() { _, _ = io.Copy(io.Discard, log) }()
			return ""
		}
	}
	return fmt.Sprintf("%v: %s", cmd.Wait(), strings.Join(said, "; "))
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

// newKey makes a pair of keys and returns the file of the private one.
func newKey(t *testing.T, dir, name string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	return file
}

// env is how the builder gets in.
func (s *sshServer) env() map[string]string {
	return map[string]string{"HOME": s.home, "KANIKO_SSH": "default=" + s.key}
}

// envAt is env for where the server is reached through another address.
func (s *sshServer) envAt(address string) map[string]string {
	u, err := url.Parse(address)
	if err != nil {
		panic(err) // the test made it
	}
	home := s.home + "-" + u.Port()
	if err := os.MkdirAll(filepath.Join(home, ".ssh"), 0o755); err != nil {
		panic(err)
	}
	if err := os.WriteFile(filepath.Join(home, ".ssh", "known_hosts"), []byte("[127.0.0.1]:"+u.Port()+" "+s.host+"\n"), 0o644); err != nil {
		panic(err)
	}
	return map[string]string{"HOME": home, "KANIKO_SSH": "default=" + s.key}
}

// agent starts an agent that has the key, and returns its socket.
func (s *sshServer) agent(t *testing.T) string {
	t.Helper()
	testenv.Need(t, "ssh-agent", "ssh-add")
	ctx, cancel := context.WithTimeout(t.Context(), sshLimit)
	defer cancel()
	socket := filepath.Join(testenv.Dir(t), "agent")
	agent := exec.CommandContext(t.Context(), "ssh-agent", "-D", "-a", socket)
	agent.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = agent.Process.Kill()
		_ = agent.Wait()
	})
	for {
		add := exec.CommandContext(ctx, "ssh-add", "-q", s.key)
		add.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
		out, err := add.CombinedOutput()
		if err == nil {
			return socket
		}
		select {
		case <-ctx.Done():
			t.Fatalf("ssh-add within %v: %v: %s", sshLimit, err, out)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// sshPlaces are the repository by ssh, with a key and with an agent.
func (w *world) sshPlaces(t *testing.T) []place {
	t.Helper()
	if _, err := exec.LookPath("sshd"); err != nil {
		return []place{{name: "ssh", skip: "not installed: sshd (on Debian as root: e2e/packages.sh)"}}
	}
	s := newSSH(t)
	at := s.address + filepath.Join(w.repositories, "context.git")
	agent := map[string]string{"HOME": s.home, "KANIKO_SSH": "default=" + s.agent(t)}
	named := map[string]string{"HOME": s.home, "KANIKO_SSH": "default", "SSH_AUTH_SOCK": s.agent(t)}
	return []place{
		{name: "ssh", location: at, env: s.env(), commit: w.commit},
		{name: "ssh, branch", location: at + "#main", env: s.env(), commit: w.commit},
		{name: "ssh, commit", location: at + "#" + w.commit, env: s.env(), commit: w.commit},
		{name: "ssh, agent", location: at + "#refs/heads/main", env: agent, commit: w.commit},
		{name: "ssh, the environment's agent", location: at + "?ref=main", env: named, commit: w.commit},
	}
}

// TestSSH is in with OpenSSH's server: what else there is to a repository than its default branch, and what keeps one out.
func TestSSH(t *testing.T) {
	w := newWorld(t)
	s := newSSH(t)
	want := digest(t, build(t, w.dir, nil, ""))
	tag := w.shell(t, `cd work; git -c user.name=a -c user.email=a@example.com tag -a -m 1 v1; git push -q ../context.git v1; git rev-parse v1^{commit}`, "")
	at := s.address + filepath.Join(w.repositories, "context.git")
	if o := build(t, at+"#v1", s.env(), ""); digest(t, o) != want || o.Results["SOURCE_COMMIT"] != tag {
		t.Errorf("an annotated tag: another image or commit: %s", o.Log)
	}

	// The submodule is by ssh on the same server; its address is relative in one and absolute in the other.
	var with []string
	for name, url := range map[string]string{"relative": "../context.git", "absolute": at} {
		w.module(t, name, url, "")
		with = append(with, digest(t, build(t, s.address+filepath.Join(w.repositories, name+".git")+"#main:m", s.env(), "")))
	}
	if with[0] != want || with[1] != want {
		t.Errorf("the directory of a submodule is another image: %v, not %s", with, want)
	}

	strange := s.env()
	strange["KANIKO_SSH"] = "default=" + newKey(t, testenv.Dir(t), "other")
	host, err := os.ReadFile(newKey(t, testenv.Dir(t), "host") + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(strings.TrimPrefix(s.address, "ssh://"), ":")
	known := func(line string) map[string]string {
		home := testenv.Dir(t)
		if line != "" {
			mustWrite(t, filepath.Join(home, ".ssh", "known_hosts"), line)
		}
		return map[string]string{"HOME": home, "KANIKO_SSH": "default=" + s.key}
	}
	for _, tt := range []struct {
		name, location string
		env            map[string]string
		code           int
		says           string
	}{
		{"wrong key", at, strange, 6, "unable to authenticate"},
		{"wrong host key", at, known(fmt.Sprintf("[127.0.0.1]:%s %s", port, host)), 6, "knownhosts: key mismatch"},
		{"host that is not known", at, known("other.example.com " + s.host), 6, "the server is not in known_hosts"},
		{"the host at another port", at, known("127.0.0.1 " + s.host), 6, "the server is not in known_hosts"},
		{"no known hosts", at, known(""), 2, "needs a known_hosts file"},
		{"no key", at, map[string]string{"HOME": s.home}, 2, "needs an ssh agent or key"},
		{"no repository", s.address + "/nowhere.git", s.env(), 2, "'/nowhere.git' does not appear to be a git repository"},
		{"no branch", at + "#nothing", s.env(), 2, "does not contain ref nothing"},
		{"no commit", at + "#" + strings.Repeat("12", 20), s.env(), 2, strings.Repeat("12", 20)},
		{"an option for the host", "ssh://-oProxyCommand=touch/x.git", s.env(), 2, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := build(t, tt.location, tt.env, "")
			if o.Code != tt.code || !strings.Contains(o.Cause, tt.says) {
				t.Errorf("exit %d, want %d with %q: %s", o.Code, tt.code, tt.says, o.Log)
			}
			if len(o.Results) > 0 || len(o.Left) > 0 {
				t.Errorf("left: %v, %v", o.Results, o.Left)
			}
		})
	}
}

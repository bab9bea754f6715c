// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestWhatTheCommandSees holds in every situation in which a RUN is possible at all.
func TestWhatTheCommandSees(t *testing.T) {
	needNamespaces(t)
	const script = `
echo env:$(env | sort | tr '\n' ' ')
echo id:$(id -u):$(id -g)
echo host:$(hostname)
grep -E '^(CapInh|CapPrm|CapEff|CapBnd|CapAmb|Seccomp|NoNewPrivs):' /proc/self/status | tr '\t\n' ' ;'; echo
echo umask:$(umask) pwd:$(pwd)
echo fds:$(ls /proc/self/fd | tr '\n' ' ')
unshare -U true 2>/dev/null && echo UNSHARED
mount -t tmpfs x /tmp 2>/dev/null && echo MOUNTED
echo x 2>/dev/null >/proc/sys/kernel/domainname && echo SYSWRITTEN
echo x 2>/dev/null >/proc/sysrq-trigger && echo SYSRQ
echo x 2>/dev/null >/etc/hosts && echo HOSTS
echo x 2>/dev/null >/etc/resolv.conf && echo RESOLV
echo x 2>/dev/null >/sys/kernel/mm/x && echo SYS
touch /sys/x 2>/dev/null && echo SYS
umount /etc/hosts 2>/dev/null && echo UMOUNTED
umount /proc/kcore 2>/dev/null && echo UMOUNTED
test -s /proc/kcore && echo KCORE
test -s /proc/timer_list && echo TIMERS
ls /sys/firmware
mknod /tmp/m c 1 3 2>/dev/null && echo MKNOD
echo discard >/dev/null && head -c 4 /dev/zero | wc -c && head -c 3 /dev/urandom | wc -c
echo out >/dev/stdout; echo err >/dev/stderr
ls -l /dev/pts/ptmx >/dev/null && echo pty
df -k /dev/shm | sed -n 's/^shm *\([0-9]*\).*/shm:\1/p'
read line && echo STDIN
cat /dev/pipes/EOF
cat /etc/hosts
`
	p := sh(script)
	p.Dir = "/work"
	p.Env = append(p.Env, "GREETING=caf\xe9")
	p.ExtraHosts = []Host{{"db.local", netip.MustParseAddr("10.1.2.3")}}
	p.Files = []InlineFile{{Path: "/dev/pipes/EOF", Data: []byte("script\n"), Mode: 0o755}}
	p.ShmSize = 1 << 20
	want := `env:GREETING=caf` + "\xe9" + ` HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin PWD=/work SHLVL=1
id:0:0
host:buildkitsandbox
CapInh: 0000000000000000;CapPrm: 00000000a80425fb;CapEff: 00000000a80425fb;CapBnd: 00000000a80425fb;CapAmb: 0000000000000000;NoNewPrivs: 0;Seccomp: 2;
umask:0022 pwd:/work
fds:0 1 2 3
4
3
out
pty
shm:1024
script
127.0.0.1	localhost buildkitsandbox
::1	localhost ip6-localhost ip6-loopback
10.1.2.3	db.local
`
	write := func(fs FS) string {
		if fs.Dir != "" {
			return "directory"
		}
		return "overlay"
	}
	for _, s := range situations(t) {
		for _, fs := range []FS{overlayFS(t, s.uid), plainFS(t, s.uid)} {
			t.Run(s.name+"/"+write(fs), func(t *testing.T) {
				a := ask(t, s, request{Runs: []run{{fs, p}}})
				if a.Mapping != s.want {
					t.Fatalf("mapping %q, want %q: %s", a.Mapping, s.want, a.Status)
				}
				r := a.Results[0]
				r.Stdout = strings.ReplaceAll(r.Stdout, "env:_=/bin/env ", "env:")
				if d := cmp.Diff(want, r.Stdout); r.Err != "" || d != "" || !strings.Contains(r.Stderr, "err\n") {
					t.Errorf("%s\n%s\n%s", a.Status, d, r)
				}
			})
		}
	}
}

// TestExit is about how a command ends.
func TestExit(t *testing.T) {
	needNamespaces(t)
	tests := []struct {
		name string
		p    Process
		want *ExitError
	}{
		{"success", sh("true"), nil},
		{"code", sh("exit 7"), &ExitError{Code: 7}},
		{"killed", sh("kill -9 $$"), &ExitError{Code: 137, Signal: 9}},
		{"terminated", sh("kill -TERM $$"), &ExitError{Code: 143, Signal: 15}},
		{
			"not found",
			Process{Args: []string{"foo", "bar"}, Env: []string{"PATH=/bin"}},
			&ExitError{Code: 127, Reason: `exec: "foo": executable file not found in $PATH`},
		},
		{
			"no such path",
			Process{Args: []string{"/no/such"}, Env: []string{"PATH=/bin"}},
			&ExitError{Code: 127, Reason: `exec: "/no/such": no such file or directory`},
		},
		{
			"not executable",
			Process{Args: []string{"/root"}, Env: []string{"PATH=/bin"}},
			&ExitError{Code: 126, Reason: `exec: "/root": permission denied`},
		},
		{
			"no PATH",
			Process{Args: []string{"sh", "-c", "true"}},
			&ExitError{Code: 127, Reason: `exec: "sh": executable file not found in $PATH`},
		},
		{"by PATH", Process{Args: []string{"sh", "-c", "exit 3"}, Env: []string{"PATH=/nowhere:/bin"}}, &ExitError{Code: 3}},
		{
			"no directory",
			Process{Args: []string{"/bin/true"}, Dir: "/missing"},
			&ExitError{Code: 126, Reason: `chdir to "/missing": no such file or directory`},
		},
		{
			"timeout",
			Process{Args: []string{"/bin/sleep", "100"}, Timeout: 200 * time.Millisecond},
			&ExitError{Code: 137, Signal: 9, TimedOut: true},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := runOnly(t, asRoot(), plainFS(t, 0), tt.p)
			if d := cmp.Diff(tt.want, r.Exit); d != "" || (tt.want == nil) != (r.Err == "") {
				t.Errorf("%s\n%s", d, r)
			}
		})
	}
}

// TestUser runs as another user with groups: no capabilities, but the way to root by setuid stays open.
func TestUser(t *testing.T) {
	needNamespaces(t)
	for _, s := range situations(t) {
		t.Run(s.name, func(t *testing.T) {
			fs := overlayFS(t, s.uid)
			p := sh(`id -u; id -g; id -G; grep -E '^Cap(Eff|Prm|Bnd)' /proc/self/status | tr '\t\n' ' ;'; echo; echo >/dev/stdout`)
			p.UID, p.GID, p.Groups = 1000, 1001, []uint32{1001, 27, 44}
			p.Dir = "/"
			r := runOnly(t, s, fs, p)
			if s.want == MappingSingle {
				if !strings.Contains(r.Err, "running as user id 1000 is not permitted here") {
					t.Fatalf("%s", r)
				}
				return
			}
			want := "1000\n1001\n1001 27 44\nCapPrm: 0000000000000000;CapEff: 0000000000000000;CapBnd: 00000000a80425fb;\n\n"
			if d := cmp.Diff(want, r.Stdout); r.Err != "" || d != "" {
				t.Errorf("%s\n%s", d, r)
			}
		})
	}
}

// TestSetuid holds the way to root open that sudo and su take.
func TestSetuid(t *testing.T) {
	needNamespaces(t)
	for _, s := range situations(t) {
		if s.want == MappingSingle {
			continue
		}
		for _, fs := range []FS{overlayFS(t, s.uid), plainFS(t, s.uid)} {
			base := fs.Dir
			if base == "" {
				base = fs.Lowers[0]
			}
			write(t, filepath.Join(base, "etc/passwd"), "root::0:0::/root:/bin/sh\nu:x:1000:1000::/:/bin/sh\n", 0o644)
			chownAll(t, base, s.uid)
			if err := os.Chmod(filepath.Join(base, "bin/busybox"), os.ModeSetuid|0o755); err != nil {
				t.Fatal(err)
			}
			p := Process{Args: []string{"/bin/busybox", "su", "root", "-c", "id -u; trap"}, Env: []string{"PATH=/bin"}, UID: 1000, GID: 1000}
			if r := runOnly(t, s, fs, p); r.Stdout != "0\n" {
				t.Errorf("%s: %s", s.name, r)
			}
		}
	}
}

// TestIgnoredSignals starts the builder as nohup and background jobs are started.
func TestIgnoredSignals(t *testing.T) {
	needNamespaces(t)
	s := situation{wrap: []string{"sh", "-c", `trap '' HUP INT QUIT PIPE; exec "$@"`, "sh"}}
	r := runOnly(t, s, plainFS(t, 0), sh(`grep ^SigIgn /proc/self/status; grep ^SigBlk /proc/self/status`))
	if want := "SigIgn:\t0000000000000000\nSigBlk:\t0000000000000000\n"; r.Stdout != want || r.Err != "" {
		t.Error(r)
	}
}

// TestNothingSurvives leaves processes behind in the usual ways.
func TestNothingSurvives(t *testing.T) {
	needNamespaces(t)
	for _, s := range telling(t) {
		for name, script := range map[string]string{
			"background": `sleep 4242 & true`,
			"session":    `setsid sleep 4242 & setsid sh -c 'setsid sleep 4242 & sleep 4242' & sleep 0.2`,
			"ignoring":   `(trap '' TERM HUP INT; sleep 4242; sleep 4242) & sleep 0.1`,
			"stopped":    `sleep 4242 & kill -STOP $!`,
			"forking":    `sh -c 'while true; do (sleep 4242 &) ; sleep 0.01; done' & sleep 0.3`,
			"failing":    `setsid sleep 4242 & exit 3`,
		} {
			t.Run(s.name+"/"+name, func(t *testing.T) {
				r := runOnly(t, s, plainFS(t, s.uid), sh(script))
				if r.Took > 5*time.Second || (r.Err != "" && name != "failing") {
					t.Errorf("took %s: %s", r.Took, r)
				}
				if left := sleepers(t); left != "" {
					t.Errorf("alive: %s", left)
				}
			})
		}
	}
}

// sleepers finds the processes of TestNothingSurvives by their argument.
func sleepers(t *testing.T) string {
	t.Helper()
	var found []string
	for _, pid := range allPIDs() {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && strings.Contains(string(b), "\x004242\x00") {
			found = append(found, fmt.Sprintf("%d %q", pid, b))
		}
	}
	return strings.Join(found, "; ")
}

// TestCancel stops a command that listens to SIGTERM, and one that does not.
func TestCancel(t *testing.T) {
	needNamespaces(t)
	for _, s := range telling(t) {
		t.Run(s.name, func(t *testing.T) {
			polite := sh(`trap 'echo bye; exit 0' TERM; sleep 4242 & wait`)
			deaf := sh(`trap '' TERM; setsid sleep 4242 & while true; do sleep 1; done`)
			a := ask(t, s, request{
				Runs:        []run{{plainFS(t, s.uid), polite}, {plainFS(t, s.uid), deaf}},
				CancelAfter: 300 * time.Millisecond,
			})
			for i, r := range a.Results {
				if r.Err != "called off" || r.Took > 5*time.Second {
					t.Errorf("%d: took %s: %s", i, r.Took, r)
				}
			}
			if a.Results[0].Stdout != "bye\n" || a.Results[0].Took > 2*time.Second {
				t.Errorf("polite: took %s: %s", a.Results[0].Took, a.Results[0])
			}
			if left := sleepers(t); left != "" {
				t.Errorf("alive: %s", left)
			}
		})
	}
}

// TestOutput does not lose the end of a long output.
func TestOutput(t *testing.T) {
	needNamespaces(t)
	r := runOnly(t, asRoot(), plainFS(t, 0), sh(`dd if=/dev/zero bs=1024 count=4096 2>/dev/null; echo; echo end; echo error >&2`))
	if len(r.Stdout) != 4<<20+5 || !strings.HasSuffix(r.Stdout, "\nend\n") || r.Stderr != "error\n" || r.Err != "" {
		t.Errorf("%d bytes, stderr %q, err %q", len(r.Stdout), r.Stderr, r.Err)
	}
}

// TestNetworkNone has a loopback interface that is up, and nothing else.
func TestNetworkNone(t *testing.T) {
	needNamespaces(t)
	for _, s := range situations(t) {
		p := sh(`sed -n 's/^ *\([^ ]*\):.*/\1/p' /proc/self/net/dev; ip addr show lo | grep -c 'UP'`)
		p.Network = NetworkNone
		r := runOnly(t, s, plainFS(t, s.uid), p)
		if r.Stdout != "lo\n1\n" || r.Err != "" {
			t.Errorf("%s: %s", s.name, r)
		}
	}
}

func TestUlimitsAndHostname(t *testing.T) {
	needNamespaces(t)
	p := sh(`ulimit -n; ulimit -c; hostname; grep -c ' builder$' /etc/hosts`)
	p.Hostname = "builder"
	p.Ulimits = []Ulimit{{"nofile", 100, 200}, {"core", 0, Unlimited}}
	r := runOnly(t, asRoot(), plainFS(t, 0), p)
	if r.Stdout != "100\n0\nbuilder\n1\n" || r.Err != "" {
		t.Error(r)
	}
}

// TestManyLowers mounts more layers than fit a page by their paths.
func TestManyLowers(t *testing.T) {
	needNamespaces(t)
	for _, s := range situations(t) {
		t.Run(s.name, func(t *testing.T) {
			fs := overlayFS(t, s.uid)
			base := filepath.Dir(fs.Upper)
			for i := range 200 {
				dir := filepath.Join(base, strings.Repeat("long,name:", 12), fmt.Sprintf("%064d", i))
				write(t, filepath.Join(dir, "f"), fmt.Sprint(i), 0o644)
				write(t, filepath.Join(dir, fmt.Sprintf("only-%d", i)), "", 0o644)
				fs.Lowers = append([]string{dir}, fs.Lowers...)
			}
			chownAll(t, base, s.uid)
			r := runOnly(t, s, fs, sh(`cat /f; echo; ls /only-* | wc -l; rm /f /only-7; ! grep -q long /proc/mounts`))
			if r.Stdout != "199\n200\n" || r.Err != "" {
				t.Error(r)
			}
		})
	}
}

// TestBuilderIsOutOfReach looks for what a RUN must not obtain.
func TestBuilderIsOutOfReach(t *testing.T) {
	needNamespaces(t)
	for _, s := range situations(t) {
		t.Run(s.name, func(t *testing.T) {
			r := runOnly(t, s, overlayFS(t, s.uid), sh(`
for p in /proc/[0-9]*; do
  [ $p = /proc/$$ ] && continue
  grep -q SECRET_OF_THE_BUILDER $p/environ 2>/dev/null && echo "LEAK $p"
  for l in root cwd exe fd/0 fd/3 fd/5; do
    case "$(tr '\0' ' ' <$p/cmdline)" in *kaniko-go:*|*helper:*) readlink $p/$l && echo "LINK $p/$l";; esac
  done
done 2>/dev/null
ls -a / | tr '\n' ' '`))
			if r.Err != "" || strings.TrimSpace(r.Stdout) != ". .. bin dev etc proc root sys tmp work" {
				t.Error(r)
			}
		})
	}
}

// TestProbeOverlay leaves nothing behind, and is right about a file system that cannot.
func TestProbeOverlay(t *testing.T) {
	needNamespaces(t)
	dir := publicDir(t)
	for _, s := range situations(t) {
		chownAll(t, dir, s.uid)
		if a := ask(t, s, request{ProbeOverlay: dir}); a.Probe != "" {
			t.Errorf("%s: %s", s.name, a.Probe)
		}
		if a := ask(t, s, request{ProbeOverlay: "/proc"}); a.Probe == "" {
			t.Errorf("%s: an overlay on /proc", s.name)
		}
		if left := listing(t, dir); left != "" {
			t.Errorf("%s: left over:\n%s", s.name, left)
		}
	}
}

// TestFirstProcessKilled has the command kill what watches over it, which only a
// PID namespace prevents. The builder then sees to the rest.
func TestFirstProcessKilled(t *testing.T) {
	needNamespaces(t)
	for _, s := range telling(t) {
		r := runOnly(t, s, plainFS(t, s.uid), sh(`setsid sleep 4242 & sleep 0.1; kill -9 $PPID; sleep 0.1; echo immune`))
		immune := r.Stdout == "immune\n" && r.Err == ""
		if !immune && !strings.Contains(r.Err, "ended unexpectedly") {
			t.Errorf("%s: %s", s.name, r)
		}
		if left := sleepers(t); left != "" {
			t.Errorf("%s: alive: %s", s.name, left)
		}
	}
}

// TestBuilderKilledDuringRun kills the outer process while a command and its daemon run.
func TestBuilderKilledDuringRun(t *testing.T) {
	needNamespaces(t)
	for _, s := range telling(t) {
		t.Run(s.name, func(t *testing.T) {
			var in bytes.Buffer
			q := request{Runs: []run{{plainFS(t, s.uid), sh(`setsid sleep 4242 & sleep 4242`)}}}
			if err := gob.NewEncoder(&in).Encode(q); err != nil {
				t.Fatal(err)
			}
			args := append(append([]string{}, s.wrap...), testBinary(t), helperRun)
			cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
			cmd.Stdin = &in
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			for range 500 {
				if strings.Count(sleepers(t), ";") >= 1 {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			time.Sleep(50 * time.Millisecond)
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			for range 300 {
				if sleepers(t) == "" {
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
			t.Errorf("alive: %s", sleepers(t))
		})
	}
}

// TestOOM runs in a memory cgroup that is too small for the command.
func TestOOM(t *testing.T) {
	needNamespaces(t)
	group := "/sys/fs/cgroup/memory/isolation-test"
	limit := "memory.limit_in_bytes"
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		group, limit = "/sys/fs/cgroup/isolation-test", "memory.max"
	}
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Skipf("needs a memory cgroup of its own: %v", err)
	}
	t.Cleanup(func() { _ = os.Remove(group) })
	if err := os.WriteFile(filepath.Join(group, limit), []byte("104857600"), 0o600); err != nil {
		t.Skipf("needs a memory cgroup of its own: %v", err)
	}
	s := situation{wrap: []string{"sh", "-c", `echo $$ >` + group + `/cgroup.procs && exec "$@"`, "sh"}}
	r := runOnly(t, s, plainFS(t, 0), sh(`exec dd if=/dev/zero of=/dev/null bs=300M count=1`))
	want := &ExitError{Code: 137, Signal: 9, OOM: true}
	if d := cmp.Diff(want, r.Exit); d != "" {
		t.Errorf("%s\n%s", d, r)
	}
}

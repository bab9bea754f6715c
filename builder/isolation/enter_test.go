// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// enterHelper starts a helper that enters its namespaces and then does what how says.
func enterHelper(t *testing.T, s situation, how ...string) *exec.Cmd {
	t.Helper()
	args := append(append(append([]string{}, s.wrap...), testBinary(t), helperEnter), how...)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(cmd.Environ(), "PROBE=caf\xe9")
	return cmd
}

// TestEnterEndsAsTheBuilder compares how the process that was started ends with how the one inside did.
func TestEnterEndsAsTheBuilder(t *testing.T) {
	needNamespaces(t)
	for _, s := range situations(t) {
		t.Run(s.name, func(t *testing.T) {
			var exit *exec.ExitError
			if err := enterHelper(t, s, "exit").Run(); !errors.As(err, &exit) || exit.ExitCode() != 42 {
				t.Errorf("exit: %v", err)
			}
			err := enterHelper(t, s, "kill").Run()
			if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != unix.SIGKILL {
				t.Errorf("kill: %v", err)
			}
			out, err := enterHelper(t, s, "args", "a b", "", "c\n").Output()
			if want := "a b||c\n|caf\xe9|true"; string(out) != want || err != nil {
				t.Errorf("arguments and environment: %q, %v", out, err)
			}
		})
	}
}

// startWaiting starts a helper that waits inside, and returns its PID there once it does.
func startWaiting(t *testing.T, s situation, how string) (cmd *exec.Cmd, inside int) {
	t.Helper()
	cmd = enterHelper(t, s, how)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if inside, err = strconv.Atoi(strings.TrimSpace(line)); err != nil {
		t.Fatal(err)
	}
	return cmd, inside
}

func TestEnterForwardsSignals(t *testing.T) {
	needNamespaces(t)
	cmd, _ := startWaiting(t, asRoot(), "wait")
	if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 143 {
		t.Error(err)
	}
	// The default action of a signal that the builder does not handle shows outside.
	cmd, _ = startWaiting(t, asRoot(), "wait")
	if err := cmd.Process.Signal(unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if st := cmd.ProcessState.Sys().(syscall.WaitStatus); st.Signal() != unix.SIGHUP {
		t.Error(cmd.ProcessState)
	}
}

// TestBuilderDiesWithItsParent kills the outer process, which leaves no chance to pass anything on.
func TestBuilderDiesWithItsParent(t *testing.T) {
	needNamespaces(t)
	for _, s := range usable(t, asRoot(), asPod()) {
		cmd, inside := startWaiting(t, s, "wait")
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		waitGone(t, inside)
	}
}

// TestOrphansOfAKilledBuilder are killed by the outer process.
func TestOrphansOfAKilledBuilder(t *testing.T) {
	needNamespaces(t)
	for _, s := range usable(t, asRoot(), asPod()) {
		cmd, orphan := startWaiting(t, s, "orphan")
		_ = cmd.Wait()
		waitGone(t, orphan)
	}
}

// TestExecutableCannotBeOverwritten tries with all the builder's privileges.
func TestExecutableCannotBeOverwritten(t *testing.T) {
	needNamespaces(t)
	for _, s := range usable(t, asRoot(), asPod()) {
		out, err := enterHelper(t, s, "self").Output()
		lines := strings.Split(string(out), "\n")
		if err != nil || len(lines) < 2 || !strings.Contains(lines[0], "read-only file system") ||
			!strings.Contains(lines[1], "operation not permitted") {
			t.Errorf("%s: %v %q", s.name, err, out)
		}
	}
}

func waitGone(t *testing.T, pid int) {
	t.Helper()
	for range 200 {
		if _, state := parentOf(pid); state == 0 || state == 'Z' {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("process %d (%s) is still alive", pid, comm(pid))
}

// TestEnterRefused goes on in the old process and knows why.
func TestEnterRefused(t *testing.T) {
	needNamespaces(t)
	tests := []struct {
		name string
		s    situation
		how  string
		want []string
	}{
		{
			"seccomp", asRoot(), "refused",
			[]string{"clone(CLONE_NEWUSER|CLONE_NEWNS) is not permitted here", "seccomp profile", "hostUsers: false"},
		},
		{
			"sysctl",
			situation{wrap: []string{
				"unshare", "--user", "--map-root-user", "sh", "-c",
				`echo 0 >/proc/sys/user/max_user_namespaces && exec "$@"`, "sh",
			}},
			"exit",
			[]string{"no space left on device", "user.max_user_namespaces"},
		},
		{
			"no capabilities at all",
			situation{wrap: []string{"setpriv", "--bounding-set", "-all", "--inh-caps", "-all", "--"}},
			"exit",
			[]string{"mapping user ids is not permitted here", "SETFCAP"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if len(usable(t, tt.s)) == 0 {
				t.Skip("this refusal cannot be made here")
			}
			cmd := enterHelper(t, tt.s, tt.how)
			var errs bytes.Buffer
			cmd.Stderr = &errs
			out, _ := cmd.Output()
			if cmd.ProcessState.ExitCode() == 97 {
				t.Skipf("the filter needs CAP_SYS_ADMIN here: %s", out)
			}
			if cmd.ProcessState.ExitCode() != 99 {
				t.Fatalf("%v: %s %s", cmd.ProcessState, out, errs.String())
			}
			for _, w := range tt.want {
				if !strings.Contains(string(out), w) {
					t.Errorf("%q does not say %q", out, w)
				}
			}
			if bytes.Count(out, []byte("\n")) != 1 || errs.Len() > 0 {
				t.Errorf("not one line: %q %q", out, errs.String())
			}
		})
	}
}

// TestRunWithoutNamespaces fails with the reason.
func TestRunWithoutNamespaces(t *testing.T) {
	reason := &RefusedError{What: "it"}
	err := Status{Reason: reason}.Run(t.Context(), FS{Dir: "/"}, Process{Args: []string{"x"}})
	if !errors.Is(err, error(reason)) {
		t.Error(err)
	}
	if err := (Status{}).Run(t.Context(), FS{}, Process{}); fmt.Sprintf("%T", err) != "*isolation.RefusedError" {
		t.Error(err)
	}
}

// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// sandbox is what the pause container of a pod holds: the network namespace, with loopback only, and with hostUsers: false the
// user namespace. Several pods of a test may be in one.
type sandbox struct{ pid int }

func (s sandbox) network() string { return fmt.Sprintf("/proc/%d/ns/net", s.pid) }
func (s sandbox) users() string   { return fmt.Sprintf("/proc/%d/ns/user", s.pid) }

// newSandbox makes one that lasts as long as the test.
func newSandbox(t *testing.T, ownUsers bool) sandbox {
	t.Helper()
	cmd := exec.CommandContext(context.Background(), "busybox", "sh", "-c", "ifconfig lo up && echo up && exec sleep 1000000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	if ownUsers {
		ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: firstID, Size: 65536}}
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true,
			Credential: &syscall.Credential{},
		}
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("a network namespace: %q, %v", line, err)
	}
	return sandbox{cmd.Process.Pid}
}

// serve makes an address of the test's network, on loopback, reachable in the sandbox's under the same number.
func (s sandbox) serve(t *testing.T, address string) {
	t.Helper()
	l, err := s.listen(address)
	if err != nil {
		t.Fatalf("listening in the pod's network: %v", err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go relay(c, address)
		}
	}()
}

// listen makes a socket that belongs to the sandbox's network namespace, which a socket does for ever.
func (s sandbox) listen(address string) (net.Listener, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
	if err != nil {
		return nil, err
	}
	defer own.Close()
	other, err := os.Open(s.network())
	if err != nil {
		return nil, err
	}
	defer other.Close()
	if err := unix.Setns(int(other.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", address)
	if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back != nil {
		panic(back) // this thread must not serve other goroutines
	}
	return l, err
}

// relay joins a connection with one to the address outside.
func relay(c net.Conn, address string) {
	defer c.Close()
	d, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", address)
	if err != nil {
		return
	}
	defer d.Close()
	go func() {
		_, _ = io.Copy(d, c)
		if tcp, ok := d.(*net.TCPConn); ok {
			_ = tcp.CloseWrite()
		}
	}()
	_, _ = io.Copy(c, d)
}

// world is what the pods of a test meet: a registry with the busybox base, reachable from two sandboxes.
type world struct {
	*testenv.Registry
	base  string
	users sandbox // with a user namespace
	plain sandbox
}

func newWorld(t *testing.T) world {
	t.Helper()
	needRunc(t)
	w := world{Registry: testenv.NewRegistry(t, testenv.RegistryOptions{}), users: newSandbox(t, true), plain: newSandbox(t, false)}
	w.users.serve(t, w.Host)
	w.plain.serve(t, w.Host)
	w.base = w.Host + "/base/busybox:1"
	base, err := testenv.Busybox(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := testenv.Push(t.Context(), base, w.base); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w world) sandbox(k kind) sandbox {
	if k.ownUsers {
		return w.users
	}
	return w.plain
}

// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestGroupSeesWhatItsCommandStarted(t *testing.T) {
	g, err := New(fmt.Sprintf("kaniko-go-cgroup-test-%d", os.Getpid()))
	if err != nil {
		t.Skipf("no writable control-group tree: %v", err)
	}
	t.Cleanup(g.Remove)
	argv := g.Wrap([]string{"sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; sleep 300 >/dev/null 2>&1 &"})
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if n := len(g.PIDs()); n != 1 {
		t.Errorf("%d processes are left, want the one that was put into the background", n)
	}
	if memory, err := g.Anonymous(); err != nil || memory == 0 {
		t.Errorf("anonymous memory: %d, %v", memory, err)
	}
	user, system, err := g.CPU()
	if err != nil || user+system < time.Millisecond {
		t.Errorf("CPU: %v user, %v system, %v", user, system, err)
	}
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	for range 50 { // the kernel lets go of a dead process's group a moment later
		g.Remove()
		if _, err = os.Stat(g.memory); os.IsNotExist(err) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("%s is still there: %v", g.memory, err)
}

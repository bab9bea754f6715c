// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// sweepDeadline is how long killed processes may take to disappear. A process in
// uninterruptible sleep can take for ever.
const sweepDeadline = 10 * time.Second

// sweep kills every process that alive lists until gone is true. All are stopped
// before any is killed, so that none can fork in answer to another's death.
func sweep(alive func() []int, gone func() bool) error {
	end := time.Now().Add(sweepDeadline)
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		pids := alive()
		for _, sig := range []unix.Signal{unix.SIGSTOP, unix.SIGKILL} {
			for _, pid := range pids {
				_ = unix.Kill(pid, sig)
			}
		}
		if gone() {
			return nil
		}
		if time.Now().After(end) {
			name := "an unknown process"
			if len(pids) > 0 {
				name = fmt.Sprintf("process %d (%s)", pids[0], comm(pids[0]))
			}
			return fmt.Errorf("%s survives SIGKILL for %s", name, sweepDeadline)
		}
		time.Sleep(wait)
	}
}

// sweepMountNamespace kills what lives in ns besides us, and reaps what became our child by that.
func sweepMountNamespace(ns string) error {
	if ns == "" {
		return nil
	}
	return sweep(func() []int { return inMountNamespace(ns) }, func() bool {
		left := inMountNamespace(ns)
		for _, pid := range left {
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
		}
		return len(left) == 0
	})
}

// inMountNamespace lists the living processes of a mount namespace but for ourselves.
// A RUN cannot leave its mount namespace, whatever it forks: making or joining
// one needs CAP_SYS_ADMIN.
func inMountNamespace(ns string) []int {
	var pids []int
	for _, pid := range allPIDs() {
		if pid != os.Getpid() && mountNamespace(pid) == ns {
			pids = append(pids, pid)
		}
	}
	return pids
}

// mountNamespace identifies the mount namespace of pid; "" for a zombie or a stranger.
func mountNamespace(pid int) string {
	ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	if err == nil {
		return ns
	}
	// Its first thread may have ended before the others.
	others, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/ns/mnt", pid))
	for _, name := range others {
		if ns, err := os.Readlink(name); err == nil {
			return ns
		}
	}
	return ""
}

// sweepOrphans kills what the dead builder left to us, its subreaper.
func sweepOrphans(builder int) error {
	orphans := func() []int {
		var pids []int
		for _, pid := range allPIDs() {
			if parent, state := parentOf(pid); parent == os.Getpid() && pid != builder && state != 'Z' {
				pids = append(pids, pid)
			}
		}
		return pids
	}
	return sweep(orphans, func() bool { return len(orphans()) == 0 })
}

// sweepDescendants kills everything that descends from us, its subreaper. In a process whose only children are those of
// one RUN, all may be reaped.
func sweepDescendants(all bool) error {
	return sweep(func() []int { alive, _ := descendants(os.Getpid()); return alive }, func() bool {
		if all {
			return !reapAll()
		}
		alive, children := descendants(os.Getpid())
		for _, pid := range children {
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
		}
		return len(alive) == 0
	})
}

// descendants lists what lives below a process, and the dead among its own children.
func descendants(of int) (alive, dead []int) {
	children := map[int][]int{}
	states := map[int]byte{}
	for _, pid := range allPIDs() {
		parent, state := parentOf(pid)
		children[parent] = append(children[parent], pid)
		states[pid] = state
	}
	todo := children[of]
	for len(todo) > 0 {
		pid := todo[0]
		todo = append(todo[1:], children[pid]...)
		switch {
		case states[pid] != 'Z':
			alive = append(alive, pid)
		case slices.Contains(children[of], pid):
			dead = append(dead, pid)
		}
	}
	return alive, dead
}

func allPIDs() []int {
	d, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer func() { _ = d.Close() }()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil
	}
	var pids []int
	for _, n := range names {
		if pid, err := strconv.Atoi(n); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// parentOf reads the parent and the state letter from /proc/PID/stat, whose
// second field may contain anything. A process is a zombie (Z) only when no thread of it lives: one whose first thread
// has ended, as after pthread_exit in main, runs on (R). Both are 0 for a process that is gone.
func parentOf(pid int) (parent int, state byte) {
	const stateField, parentField, threadsField = 0, 1, 17 // behind the name
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) <= threadsField {
		return 0, 0
	}
	parent, err = strconv.Atoi(f[parentField])
	if err != nil {
		return 0, 0
	}
	if f[stateField] == "Z" && f[threadsField] != "0" && f[threadsField] != "1" {
		return parent, 'R'
	}
	return parent, f[stateField][0]
}

func comm(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return "?"
	}
	return strings.TrimSpace(string(b))
}

// reapAll collects every child that is dead by now, and reports whether there are others.
func reapAll() (more bool) {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return false
		case pid == 0:
			return true
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"errors"
	"fmt"
	"iter"
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

// eager is how long a sweep looks again without a pause.
const eager = 5 * time.Second

// sweep kills every process that alive gives until gone is true. What forks and ends at every moment is met only now and
// then, so each is killed when it is met, and no pause lets such get ahead. A fork cannot answer the death of another:
// a process is killed with its group, which is one act for the kernel.
func sweep(alive iter.Seq[int], gone func() bool) error {
	begun := time.Now()
	for {
		last := 0
		done := map[int]bool{0: true, 1: true, unix.Getpgrp(): true}
		for pid := range alive {
			last = pid
			if group, err := unix.Getpgid(pid); err == nil && !done[group] {
				done[group] = true
				_ = unix.Kill(-group, unix.SIGKILL)
			}
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		if gone() {
			return nil
		}
		took := time.Since(begun)
		if took > sweepDeadline {
			name := "an unknown process"
			if last != 0 {
				name = fmt.Sprintf("process %d (%s)", last, comm(last))
			}
			return fmt.Errorf("%s survives SIGKILL for %s", name, sweepDeadline)
		}
		if took > eager {
			time.Sleep(time.Millisecond)
		}
	}
}

// sweepMountNamespace kills what lives in ns besides us, and reaps what became our child by that.
func sweepMountNamespace(ns string) error {
	if ns == "" {
		return nil
	}
	return sweep(inMountNamespace(ns), func() bool {
		left := false
		for pid := range inMountNamespace(ns) {
			left = true
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
		}
		return !left
	})
}

// inMountNamespace gives the living processes of a mount namespace but for ourselves.
// A RUN cannot leave its mount namespace, whatever it forks: making or joining
// one needs CAP_SYS_ADMIN.
func inMountNamespace(ns string) iter.Seq[int] {
	return living(func(pid int) bool { return pid != os.Getpid() && mountNamespace(pid) == ns })
}

// ownChildren gives the children of this process. A process whose parent ends at once is one of them at once, and to look
// for it here takes far less time than to go through /proc; so it is done several times.
func ownChildren(yield func(int) bool) {
	const passes = 10
	for range passes {
		threads, _ := filepath.Glob("/proc/self/task/*/children")
		for _, name := range threads {
			b, _ := os.ReadFile(name)
			for field := range strings.FieldsSeq(string(b)) {
				if pid, err := strconv.Atoi(field); err == nil && !yield(pid) {
					return
				}
			}
		}
	}
}

// both gives what a gives and then what b gives.
func both(a, b iter.Seq[int]) iter.Seq[int] {
	return func(yield func(int) bool) {
		for _, seq := range []iter.Seq[int]{a, b} {
			for pid := range seq {
				if !yield(pid) {
					return
				}
			}
		}
	}
}

// living gives the processes that match, each as soon as it is found.
func living(match func(pid int) bool) iter.Seq[int] {
	return func(yield func(int) bool) {
		for _, pid := range allPIDs() {
			if match(pid) && !yield(pid) {
				return
			}
		}
	}
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

// sweepOrphans kills and reaps what the dead builder left to us, its subreaper. Who comes after us may be an entrypoint that
// reaps nobody but us.
func sweepOrphans(builder int) error {
	orphans := living(func(pid int) bool {
		parent, state := parentOf(pid)
		return parent == os.Getpid() && pid != builder && state != 'Z'
	})
	return sweep(orphans, func() bool { return !reapAll() })
}

// sweepDescendants kills everything that descends from us, its subreaper. In a process whose only children are those of
// one RUN, all may be reaped.
func sweepDescendants(all bool) error {
	var below iter.Seq[int] = func(yield func(int) bool) {
		alive, _ := descendants(os.Getpid())
		for _, pid := range alive {
			if !yield(pid) {
				return
			}
		}
	}
	if all {
		below = both(ownChildren, below)
	}
	return sweep(below, func() bool {
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

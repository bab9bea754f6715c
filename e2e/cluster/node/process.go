// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// service is a program that runs in the node's namespaces until Down.
type service struct {
	name string
	args []string // the program first
	env  []string
}

// enter is the beginning of a command that runs in the node's namespaces. Not `ip netns exec`: that mounts a new /sys and hides the cgroups.
func (n *Node) enter() []string {
	return []string{"nsenter", "--net=" + n.path("ns", "net"), "--mount=" + n.path("ns", "mnt"), "--"}
}

// inside runs a shell script in the node's namespaces.
func (n *Node) inside(ctx context.Context, script string) error {
	args := append(n.enter(), "sh", "-euc", script)
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("in the node: %s: %w\n%s", script, err, out)
	}
	return nil
}

// start starts a service that is to outlive this process, and notes which process it is.
func (n *Node) start(s service) error {
	log, err := os.OpenFile(n.logFile(s.name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	args := append(n.enter(), s.args...)
	cmd := exec.Command(args[0], args[1:]...) //nolint:noctx // it outlives this process
	cmd.Env = append(os.Environ(), s.env...)
	cmd.Dir = n.Dir
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", s.name, err)
	}
	pid := cmd.Process.Pid
	// nsenter becomes the program, so the process stays the same one; the time tells it from a later one with the same number.
	text := fmt.Sprintf("%d %s", pid, startTime(pid))
	go func() { _ = cmd.Wait() }()
	return os.WriteFile(n.path("pids", s.name), []byte(text), 0o644)
}

// pid is the process of a service, 0 when it does not run.
func (n *Node) pid(name string) int {
	text, err := os.ReadFile(n.path("pids", name))
	if err != nil {
		return 0
	}
	number, when, _ := strings.Cut(string(text), " ")
	pid, err := strconv.Atoi(number)
	if err != nil || when == "" || startTime(pid) != when {
		return 0
	}
	return pid
}

func (n *Node) alive(name string) bool { return n.pid(name) != 0 }

// end stops a service: SIGTERM, and after a while SIGKILL.
func (n *Node) end(name string) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		for range 30 {
			pid := n.pid(name)
			if pid == 0 {
				_ = os.Remove(n.path("pids", name))
				return
			}
			_ = syscall.Kill(pid, signal)
			time.Sleep(100 * time.Millisecond)
		}
	}
	n.say("%s does not end", name)
}

// startTime is field 22 of /proc/PID/stat, "" for a process that has ended.
func startTime(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The name, field 2, may hold spaces and brackets.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" {
		return ""
	}
	return fields[19]
}

// Stop ends one of the registries or another service, for a test that wants it away; Start brings it back.
func (n *Node) Stop(name string) { n.end(name) }

// Start starts a service that was stopped.
func (n *Node) Start(name string) error {
	for _, s := range n.services() {
		if s.name == name && !n.alive(name) {
			return n.start(s)
		}
	}
	return nil
}

// killAll kills the processes that a function chooses by their directory in /proc, until there are none.
func killAll(chosen func() []int) {
	for range 100 {
		pids := chosen()
		if len(pids) == 0 {
			return
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// inPods are the processes of all containers. Cgroups belong to the machine, not to the node's namespaces.
func inPods() []int {
	var pids []int
	for _, root := range kubepods() {
		_ = filepath.WalkDir(root, func(name string, d os.DirEntry, err error) error {
			if err != nil || d.Name() != "cgroup.procs" {
				return nil //nolint:nilerr // it went away
			}
			text, _ := os.ReadFile(name) //nolint:gosec // the kernel's own tree has no links
			for _, field := range strings.Fields(string(text)) {
				if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
					pids = append(pids, pid)
				}
			}
			return nil
		})
	}
	return pids
}

// kubepods are the cgroups below which all pods are: one with cgroup v2, one for every controller with v1.
func kubepods() []string {
	one, _ := filepath.Glob("/sys/fs/cgroup/kubepods")
	many, _ := filepath.Glob("/sys/fs/cgroup/*/kubepods")
	return append(one, many...)
}

// runningAs are the processes whose program is a file.
func runningAs(program string) []int {
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	var pids []int
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && to == program {
			if pid, err := strconv.Atoi(strings.Split(link, "/")[2]); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

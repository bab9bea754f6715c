// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/kaniko-go/kaniko-go/e2e/cgroup"
)

// tick is how often memory is looked at; a shorter spike is missed.
const tick = 25 * time.Millisecond

// cost is what one build took, everything that it started included.
type cost struct {
	code         int
	wall         time.Duration
	user, system time.Duration
	anonymous    int64 // highest sampled heap, stacks and tmpfs of the whole group, bytes
	largest      int64 // highest sampled resident set of one process, bytes
	largestName  string
	how          string // where CPU and memory come from
}

func (c cost) cpu() time.Duration { return c.user + c.system }

// measure runs argv in a group of its own, for at most limit. Without a writable control-group tree CPU comes from rusage and
// memory is that of the largest process alone; how says so.
func measure(ctx context.Context, group *cgroup.Group, argv, env []string, limit time.Duration, log io.Writer) (cost, error) {
	c := cost{how: "rusage"}
	if group != nil {
		argv, c.how = group.Wrap(argv), group.Version()
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = env, log, log, 10*time.Second
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return c, err
	}
	done, sampled := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(sampled)
		c.sample(group, cmd.Process.Pid, done)
	}()
	err := cmd.Wait()
	c.wall = time.Since(start)
	close(done)
	<-sampled
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return c, err
	}
	c.code = cmd.ProcessState.ExitCode()
	c.user, c.system = cmd.ProcessState.UserTime(), cmd.ProcessState.SystemTime()
	if group == nil {
		return c, nil
	}
	if c.user, c.system, err = group.CPU(); err != nil {
		return c, err
	}
	if left := group.PIDs(); len(left) > 0 {
		fmt.Fprintf(log, "bench: %d processes outlived the build\n", len(left))
	}
	return c, group.Kill()
}

func (c *cost) sample(group *cgroup.Group, pid int, done <-chan struct{}) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-done:
			return
		case <-ticker.C:
		}
		pids := []int{pid}
		if group != nil {
			if bytes, err := group.Anonymous(); err == nil {
				c.anonymous = max(c.anonymous, bytes)
			}
			pids = group.PIDs()
		}
		for _, p := range pids {
			if bytes, name := resident(p); bytes > c.largest {
				c.largest, c.largestName = bytes, name
			}
		}
	}
}

// resident is the resident set of a process in bytes and its name; 0 when it has just ended.
func resident(pid int) (int64, string) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, ""
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0, ""
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0, ""
	}
	// not comm, which is "exe" for a program that executed itself again
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return 0, ""
	}
	name, _, _ := strings.Cut(string(line), "\x00")
	return pages * int64(os.Getpagesize()), filepath.Base(name)
}

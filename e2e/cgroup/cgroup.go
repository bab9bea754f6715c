// SPDX-License-Identifier: Apache-2.0

// Package cgroup puts a command and everything it starts into a control group of its own, so that the end-to-end tests can
// see what outlives it and the benchmarks can see what it cost. It speaks both versions of the interface and needs a
// writable control-group tree, which in practice means root. It is not a container runtime's view: no limit is set here.
package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// controllersV1 are entered together, so that a runtime that is given Path as parent finds the same path under each.
func controllersV1() []string {
	return []string{"memory", "cpuacct", "cpu", "pids", "blkio", "devices", "freezer"}
}

// Group is one control group. It is safe for concurrent use.
type Group struct {
	path   string            // below the mount points, the same for every controller
	dirs   map[string]string // controller ("" for version 2) -> directory
	memory string            // the directory whose memory files are read
	cpu    string            // the directory whose CPU files are read
	v2     bool
}

// New makes a group called name at the top of the tree, else below the caller's own group. The error says which directory
// could not be made.
func New(name string) (*Group, error) {
	mounts, err := mountPoints()
	if err != nil {
		return nil, err
	}
	own, err := ownPaths()
	if err != nil {
		return nil, err
	}
	top := func(string) string { return "/" }
	g, first := create(mounts, top, name)
	if first == nil {
		return g, nil
	}
	if g, err = create(mounts, func(c string) string { return own[c] }, name); err != nil {
		return nil, errors.Join(first, err)
	}
	return g, nil
}

func create(mounts map[string]string, parent func(controller string) string, name string) (*Group, error) {
	g := &Group{dirs: map[string]string{}}
	if mounts["memory"] != "" && mounts["cpuacct"] != "" {
		for _, c := range controllersV1() {
			if mounts[c] == "" {
				continue
			}
			dir := filepath.Join(mounts[c], parent(c), name)
			if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) { // cpu and cpuacct may be one mount
				g.Remove()
				return nil, fmt.Errorf("control group: %w", err)
			}
			g.dirs[c] = dir
		}
		g.path, g.memory, g.cpu = path.Join(parent("memory"), name), g.dirs["memory"], g.dirs["cpuacct"]
		return g, nil
	}
	if mounts[""] == "" {
		return nil, errors.New("control group: no control-group file system is mounted")
	}
	dir := filepath.Join(mounts[""], parent(""), name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, fmt.Errorf("control group: %w", err)
	}
	g.dirs[""], g.path, g.memory, g.cpu, g.v2 = dir, path.Join(parent(""), name), dir, dir, true
	if _, err := os.Stat(filepath.Join(dir, "memory.stat")); err != nil {
		g.Remove()
		return nil, fmt.Errorf("control group: the memory controller is not delegated: %w", err)
	}
	return g, nil
}

func mountPoints() (map[string]string, error) {
	points := map[string]string{}
	err := lines("/proc/self/mounts", func(line string) {
		f := strings.Fields(line)
		if len(f) < 4 {
			return
		}
		switch f[2] {
		case "cgroup": // "name=systemd" is among the options, too
			for option := range strings.SplitSeq(f[3], ",") {
				if points[option] == "" {
					points[option] = f[1]
				}
			}
		case "cgroup2":
			points[""] = f[1]
		}
	})
	return points, err
}

func ownPaths() (map[string]string, error) {
	own := map[string]string{}
	err := lines("/proc/self/cgroup", func(line string) {
		f := strings.SplitN(line, ":", 3)
		if len(f) != 3 {
			return
		}
		for c := range strings.SplitSeq(f[1], ",") {
			own[c] = f[2]
		}
	})
	return own, err
}

func lines(name string, each func(string)) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // read only
	s := bufio.NewScanner(f)
	for s.Scan() {
		each(s.Text())
	}
	return s.Err()
}

// Path is the group's path below each mount point, for runtimes that want an absolute parent.
func (g *Group) Path() string { return g.path }

// Version is "cgroup v1" or "cgroup v2".
func (g *Group) Version() string {
	if g.v2 {
		return "cgroup v2"
	}
	return "cgroup v1"
}

// Wrap gives the argument vector that enters the group and then becomes argv.
func (g *Group) Wrap(argv []string) []string {
	var script strings.Builder
	for _, dir := range g.dirs {
		fmt.Fprintf(&script, "echo $$ > '%s/cgroup.procs' || exit 126; ", dir)
	}
	script.WriteString(`exec "$@"`)
	return append([]string{"/bin/sh", "-c", script.String(), "sh"}, argv...)
}

// CPU is what the group's processes, the dead included, have used so far.
func (g *Group) CPU() (user, system time.Duration, err error) {
	if g.v2 {
		s, err := keyValues(filepath.Join(g.cpu, "cpu.stat"))
		return time.Duration(s["user_usec"]) * time.Microsecond, time.Duration(s["system_usec"]) * time.Microsecond, err
	}
	s, err := keyValues(filepath.Join(g.cpu, "cpuacct.stat"))
	if err != nil {
		return 0, 0, err
	}
	total, err := number(filepath.Join(g.cpu, "cpuacct.usage"))
	if err != nil {
		return 0, 0, err
	}
	// cpuacct.stat counts ticks; cpuacct.usage is exact: the ticks only divide it.
	ticks := s["user"] + s["system"]
	if ticks == 0 {
		return time.Duration(total), 0, nil
	}
	user = time.Duration(float64(total) * float64(s["user"]) / float64(ticks))
	return user, time.Duration(total) - user, nil
}

// Anonymous is the memory in bytes that no limit could reclaim: heap, stacks and tmpfs pages.
func (g *Group) Anonymous() (int64, error) {
	s, err := keyValues(filepath.Join(g.memory, "memory.stat"))
	if g.v2 {
		return s["anon"] + s["shmem"], err
	}
	return s["total_rss"] + s["total_shmem"], err
}

// PIDs are the processes that are in the group now, zombies not counted.
func (g *Group) PIDs() []int {
	var pids []int
	_ = filepath.WalkDir(g.memory, func(name string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil //nolint:nilerr // a nested group may vanish while it is walked
		}
		_ = lines(filepath.Join(name, "cgroup.procs"), func(line string) {
			if pid, err := strconv.Atoi(line); err == nil {
				pids = append(pids, pid)
			}
		})
		return nil
	})
	return pids
}

// Kill ends every process of the group; it gives up after five seconds and says how many are left.
func (g *Group) Kill() error {
	deadline := time.Now().Add(5 * time.Second)
	for {
		pids := g.PIDs()
		if len(pids) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("control group %s: %d processes survive SIGKILL", g.path, len(pids))
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Remove removes the group and what runtimes made below it, also where they used Path under controllers that the group itself
// does not enter. Directories that are still busy stay.
func (g *Group) Remove() {
	tops := slices.Collect(maps.Values(g.dirs))
	if mounts, err := mountPoints(); err == nil && g.path != "" {
		for _, mount := range mounts {
			tops = append(tops, filepath.Join(mount, g.path))
		}
	}
	for _, top := range tops {
		var dirs []string
		_ = filepath.WalkDir(top, func(name string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, name)
			}
			return nil
		})
		for i := len(dirs) - 1; i >= 0; i-- {
			_ = syscall.Rmdir(dirs[i])
		}
	}
}

func keyValues(name string) (map[string]int64, error) {
	values := map[string]int64{}
	err := lines(name, func(line string) {
		if key, value, ok := strings.Cut(line, " "); ok {
			values[key], _ = strconv.ParseInt(value, 10, 64)
		}
	})
	return values, err
}

func number(name string) (int64, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
}

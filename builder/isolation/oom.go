// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path"
	"strings"
)

// oomKills is how many processes of our cgroup the kernel has killed for want
// of memory, 0 when that cannot be seen. A pod's containers mount their own cgroup at
// the root of the hierarchy; outside of pods it is found by its path.
func oomKills() int {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return 0
	}
	own := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if f := strings.SplitN(strings.TrimSpace(line), ":", 3); len(f) == 3 {
			own[f[1]] = f[2]
		}
	}
	for _, file := range []string{
		path.Join("/sys/fs/cgroup", own[""], "memory.events"),
		"/sys/fs/cgroup/memory.events",
		path.Join("/sys/fs/cgroup/memory", own["memory"], "memory.oom_control"),
		"/sys/fs/cgroup/memory/memory.oom_control",
	} {
		if n, ok := readOOMKills(file); ok {
			return n
		}
	}
	return 0
}

// readOOMKills finds the line "oom_kill N", which both versions of cgroups have.
func readOOMKills(file string) (int, bool) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		var n int
		if _, err := fmt.Sscanf(s.Text(), "oom_kill %d", &n); err == nil {
			return n, true
		}
	}
	return 0, false
}

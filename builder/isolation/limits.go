// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// resourceOf translates the names that docker build --ulimit takes.
func resourceOf(name string) (int, bool) {
	resource, ok := map[string]int{
		"as": unix.RLIMIT_AS, "core": unix.RLIMIT_CORE, "cpu": unix.RLIMIT_CPU, "data": unix.RLIMIT_DATA,
		"fsize": unix.RLIMIT_FSIZE, "locks": unix.RLIMIT_LOCKS, "memlock": unix.RLIMIT_MEMLOCK,
		"msgqueue": unix.RLIMIT_MSGQUEUE, "nice": unix.RLIMIT_NICE, "nofile": unix.RLIMIT_NOFILE,
		"nproc": unix.RLIMIT_NPROC, "rss": unix.RLIMIT_RSS, "rtprio": unix.RLIMIT_RTPRIO,
		"rttime": unix.RLIMIT_RTTIME, "sigpending": unix.RLIMIT_SIGPENDING, "stack": unix.RLIMIT_STACK,
	}[name]
	return resource, ok
}

// setLimits applies the limits to this process. A hard limit above the pod's
// own needs CAP_SYS_RESOURCE outside any user namespace, so it fails.
func setLimits(limits []Ulimit) error {
	for _, l := range limits {
		resource, ok := resourceOf(l.Name)
		if !ok {
			return fmt.Errorf("unknown ulimit %q", l.Name)
		}
		if err := unix.Prlimit(0, resource, &unix.Rlimit{Cur: l.Soft, Max: l.Hard}, nil); err != nil {
			return fmt.Errorf("ulimit %s=%d:%d (the pod's own limit cannot be raised): %w", l.Name, l.Soft, l.Hard, err)
		}
	}
	return nil
}

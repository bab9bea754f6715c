// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// dockerCapabilities are what a container gets by default; their mask is a80425fb.
func dockerCapabilities() map[int]string {
	return map[int]string{
		unix.CAP_CHOWN: "CAP_CHOWN", unix.CAP_DAC_OVERRIDE: "CAP_DAC_OVERRIDE", unix.CAP_FSETID: "CAP_FSETID",
		unix.CAP_FOWNER: "CAP_FOWNER", unix.CAP_MKNOD: "CAP_MKNOD", unix.CAP_NET_RAW: "CAP_NET_RAW",
		unix.CAP_SETGID: "CAP_SETGID", unix.CAP_SETUID: "CAP_SETUID", unix.CAP_SETFCAP: "CAP_SETFCAP",
		unix.CAP_SETPCAP: "CAP_SETPCAP", unix.CAP_NET_BIND_SERVICE: "CAP_NET_BIND_SERVICE",
		unix.CAP_SYS_CHROOT: "CAP_SYS_CHROOT", unix.CAP_KILL: "CAP_KILL", unix.CAP_AUDIT_WRITE: "CAP_AUDIT_WRITE",
	}
}

// dropBounding limits what this thread can ever have again. The kernel says
// EINVAL after the last capability that it knows. not are those of the default set that go, too.
func dropBounding(not ...int) error {
	keep := dockerCapabilities()
	for _, c := range not {
		delete(keep, c)
	}
	for c := 0; c < 64; c++ {
		if _, ok := keep[c]; ok {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			break
		}
		if err != nil {
			return fmt.Errorf("dropping capability %d from the bounding set: %w", c, err)
		}
	}
	return nil
}

// dropCapabilities leaves root the default set, effective and permitted, and
// everybody else none; inheritable and ambient are empty for both. not are those of the default set that root does not
// get, and neither does it get what we do not have.
func dropCapabilities(root bool, not ...int) error {
	has, err := effective()
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clearing ambient capabilities: %w", err)
	}
	var data [2]unix.CapUserData
	if root {
		for c := range dockerCapabilities() {
			if !has[c] || slices.Contains(not, c) {
				continue
			}
			data[c/32].Effective |= 1 << (c % 32)
		}
		data[0].Permitted, data[1].Permitted = data[0].Effective, data[1].Effective
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	return nil
}

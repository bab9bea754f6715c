// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const howNamespaces = "leave the pod's seccompProfile and appArmorProfile unset or set them to Unconfined, " +
	"or use hostUsers: false with capabilities.add: [SYS_ADMIN]"

// refusedClone explains why no user namespace could be made. What decides is
// not visible as such, so the settings that are known to refuse it are looked at.
func refusedClone(err error) error {
	e := &RefusedError{What: "clone(CLONE_NEWUSER|CLONE_NEWNS)", Err: err, How: howNamespaces}
	switch {
	case errors.Is(err, unix.ENOSPC):
		e.Why = "no more user namespaces are allowed (sysctl user.max_user_namespaces)"
		e.How = "raise that sysctl on the node"
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		e.Why = "the kernel has no user namespaces"
		e.How = ""
	case sysctl("kernel/unprivileged_userns_clone") == "0":
		e.Why = "sysctl kernel.unprivileged_userns_clone is 0"
		e.How = "set it to 1 on the node, or give the container CAP_SYS_ADMIN with hostUsers: false"
	case procStatus("Seccomp") == "2":
		e.Why = "the container's seccomp profile most likely refuses it"
	}
	return e
}

// refusedMount explains why a namespace could be made but nothing can be mounted in it.
func refusedMount(err error) error {
	e := &RefusedError{What: "mounting in a new user and mount namespace", Err: err, How: howNamespaces}
	switch {
	case sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1":
		e.Why = "AppArmor takes the capabilities of unprivileged user namespaces (sysctl kernel.apparmor_restrict_unprivileged_userns is 1)"
	case confinement() != "":
		e.Why = "the container is confined by " + confinement()
	case procStatus("Seccomp") == "2":
		e.Why = "the container's seccomp profile most likely refuses mount"
	}
	return e
}

// sysctl returns the value of a file of /proc/sys, "" when it does not exist.
func sysctl(name string) string {
	b, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// confinement is the label of AppArmor or SELinux, "" when there is none or it confines nothing.
func confinement() string {
	b, err := os.ReadFile("/proc/self/attr/current")
	label := strings.Trim(string(b), "\x00\n ")
	if err != nil || label == "unconfined" || label == "kernel" {
		return ""
	}
	return label
}

// procStatus returns a field of /proc/self/status.
func procStatus(field string) string {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// SPDX-License-Identifier: Apache-2.0

package pods

// kind is a pod's security context.
type kind struct {
	name string
	uid  uint32
	// capabilities are bounding, effective and permitted; nil are a container runtime's default ones.
	capabilities []string
	// seccomp is RuntimeDefault; otherwise the pod is unconfined.
	seccomp         bool
	noNewPrivileges bool
	// privileged has all capabilities, all devices, a writable /sys and nothing masked.
	privileged bool
	// hostUsers false: the pod has a user namespace with 65536 ids of its own.
	ownUsers bool
	// unmasked is procMount: Unmasked.
	unmasked bool
}

// defaultCapabilities are containerd's.
func defaultCapabilities() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
		"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}
}

// unconfined is a pod that asks for nothing, on a cluster without seccompDefault.
func unconfined() kind { return kind{name: "Unconfined"} }

// runtimeDefault is the same with seccompProfile RuntimeDefault.
func runtimeDefault() kind { return kind{name: "RuntimeDefault", seccomp: true} }

// restricted is what Pod Security "restricted" wants.
func restricted() kind {
	return kind{name: "restricted", uid: 1000, capabilities: []string{}, seccomp: true, noNewPrivileges: true}
}

// ownUsers is hostUsers: false.
func ownUsers() kind { return kind{name: "user namespace", ownUsers: true} }

// ownUsersAdmin is the safest pod with RuntimeDefault in which a RUN can be isolated.
func ownUsersAdmin() kind {
	return kind{name: "user namespace, RuntimeDefault, SYS_ADMIN", ownUsers: true, seccomp: true, capabilities: append(defaultCapabilities(), "CAP_SYS_ADMIN")}
}

// ownUsersUnmasked is hostUsers: false with procMount: Unmasked, where a RUN gets a PID namespace.
func ownUsersUnmasked() kind {
	return kind{name: "user namespace, unmasked proc", ownUsers: true, unmasked: true}
}

// privileged is what nobody should use.
func privileged() kind { return kind{name: "privileged", privileged: true} }

// SPDX-License-Identifier: Apache-2.0

// Package isolation gives a RUN instruction its own container inside the
// container that the builder runs in.
//
// The builder re-executes itself once, at process start, in a user and a mount
// namespace ([Enter]); from then on it is uid 0 there and sees only paths. Each
// RUN is a fresh process tree in further namespaces with its own root, Docker's
// default capabilities and seccomp filter, and none of the builder's
// environment, descriptors or mounts ([Status.Run]). Where the pod permits none of that, RUN is a process beside
// the builder in the container's own root ([InPlace]). [New] chooses by trying.
//
// It is not for deciding what runs or what a layer is, and it needs no daemon, no
// runtime and no program of the image. main calls [Dispatch] first, then Enter.
package isolation

import (
	"fmt"
	"os"
	"strings"
)

// Mapping says which ids exist in the builder's user namespace.
type Mapping string

const (
	// MappingIdentity has every id that the builder itself was given, unchanged.
	MappingIdentity Mapping = "identity"
	// MappingSubordinate has the caller as 0 and its /etc/subuid and /etc/subgid ranges from 1 on.
	MappingSubordinate Mapping = "subordinate ids"
	// MappingSingle has the caller as 0 and nobody else.
	MappingSingle Mapping = "single id"
)

// Status is what [Enter] obtained. The zero Status permits no RUN. A Status is
// safe for concurrent use; independent stages run at the same time.
type Status struct {
	// Namespaced is true in the re-executed builder and false where the kernel or the pod refused.
	Namespaced bool
	// Reason is why Namespaced is false: a *[RefusedError].
	Reason error
	// Mapping is the kind of user namespace, UIDs and GIDs the ids that exist in it.
	Mapping    Mapping
	UIDs, GIDs []Extent
	// Limit is why the mapping is not a better one; nil when it is the best there is.
	Limit error
	// PIDNamespace tells whether every RUN gets a PID namespace with its own /proc. Without
	// one (the usual case in a pod, whose /proc is partly masked) RUN sees the
	// pod's processes, and leftovers are found by their mount namespace instead.
	PIDNamespace bool

	// Choice is what the user asked for; Force lets a build in place move files of others away. The caller of Enter sets both.
	Choice Choice
	Force  bool

	// inPlace is set in the copy that InPlace starts processes with.
	inPlace bool
	// recovery is what went wrong with putting back what a killed build in place had taken away.
	recovery error

	// self is our own executable on a read-only mount. Nothing is ever
	// executed by path after Enter, because RUN may have written to paths.
	self *os.File
}

// String describes s on one line for the log.
func (s Status) String() string {
	if !s.Namespaced {
		return fmt.Sprintf("no isolation: %v", s.Reason)
	}
	ns := []string{fmt.Sprintf("user (%s)", s.Mapping), "mount", "uts", "ipc"}
	if s.PIDNamespace {
		ns = append(ns, "pid")
	}
	line := "isolation: namespace; " + strings.Join(ns, ", ")
	if s.Limit != nil {
		line += fmt.Sprintf("; %v", s.Limit)
	}
	return line
}

// RefusedError says what exactly the environment does not permit and what to
// change. It belongs to the exit class "environment".
type RefusedError struct {
	// What was refused, e.g. "clone(CLONE_NEWUSER|CLONE_NEWNS)".
	What string
	// Why it was most likely refused, as far as can be seen from inside.
	Why string
	// How to get it.
	How string
	// Err is the kernel's answer; nil when there is none.
	Err error
}

// Error is one line: what, the kernel's answer, why and how.
func (e *RefusedError) Error() string {
	var b strings.Builder
	b.WriteString(e.What + " is not permitted here")
	if e.Err != nil {
		fmt.Fprintf(&b, " (%v)", e.Err)
	}
	if e.Why != "" {
		b.WriteString(": " + e.Why)
	}
	if e.How != "" {
		b.WriteString("; " + e.How)
	}
	return b.String()
}

// Unwrap returns the kernel's answer.
func (e *RefusedError) Unwrap() error { return e.Err }

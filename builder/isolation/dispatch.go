// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"encoding/gob"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Roles are told apart by argv[0], so that the user's own arguments stay
// untouched. The descriptors that each role expects are listed beside it.
const (
	// roleEnter waits until its ids are mapped, then becomes roleBuilder. fdSpec, fdStatus.
	roleEnter = "kaniko-go:enter"
	// roleBuilder is the builder in its namespaces. fdSpec, fdStatus.
	roleBuilder = "kaniko-go:builder"
	// roleInit is the first process of one RUN. fdSpec, fdStatus, fdSelf.
	roleInit = "kaniko-go:run-init"
	// roleCommand becomes the command of one RUN. fdSpec, fdStatus.
	roleCommand = "kaniko-go:run-command"
	// roleProbe tries mounts in namespaces of its own. fdSpec, fdStatus.
	roleProbe = "kaniko-go:probe"
)

// Descriptors of the re-executed roles.
const (
	fdSpec   = 3
	fdStatus = 4
	fdSelf   = 5
)

// Dispatch must be the first call of main, and of TestMain in tests that use
// this package. In a process that was re-executed for a role of this package it
// runs the role and never returns; in any other it returns at once.
func Dispatch() {
	switch os.Args[0] {
	case roleEnter:
		exitIf(enter())
	case roleInit:
		exitIf(runInit())
	case roleCommand:
		exitIf(runCommand())
	case roleProbe:
		exitIf(runProbe())
	default:
		return
	}
	os.Exit(0)
}

// exitIf ends a role that failed before it could report through its status
// descriptor; the message is for people only.
func exitIf(err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[0], err)
		os.Exit(exitRoleFailed)
	}
}

// exitRoleFailed is the exit code of a role that broke; what happened is in the status report.
const exitRoleFailed = 125

// readSpec decodes what the parent wrote to fdSpec. Gob and not JSON, because
// arguments, environment and paths are bytes that need not be UTF-8.
func readSpec(spec any) error {
	f := os.NewFile(fdSpec, "spec")
	defer func() { _ = f.Close() }()
	if err := gob.NewDecoder(f).Decode(spec); err != nil {
		return fmt.Errorf("reading the specification on descriptor %d: %w", fdSpec, err)
	}
	return nil
}

// undumpable makes /proc/self unreadable for every process that lacks
// CAP_SYS_PTRACE in our user namespace: environment, memory and descriptors. Each exec resets it.
func undumpable() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl(PR_SET_DUMPABLE): %w", err)
	}
	return nil
}

// subreaper says whether orphaned descendants become our children instead of those of the container's first process.
func subreaper(on bool) error {
	var arg uintptr
	if on {
		arg = 1
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, arg, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl(PR_SET_CHILD_SUBREAPER): %w", err)
	}
	return nil
}

// dieWith asks the kernel to kill us when parent does, which may have happened
// already. The setting is lost whenever an exec or a change of ids alters our credentials.
func dieWith(parent int) error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("prctl(PR_SET_PDEATHSIG): %w", err)
	}
	// In a new PID namespace the parent is invisible and reads as 0.
	if p := os.Getppid(); p != parent && p != 0 {
		return fmt.Errorf("the parent process %d is gone", parent)
	}
	return nil
}

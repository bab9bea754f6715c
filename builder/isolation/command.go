// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"encoding/gob"
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Exit codes of a shell for a command that cannot be started.
const (
	codeNotExecutable = 126
	codeNotFound      = 127
)

// commandSpec is what the process that becomes the command needs.
type commandSpec struct {
	Process   Process
	Parent    int
	SetGroups bool
	InPlace   bool
}

// startError is a fault of the image: the command cannot be started.
type startError struct {
	code int
	text string
}

func (e *startError) Error() string { return e.text }

// runCommand is the role. It returns only when it failed to become the command,
// after telling its parent.
func runCommand() error {
	// Ids, capabilities and filters belong to a thread; exec takes those of the calling one.
	runtime.LockOSThread()
	unix.CloseOnExec(fdStatus)
	status := gob.NewEncoder(os.NewFile(fdStatus, "status"))
	if err := status.Encode(report{Kind: reportReady}); err != nil {
		return err
	}
	var spec commandSpec
	if err := readSpec(&spec); err != nil {
		return err
	}
	err := become(spec)
	r := report{Kind: reportFailed, Err: toWire(err)}
	if start, ok := errors.AsType[*startError](err); ok {
		r = report{Kind: reportStart, Status: uint32(start.code), Err: wireError{Text: start.text}}
	}
	return status.Encode(r)
}

// become gives up everything and executes the command.
func become(spec commandSpec) error {
	p := spec.Process
	if err := undumpable(); err != nil {
		return err
	}
	unix.Umask(0o022)
	raiseOOMScore()
	// The builder's session keyring may hold secrets; RUN gets an empty one. Not every kernel has keyrings.
	_, _ = unix.KeyctlJoinSessionKeyring("")
	if err := setLimits(p.Ulimits); err != nil {
		return err
	}
	for fd := range 3 {
		// /dev/stdout is opened anew by name, which only the owner of the pipe may. /dev/null stays whose it is.
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO {
			_ = unix.Fchown(fd, int(p.UID), int(p.GID))
		}
	}
	if err := followRoot(); err != nil {
		return err
	}
	if err := unix.Chdir(p.Dir); err != nil {
		return &startError{codeNotExecutable, fmt.Sprintf("chdir to %q: %v", p.Dir, err)}
	}
	drop := dropPrivileges
	if spec.InPlace {
		drop = dropInPlace
	}
	if err := drop(p, spec.SetGroups); err != nil {
		return err
	}
	if err := dieWith(spec.Parent); err != nil {
		return err
	}
	if err := closeOthers(); err != nil {
		return err
	}
	unignoreSignals()
	return execute(p)
}

// followRoot makes what is mounted over our root directory our root. pivot_root has done that for us; where the mount was
// moved instead, we are still below it: "/" itself is never looked up through a mount, "/.." is.
func followRoot() error {
	if err := unix.Chdir("/.."); err != nil {
		return err
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("chroot: %w", err)
	}
	return nil
}

// dropPrivileges leaves Docker's defaults: the filter first, while we may install it
// without no_new_privs, which would disarm sudo and su in the image.
func dropPrivileges(p Process, setGroups bool) error {
	filter, err := seccompFilter()
	if err != nil {
		return err
	}
	if err := dropBounding(); err != nil {
		return err
	}
	if err := installFilter(filter); err != nil {
		return err
	}
	if setGroups {
		if err := setGroupsHere(p.Groups); err != nil {
			return fmt.Errorf("setgroups: %w", err)
		}
	}
	if err := becomeUser(p); err != nil {
		return err
	}
	return dropCapabilities(p.UID == 0)
}

// dropInPlace leaves what a pod without namespaces permits us to take away. RUN is root beside the builder and must never have
// all that the builder has: the kernel lets nobody look into a process with more capabilities.
func dropInPlace(p Process, _ bool) error {
	filter, err := seccompFilter()
	if err != nil {
		return err
	}
	// Not to be permitted, without SETPCAP, is in the log.
	_ = dropBounding(unix.CAP_SETPCAP)
	// Permitted with SYS_ADMIN, and where no_new_privs is set anyway: we do not set it ourselves, for the sake of sudo in the image.
	_ = installFilter(filter)
	if err := setGroupsHere(p.Groups); err != nil && (len(p.Groups) > 0 || !errors.Is(err, unix.EPERM)) {
		return fmt.Errorf("setgroups (the container needs CAP_SETGID): %w", err)
	}
	if err := becomeUser(p); err != nil {
		return err
	}
	return dropCapabilities(p.UID == 0, unix.CAP_SETPCAP)
}

// becomeUser takes the user's ids.
func becomeUser(p Process) error {
	// Raw calls, for those of the libraries change all threads and we want exactly this one.
	gid, uid := uintptr(p.GID), uintptr(p.UID)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, gid, gid, gid); errno != 0 {
		return fmt.Errorf("setting the group id to %d: %w", p.GID, errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); errno != 0 {
		return fmt.Errorf("setting the user id to %d: %w", p.UID, errno)
	}
	return nil
}

func setGroupsHere(groups []uint32) error {
	var list unsafe.Pointer
	if len(groups) > 0 {
		list = unsafe.Pointer(&groups[0]) //nolint:gosec // the argument of a system call
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(list), 0); errno != 0 {
		return errno
	}
	return nil
}

// unignoreSignals gives the command the default actions: what the builder was
// started with ignored, by nohup or a shell's "&", would stay so across all our execs.
func unignoreSignals() {
	var defaultAction [4]uint64 // struct sigaction of the kernel; SIG_DFL is 0
	signals := []unix.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGPIPE}
	// Real-time signals too: the first ones belong to the C library of whoever started us, which may ignore them.
	for s := unix.Signal(32); s <= 64; s++ {
		signals = append(signals, s)
	}
	for _, s := range signals {
		_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s),
			uintptr(unsafe.Pointer(&defaultAction)), 0, 8, 0, 0) //nolint:gosec // the argument of a system call
	}
}

// closeOthers sees to it that the command inherits nothing but the standard streams.
func closeOthers() error {
	err := unix.CloseRange(3, ^uint(0)>>32, unix.CLOSE_RANGE_CLOEXEC)
	if err == nil {
		return nil
	}
	// Before Linux 5.11.
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, f := range fds {
		if fd, err := strconv.Atoi(f.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

// execute finds the command in the root that we are in, as execvp(3) does, and becomes it.
func execute(p Process) error {
	name := p.Args[0]
	if strings.Contains(name, "/") {
		return startFailure(name, unix.Exec(name, p.Args, p.Env))
	}
	denied := false
	for _, dir := range strings.Split(lastValue(p.Env, "PATH"), ":") {
		file := path.Join(dir, name)
		if dir == "" {
			file = "./" + name
		}
		var st unix.Stat_t
		if name == "" || unix.Stat(file, &st) != nil || st.Mode&unix.S_IFMT == unix.S_IFDIR {
			continue
		}
		err := unix.Exec(file, p.Args, p.Env)
		if !errors.Is(err, unix.EACCES) {
			return startFailure(name, err)
		}
		denied = true
	}
	if denied {
		return startFailure(name, unix.EACCES)
	}
	return &startError{codeNotFound, fmt.Sprintf("exec: %q: executable file not found in $PATH", name)}
}

func startFailure(name string, err error) error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return &startError{codeNotFound, fmt.Sprintf("exec: %q: %v", name, err)}
	case errors.Is(err, unix.ENOEXEC):
		return &startError{codeNotExecutable, fmt.Sprintf("exec %s: exec format error", name)}
	default:
		return &startError{codeNotExecutable, fmt.Sprintf("exec: %q: %v", name, err)}
	}
}

// lastValue is the value of key in env; the last one counts, as in a shell.
func lastValue(env []string, key string) string {
	for i := len(env) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(env[i], key+"="); ok {
			return v
		}
	}
	return ""
}

// raiseOOMScore makes the kernel prefer the command to the builder when memory runs out. Best effort.
func raiseOOMScore() {
	const file = "/proc/self/oom_score_adj"
	b, err := os.ReadFile(file)
	if err != nil {
		return
	}
	if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
		_ = os.WriteFile(file, []byte(strconv.Itoa(min(n+100, 1000))), 0)
	}
}

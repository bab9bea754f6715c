// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"fmt"
	"runtime"
	"slices"
	"unsafe"

	"github.com/elastic/go-seccomp-bpf/arch"
	profile "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// seccompFilter is Docker's default profile as the kernel takes it, for the
// native system calls and the 32-bit ones of the same processor. The x32 calls of amd64 do not exist
// (ENOSYS), as on kernels built without them.
func seccompFilter() ([]bpf.RawInstruction, error) {
	p, err := dockerProfile()
	if err != nil {
		return nil, err
	}
	var tables []*arch.Info
	switch runtime.GOARCH {
	case "amd64":
		tables = []*arch.Info{arch.X86_64, arch.I386}
	case "arm64":
		tables = []*arch.Info{arch.AARCH64, arch.ARM}
	default:
		return nil, fmt.Errorf("no seccomp filter for %s: its system call numbers are not known here", runtime.GOARCH)
	}
	program := []bpf.Instruction{bpf.LoadAbsolute{Off: offsetArch, Size: 4}}
	for _, t := range tables {
		rules, err := rulesFor(p, t)
		if err != nil {
			return nil, err
		}
		body := append([]bpf.Instruction{bpf.LoadAbsolute{Off: offsetNumber, Size: 4}}, search(rules)...)
		program = append(program,
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(t.ID), SkipTrue: 1},
			bpf.Jump{Skip: uint32(len(body))})
		program = append(program, body...)
	}
	// Another architecture's calls cannot be told apart; libseccomp kills for that, too.
	program = append(program, bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS})
	raw, err := bpf.Assemble(program)
	if err != nil {
		return nil, fmt.Errorf("assembling the seccomp filter: %w", err)
	}
	return raw, nil
}

// dockerProfile is the default profile for the default capabilities.
func dockerProfile() (*specs.LinuxSeccomp, error) {
	var names []string
	for _, n := range dockerCapabilities() {
		names = append(names, n)
	}
	slices.Sort(names)
	p, err := profile.GetDefaultProfile(&specs.Spec{Process: &specs.Process{
		Capabilities: &specs.LinuxCapabilities{Bounding: names},
	}})
	if err != nil {
		return nil, fmt.Errorf("default seccomp profile: %w", err)
	}
	return p, nil
}

// installFilter puts the filter on this thread and what it becomes. It needs
// CAP_SYS_ADMIN in our user namespace, because no_new_privs is not set.
func installFilter(filter []bpf.RawInstruction) error {
	code := make([]unix.SockFilter, 0, len(filter))
	for _, i := range filter {
		code = append(code, unix.SockFilter{Code: i.Op, Jt: i.Jt, Jf: i.Jf, K: i.K})
	}
	program := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0,
		uintptr(unsafe.Pointer(&program))) //nolint:gosec // the argument of a system call
	runtime.KeepAlive(code)
	if errno != 0 {
		return fmt.Errorf("installing the seccomp filter: %w", errno)
	}
	return nil
}

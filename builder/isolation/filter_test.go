// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"encoding/binary"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// TestFilter runs the filter on made-up calls. The virtual machine reads
// big-endian words, so the data is laid out that way, low word first.
func TestFilter(t *testing.T) {
	raw, err := seccompFilter()
	if err != nil {
		t.Skip(err)
	}
	program, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("not understood")
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	tables := []*arch.Info{arch.X86_64, arch.I386}
	if native, err := arch.GetInfo(""); err == nil && native == arch.AARCH64 {
		tables = []*arch.Info{arch.AARCH64, arch.ARM}
	}
	allow, perm, nosys := uint32(unix.SECCOMP_RET_ALLOW), errnoVerdict(unix.EPERM), errnoVerdict(unix.ENOSYS)
	tests := []struct {
		call string
		args [6]uint64
		want uint32
	}{
		{"read", [6]uint64{}, allow},
		{"execve", [6]uint64{}, allow},
		{"fchmodat2", [6]uint64{}, allow},
		{"chroot", [6]uint64{}, allow},
		{"ptrace", [6]uint64{}, allow},
		{"mount", [6]uint64{}, perm},
		{"unshare", [6]uint64{}, perm},
		{"setns", [6]uint64{}, perm},
		{"bpf", [6]uint64{}, perm},
		{"open_by_handle_at", [6]uint64{}, perm},
		{"kexec_load", [6]uint64{}, perm},
		{"add_key", [6]uint64{}, perm},
		{"io_uring_setup", [6]uint64{}, perm},
		{"clone3", [6]uint64{}, nosys},
		{"clone", [6]uint64{uint64(unix.SIGCHLD) | unix.CLONE_VM}, allow},
		{"clone", [6]uint64{uint64(unix.SIGCHLD) | unix.CLONE_NEWUSER}, perm},
		{"clone", [6]uint64{unix.CLONE_NEWNS}, perm},
		{"clone", [6]uint64{1 << 40}, allow},
		{"personality", [6]uint64{0x20008}, allow},
		{"personality", [6]uint64{0xffffffff}, allow},
		{"personality", [6]uint64{0xffffffffffffffff}, perm},
		{"personality", [6]uint64{0x40000}, perm},
		{"socket", [6]uint64{unix.AF_INET}, allow},
		{"socket", [6]uint64{unix.AF_UNIX}, allow},
		{"socket", [6]uint64{unix.AF_VSOCK}, perm},
		{"socket", [6]uint64{unix.AF_ALG}, perm},
		{"socket", [6]uint64{1<<32 | unix.AF_INET}, perm},
	}
	for _, table := range tables {
		for _, tt := range tests {
			number, ok := table.SyscallNames[tt.call]
			if !ok {
				continue
			}
			if got := verdictOf(t, vm, uint32(table.ID), uint32(number), tt.args); got != tt.want {
				t.Errorf("%s %s%x: %#x, want %#x", table.Name, tt.call, tt.args, got, tt.want)
			}
		}
		if got := verdictOf(t, vm, uint32(table.ID), 5000, [6]uint64{}); got != nosys {
			t.Errorf("%s: a call of the future: %#x", table.Name, got)
		}
	}
	if tables[0] == arch.X86_64 {
		if got := verdictOf(t, vm, uint32(arch.X86_64.ID), x32Bit|1, [6]uint64{}); got != nosys {
			t.Errorf("x32: %#x", got)
		}
	}
	if got := verdictOf(t, vm, uint32(arch.MIPS.ID), 1, [6]uint64{}); got != unix.SECCOMP_RET_KILL_PROCESS&0xffffffff {
		t.Errorf("another architecture: %#x", got)
	}
}

// TestFilterAgreesWithTheProfile asks for every number of the tables whether it is allowed, without arguments' conditions.
func TestFilterAgreesWithTheProfile(t *testing.T) {
	raw, err := seccompFilter()
	if err != nil {
		t.Skip(err)
	}
	p, err := dockerProfile()
	if err != nil {
		t.Fatal(err)
	}
	program, _ := bpf.Disassemble(raw)
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	table, err := arch.GetInfo("")
	if err != nil {
		t.Fatal(err)
	}
	allowed, conditional := map[string]bool{}, map[string]bool{}
	for _, s := range p.Syscalls {
		for _, n := range s.Names {
			if len(s.Args) > 0 {
				conditional[n] = true
			} else if s.Action == "SCMP_ACT_ALLOW" {
				allowed[n] = true
			}
		}
	}
	seen := 0
	for name, number := range table.SyscallNames {
		if conditional[name] && !allowed[name] {
			continue
		}
		seen++
		got := verdictOf(t, vm, uint32(table.ID), uint32(number), [6]uint64{}) == unix.SECCOMP_RET_ALLOW
		if got != allowed[name] {
			t.Errorf("%s (%d): allowed %v, want %v", name, number, got, allowed[name])
		}
	}
	if seen < 300 {
		t.Errorf("only %d calls compared", seen)
	}
}

func verdictOf(t *testing.T, vm *bpf.VM, id, number uint32, args [6]uint64) uint32 {
	t.Helper()
	data := make([]byte, 64)
	binary.BigEndian.PutUint32(data[offsetNumber:], number)
	binary.BigEndian.PutUint32(data[offsetArch:], id)
	for i, a := range args {
		binary.BigEndian.PutUint32(data[offsetArgs+8*i:], uint32(a))
		binary.BigEndian.PutUint32(data[offsetArgs+8*i+4:], uint32(a>>32))
	}
	got, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(got)
}

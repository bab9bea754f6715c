// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"fmt"
	"math"
	"slices"

	"github.com/elastic/go-seccomp-bpf/arch"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data.
const (
	offsetNumber = 0
	offsetArch   = 4
	offsetArgs   = 16
)

// x32Bit marks the system calls of the x32 ABI.
const x32Bit = 0x40000000

// lastCommonNumber is above every ordinary number and below those private to ARM and x32.
const lastCommonNumber = 0xffff

// rule is what happens to a run of system call numbers, from first to the
// first of the next rule. Cases are tried in order; verdict is for the rest.
type rule struct {
	first   uint32
	cases   []conditional
	verdict uint32
}

// conditional is a verdict for calls whose arguments meet all conditions.
type conditional struct {
	conditions []specs.LinuxSeccompArg
	verdict    uint32
}

// same tells whether two rules can be one.
func (r rule) same(o rule) bool {
	return len(r.cases) == 0 && len(o.cases) == 0 && r.verdict == o.verdict
}

// rulesFor translates a profile for one architecture into rules in order of
// number that cover all numbers. A number above all that the profile knows gets ENOSYS
// and not the profile's EPERM, so that libraries fall back as on an older kernel.
func rulesFor(p *specs.LinuxSeccomp, table *arch.Info) ([]rule, error) {
	byNumber := map[uint32][]specs.LinuxSyscall{}
	newest := uint32(0)
	for _, s := range p.Syscalls {
		for _, name := range s.Names {
			n, ok := table.SyscallNames[name]
			if !ok {
				continue // Not a call of this architecture.
			}
			number := uint32(n)
			byNumber[number] = append(byNumber[number], s)
			if number <= lastCommonNumber {
				newest = max(newest, number)
			}
		}
	}
	otherwise, err := verdict(p.DefaultAction, p.DefaultErrnoRet)
	if err != nil {
		return nil, err
	}
	var numbers []uint32
	for n := range byNumber {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	rules := []rule{{first: 0, verdict: otherwise}}
	for _, n := range numbers {
		r, err := ruleOf(n, byNumber[n], otherwise)
		if err != nil {
			return nil, err
		}
		rest := otherwise
		if n >= newest {
			rest = errnoVerdict(unix.ENOSYS)
		}
		rules = append(rules, r, rule{first: n + 1, verdict: rest})
	}
	if table == arch.X86_64 {
		rules = append(rules, rule{first: x32Bit, verdict: errnoVerdict(unix.ENOSYS)})
	}
	return merge(rules), nil
}

// ruleOf combines all that the profile says about one call: the unconditional
// entry counts if there is one, as in libseccomp.
func ruleOf(number uint32, entries []specs.LinuxSyscall, otherwise uint32) (rule, error) {
	r := rule{first: number, verdict: otherwise}
	for _, e := range entries {
		v, err := verdict(e.Action, e.ErrnoRet)
		if err != nil {
			return rule{}, err
		}
		if len(e.Args) == 0 {
			return rule{first: number, verdict: v}, nil
		}
		for _, arg := range e.Args {
			if compare(arg, 0) == nil {
				return rule{}, fmt.Errorf("seccomp operator %s is not supported", arg.Op)
			}
		}
		r.cases = append(r.cases, conditional{e.Args, v})
	}
	return r, nil
}

// merge drops empty runs and joins neighbours that do the same.
func merge(rules []rule) []rule {
	var out []rule
	for i, r := range rules {
		if i+1 < len(rules) && rules[i+1].first == r.first {
			continue
		}
		if len(out) > 0 && out[len(out)-1].same(r) {
			continue
		}
		out = append(out, r)
	}
	return out
}

// search is a binary search for the number in the accumulator; every branch
// ends in a return. Conditional jumps reach 255 instructions, plain ones anywhere.
func search(rules []rule) []bpf.Instruction {
	if len(rules) == 1 {
		return rules[0].instructions()
	}
	middle := len(rules) / 2
	low, high := search(rules[:middle]), search(rules[middle:])
	var code []bpf.Instruction
	if len(low) <= math.MaxUint8 {
		code = append(code, bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: rules[middle].first, SkipTrue: uint8(len(low))})
	} else {
		code = append(code,
			bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: rules[middle].first, SkipFalse: 1},
			bpf.Jump{Skip: uint32(len(low))})
	}
	return append(append(code, low...), high...)
}

func (r rule) instructions() []bpf.Instruction {
	var code []bpf.Instruction
	for _, c := range r.cases {
		block := []bpf.Instruction{bpf.RetConstant{Val: c.verdict}}
		for _, arg := range slices.Backward(c.conditions) {
			block = append(compare(arg, uint8(len(block))), block...)
		}
		code = append(code, block...)
	}
	return append(code, bpf.RetConstant{Val: r.verdict})
}

// compare falls through when the argument meets the condition and otherwise
// jumps beyond the skip instructions that follow; nil for an operator that the profile does
// not use. Arguments are 64 bits (little-endian on all we support), the machine has 32.
func compare(arg specs.LinuxSeccompArg, skip uint8) []bpf.Instruction {
	low, high := uint32(offsetArgs+8*arg.Index), uint32(offsetArgs+8*arg.Index+4)
	loadLow, loadHigh := bpf.LoadAbsolute{Off: low, Size: 4}, bpf.LoadAbsolute{Off: high, Size: 4}
	lowWord, highWord := uint32(arg.Value), uint32(arg.Value>>32)
	switch arg.Op {
	case specs.OpEqualTo:
		return []bpf.Instruction{
			loadHigh,
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: highWord, SkipFalse: skip + 2},
			loadLow,
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: lowWord, SkipFalse: skip},
		}
	case specs.OpLessThan:
		return []bpf.Instruction{
			loadHigh,
			bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: highWord, SkipTrue: skip + 3},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: highWord, SkipFalse: 2},
			loadLow,
			bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: lowWord, SkipTrue: skip},
		}
	case specs.OpMaskedEqual:
		wantLow, wantHigh := uint32(arg.ValueTwo), uint32(arg.ValueTwo>>32)
		return []bpf.Instruction{
			loadHigh,
			bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: highWord},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: wantHigh, SkipFalse: skip + 3},
			loadLow,
			bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: lowWord},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: wantLow, SkipFalse: skip},
		}
	default:
		return nil
	}
}

// verdict is the filter's return value for an action.
func verdict(action specs.LinuxSeccompAction, errno *uint) (uint32, error) {
	switch action {
	case specs.ActAllow:
		return unix.SECCOMP_RET_ALLOW, nil
	case specs.ActErrno:
		e := unix.EPERM
		if errno != nil {
			e = unix.Errno(*errno)
		}
		return errnoVerdict(e), nil
	case specs.ActKillProcess:
		return unix.SECCOMP_RET_KILL_PROCESS, nil
	default:
		return 0, fmt.Errorf("seccomp action %s is not supported", action)
	}
}

func errnoVerdict(e unix.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(e) }

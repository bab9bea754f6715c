// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"os/signal"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// killGrace is what a command gets between SIGTERM and SIGKILL.
const killGrace = 3 * time.Second

// initSpec is one RUN as its first process gets it.
type initSpec struct {
	FS           FS
	Process      Process
	PIDNamespace bool
	TTYGroup     string
	// SetGroups is false where the user namespace forbids setgroups(2).
	SetGroups bool
	// InPlace says that the command runs in our own root.
	InPlace bool
}

// report is what the first process of a RUN tells the builder: at most one of
// each kind, reportExit last but for reportLeftover.
type report struct {
	Kind reportKind
	// Status is the wait status of the command (exit), or an exit code (start).
	Status uint32
	Err    wireError
}

type reportKind int

const (
	// reportFailed is a fault of the environment: the command never started.
	reportFailed reportKind = iota + 1
	// reportStart is a command that could not be started for a reason in the image.
	reportStart
	// reportExit is how the command ended.
	reportExit
	// reportReady is the command's process, up and waiting; only between it and the first process.
	reportReady
	// reportLeftover is a process that cannot be killed, or a mount point that cannot be removed.
	reportLeftover
)

// runInit is the role: assemble the root, start the command, see everything dead.
func runInit() error {
	// The command's parent-death signal is bound to this thread.
	runtime.LockOSThread()
	var spec initSpec
	if err := readSpec(&spec); err != nil {
		return err
	}
	unix.CloseOnExec(fdStatus)
	unix.CloseOnExec(fdSelf)
	unix.Umask(0)
	status := gob.NewEncoder(os.NewFile(fdStatus, "status"))
	a := &assembly{proc: spec.Process, freshProc: spec.PIDNamespace, ttyGroup: spec.TTYGroup}
	i := &initProcess{spec: spec, assembly: a}
	if err := i.prepare(); err != nil {
		return status.Encode(report{Kind: reportFailed, Err: toWire(err)})
	}
	for _, r := range i.run() {
		if err := status.Encode(r); err != nil {
			return err
		}
	}
	return nil
}

// initProcess is the first process of a RUN.
type initProcess struct {
	spec     initSpec
	assembly *assembly
	// command is the PID of the command and its process group, 0 before it started.
	command atomic.Int64
	ended   atomic.Bool
	// commandSpec and commandStatus are our ends of the command's pipes.
	commandSpec   *os.File
	commandStatus *gob.Decoder
	ns            string
}

func (i *initProcess) prepare() error {
	if err := errors.Join(undumpable(), subreaper(true)); err != nil {
		return err
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, forwarded()...)
	go i.pass(signals, os.Getppid())
	if i.spec.InPlace {
		return i.prepareInPlace()
	}
	if err := unix.Sethostname([]byte(i.spec.Process.Hostname)); err != nil {
		return fmt.Errorf("sethostname: %w", err)
	}
	if i.spec.Process.Network == NetworkNone {
		if err := loopbackUp(); err != nil {
			return err
		}
	}
	// It starts while the mounts are made, and pivot_root takes it along.
	if err := i.fork(); err != nil {
		return err
	}
	if err := i.assembly.assemble(i.spec.FS); err != nil {
		return err
	}
	// Before it is up it must not see the image: a dynamically linked executable would load the
	// image's libraries, with all our capabilities.
	var ready report
	if err := i.commandStatus.Decode(&ready); err != nil {
		return fmt.Errorf("the command's process did not start: %w", err)
	}
	if err := i.assembly.pivot(); err != nil {
		return err
	}
	i.ns = mountNamespace(os.Getpid())
	if i.ns == "" {
		return fmt.Errorf("/proc of the root does not show this process")
	}
	return nil
}

// prepareInPlace has no root to assemble.
func (i *initProcess) prepareInPlace() error {
	if err := i.fork(); err != nil {
		return err
	}
	var ready report
	if err := i.commandStatus.Decode(&ready); err != nil {
		return fmt.Errorf("the command's process did not start: %w", err)
	}
	return nil
}

// run starts the command and returns when nothing of it is alive or mounted any more.
func (i *initProcess) run() []report {
	failed, err := i.start()
	if err != nil {
		return []report{{Kind: reportFailed, Err: toWire(err)}}
	}
	st, err := i.wait()
	if err != nil {
		return []report{{Kind: reportFailed, Err: toWire(err)}}
	}
	result := report{Kind: reportExit, Status: uint32(st)}
	if failed.Kind != 0 {
		result = failed
	}
	reports := []report{result}
	err = i.killAll()
	if !i.spec.InPlace {
		err = errors.Join(err, i.assembly.takeApart())
	}
	if err != nil {
		reports = append(reports, report{Kind: reportLeftover, Err: toWire(err)})
	}
	return reports
}

// fork executes ourselves once more, for the process that is to become the command.
func (i *initProcess) fork() error {
	specR, specW, err := os.Pipe()
	if err != nil {
		return err
	}
	statusR, statusW, err := os.Pipe()
	if err != nil {
		return err
	}
	pid, err := syscall.ForkExec(fdPath(fdSelf), []string{roleCommand}, &syscall.ProcAttr{
		Dir:   "/",
		Env:   []string{},
		Files: []uintptr{0, 1, 2, specR.Fd(), statusW.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGKILL},
	})
	_, _, _ = specR.Close(), statusW.Close(), unix.Close(fdSelf)
	if err != nil {
		return fmt.Errorf("starting the command's process: %w", err)
	}
	i.command.Store(int64(pid))
	i.commandSpec, i.commandStatus = specW, gob.NewDecoder(statusR)
	return nil
}

// start lets the forked process become the command. The report is empty when
// that worked: its descriptor closes at the exec.
func (i *initProcess) start() (report, error) {
	spec := commandSpec{Process: i.spec.Process, Parent: os.Getpid(), SetGroups: i.spec.SetGroups, InPlace: i.spec.InPlace}
	spec.Process.Files = nil
	// A process that was killed that early shows in its wait status.
	_ = errors.Join(gob.NewEncoder(i.commandSpec).Encode(spec), i.commandSpec.Close())
	var failed report
	if err := i.commandStatus.Decode(&failed); err != nil && !errors.Is(err, io.EOF) {
		return failed, err
	}
	return failed, nil
}

// wait reaps until the command itself has ended.
func (i *initProcess) wait() (unix.WaitStatus, error) {
	for {
		var st unix.WaitStatus
		pid, err := unix.Wait4(-1, &st, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, fmt.Errorf("waiting for the command: %w", err)
		case pid == int(i.command.Load()):
			i.ended.Store(true)
			return st, nil
		}
	}
}

// pass hands signals on to the command. After SIGTERM there is a limit to its
// patience, and when the builder is dead there is none.
func (i *initProcess) pass(signals <-chan os.Signal, parent int) {
	for s := range signals {
		pid := int(i.command.Load())
		n, ok := s.(syscall.Signal)
		if pid == 0 {
			// Nothing runs yet; as the first process of a PID namespace we must end by ourselves.
			os.Exit(exitRoleFailed)
		}
		if os.Getppid() != parent {
			n = unix.SIGKILL
		}
		if !ok || i.ended.Load() {
			continue
		}
		_ = unix.Kill(-pid, n)
		if n == unix.SIGTERM {
			time.AfterFunc(killGrace, func() {
				if !i.ended.Load() {
					_ = unix.Kill(-pid, unix.SIGKILL)
				}
			})
		}
	}
}

// killAll ends every descendant. They are all our children in the end: orphans come to us.
func (i *initProcess) killAll() error {
	if pid := int(i.command.Load()); pid > 1 {
		// Whoever stayed in the command's group, however fast it forks. A number that a group uses is not given away.
		_ = unix.Kill(-pid, unix.SIGKILL)
	}
	if i.spec.InPlace {
		return sweepDescendants(true)
	}
	alive := both(ownChildren, inMountNamespace(i.ns))
	if i.spec.PIDNamespace {
		alive = othersThan(os.Getpid())
		if os.Getpid() == 1 {
			// All others at once: nobody is left to fork.
			_ = unix.Kill(-1, unix.SIGKILL)
		}
	}
	return sweep(alive, func() bool { return !reapAll() })
}

// othersThan gives all living processes that /proc shows but one.
func othersThan(self int) iter.Seq[int] {
	return living(func(pid int) bool {
		_, state := parentOf(pid)
		return pid != self && state != 0 && state != 'Z'
	})
}

// loopbackUp switches on the only interface of a new network namespace.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("switching on the loopback interface: %w", err)
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// builderSpec is what the process that the user started tells the builder proper.
type builderSpec struct {
	Arg0    string
	Parent  int
	Mapping Mapping
	Limit   string
}

// readiness is the builder's answer; an empty Refused means that it goes on.
type readiness struct {
	Refused, Why, How, Err string
}

// Enter re-executes the process in its namespaces. On success it returns only
// in the new process, with the same arguments, environment, working directory
// and standard streams; the old one passes signals on, waits and ends as the new
// one does. Where that is refused, Enter returns in the old process with
// Status.Reason set. Call it once, early: before files are opened and goroutines started.
func Enter() Status {
	if os.Args[0] == roleBuilder {
		return becomeBuilder()
	}
	return withoutNamespaces(launch())
}

// Stay is Enter for a user who wants none of its namespaces.
func Stay() Status {
	return withoutNamespaces(&RefusedError{What: "a namespace", Why: "another isolation was asked for"})
}

// withoutNamespaces is the Status of a process that has none. What a killed build had taken from the root is put back first: the
// files of our image may be among it.
func withoutNamespaces(why error) Status {
	s := Status{Reason: why}
	if os.Geteuid() != 0 {
		return s
	}
	root, err := os.Open("/")
	if err == nil {
		err = errors.Join(recoverRoot(root), root.Close())
	}
	s.recovery = err
	return s
}

// launch starts the builder proper. It returns only when that was refused.
func launch() error {
	// The builder's parent-death signal is bound to this thread, not to the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, forwarded()...)
	defer func() {
		signal.Stop(signals)
		close(signals)
	}()
	child, spec, ready, err := startBuilder()
	if err != nil {
		return refusedClone(err)
	}
	go forward(signals, child.Process.Pid)
	// What a killed builder leaves running comes to us. It may be killed as soon as it is introduced.
	_ = subreaper(true)
	refused := introduce(child.Process.Pid, spec, ready)
	if refused == nil {
		waitErr := child.Wait()
		_ = sweepOrphans(child.Process.Pid)
		endAs(child.ProcessState, waitErr)
	}
	_ = subreaper(false)
	_ = child.Wait()
	if st, ok := child.ProcessState.Sys().(syscall.WaitStatus); ok && st.Signaled() && st.Signal() != unix.SIGKILL {
		endAs(child.ProcessState, nil) // We were told to stop while the builder was starting.
	}
	return refused
}

// startBuilder clones the child, which then waits for its ids.
func startBuilder() (child *exec.Cmd, spec io.WriteCloser, ready io.ReadCloser, err error) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, nil, nil, err
	}
	if self, err = outOfTheWay(self); err != nil {
		return nil, nil, nil, err
	}
	defer func() { _ = self.Close() }()
	specR, specW, err := os.Pipe()
	if err != nil {
		return nil, nil, nil, err
	}
	readyR, readyW, err := os.Pipe()
	if err != nil {
		return nil, nil, nil, err
	}
	child = &exec.Cmd{
		Path:       fmt.Sprintf("/proc/self/fd/%d", self.Fd()),
		Args:       append([]string{roleEnter}, os.Args[1:]...),
		Stdin:      os.Stdin,
		Stdout:     os.Stdout,
		Stderr:     os.Stderr,
		ExtraFiles: []*os.File{specR, readyW},
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
			Pdeathsig:  unix.SIGKILL,
		},
	}
	err = child.Start()
	_, _ = specR.Close(), readyW.Close()
	if err != nil {
		_, _ = specW.Close(), readyR.Close()
		return nil, nil, nil, err
	}
	return child, specW, readyR, nil
}

// introduce maps the child's ids, tells it what it needs and waits until it
// knows whether it can mount.
func introduce(pid int, spec io.WriteCloser, ready io.ReadCloser) error {
	defer func() { _ = ready.Close() }()
	mapping, limit, err := mapIDs(pid)
	if err != nil {
		_ = spec.Close()
		return err
	}
	s := builderSpec{Arg0: os.Args[0], Parent: os.Getpid(), Mapping: mapping}
	if limit != nil {
		s.Limit = limit.Error()
	}
	_, err = spec.Write([]byte{1})
	err = errors.Join(err, gob.NewEncoder(spec).Encode(s), spec.Close())
	var r readiness
	if err == nil {
		err = gob.NewDecoder(ready).Decode(&r)
	}
	if err != nil {
		return &RefusedError{What: "starting in a new user namespace", Err: err}
	}
	if r.Refused != "" {
		e := &RefusedError{What: r.Refused, Why: r.Why, How: r.How}
		if r.Err != "" {
			e.Err = errors.New(r.Err)
		}
		return e
	}
	return nil
}

// forwarded are the signals that reach the builder through its parent. Their
// sender knows only the process that the user started.
func forwarded() []os.Signal {
	return []os.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2}
}

func forward(signals <-chan os.Signal, pid int) {
	for s := range signals {
		if n, ok := s.(syscall.Signal); ok {
			_ = unix.Kill(pid, n)
		}
	}
}

// endAs ends this process as the child ended: the same exit code or the same signal.
func endAs(state *os.ProcessState, waitErr error) {
	st, ok := state.Sys().(syscall.WaitStatus)
	if !ok {
		fmt.Fprintf(os.Stderr, "waiting for the builder: %v\n", waitErr)
		os.Exit(1)
	}
	if !st.Signaled() {
		os.Exit(st.ExitStatus())
	}
	// The builder dumped core if anybody should.
	_ = undumpable()
	signal.Reset(st.Signal())
	// Reset leaves a signal ignored that was so from the beginning, as by nohup.
	unignoreSignals()
	_ = unix.Kill(os.Getpid(), st.Signal())
	// The first process of a container is immune to its own signals.
	time.Sleep(100 * time.Millisecond)
	os.Exit(128 + int(st.Signal()))
}

// enter waits until the parent has mapped our ids and becomes the builder. The
// exec is what gives the capabilities of the namespace back: the first exec took
// them, because its uid had no mapping yet.
func enter() error {
	var mapped [1]byte
	if n, _ := unix.Read(fdSpec, mapped[:]); n != 1 {
		os.Exit(exitRoleFailed) // Our parent could not map any, and knows why.
	}
	argv := append([]string{roleBuilder}, os.Args[1:]...)
	return unix.Exec("/proc/self/exe", argv, os.Environ()) //nolint:forbidigo // handed on unread to the same program
}

// becomeBuilder is Enter in the new process.
func becomeBuilder() Status {
	var spec builderSpec
	if err := readSpec(&spec); err != nil {
		exitIf(err)
	}
	os.Args[0] = spec.Arg0
	status := os.NewFile(fdStatus, "status")
	s, err := setUp(spec)
	var r readiness
	if err != nil {
		r = readiness{Refused: "the namespace", Err: err.Error()}
		if refused, ok := errors.AsType[*RefusedError](err); ok {
			r = readiness{Refused: refused.What, Why: refused.Why, How: refused.How}
			if refused.Err != nil {
				r.Err = refused.Err.Error()
			}
		}
	}
	if encErr := errors.Join(gob.NewEncoder(status).Encode(r), status.Close()); encErr != nil || err != nil {
		os.Exit(exitRoleFailed)
	}
	return s
}

// setUp makes the namespaces usable and finds out what they permit.
func setUp(spec builderSpec) (Status, error) {
	s := Status{Namespaced: true, Mapping: spec.Mapping}
	if spec.Limit != "" {
		s.Limit = errors.New(spec.Limit)
	}
	if err := errors.Join(dieWith(spec.Parent), undumpable(), subreaper(true)); err != nil {
		return s, err
	}
	// Nothing that is mounted here may appear in the pod, nor the other way round while a RUN looks.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return s, refusedMount(err)
	}
	var err error
	if s.UIDs, err = readExtents("/proc/self/uid_map"); err != nil {
		return s, err
	}
	if s.GIDs, err = readExtents("/proc/self/gid_map"); err != nil {
		return s, err
	}
	if s.self, err = openSelf(); err != nil {
		return s, err
	}
	s.PIDNamespace, err = s.probeMounts()
	return s, err
}

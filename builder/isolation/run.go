// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// drainLimit is how long output may still come when nobody is left to write it, and how
// long a Writer may block.
const drainLimit = 2 * time.Second

// ttyGroup is the group of terminals in every distribution.
const ttyGroup = 5

// errTimedOut is the cause of a context that Process.Timeout ended.
var errTimedOut = errors.New("the command took longer than its timeout")

// Run runs p in fs and returns when every process of it is dead and reaped. The changes are then
// in fs; mount points that had to be made are gone again, but for /dev, /proc and /sys.
//
// It returns an *ExitError for a command that failed, a *RefusedError when RUN is not
// possible here, and the cause of ctx when that ended it: SIGTERM first, SIGKILL three seconds
// later. Any other error is a fault of the environment. Runs on different roots may be simultaneous.
func (s Status) Run(ctx context.Context, fs FS, p Process) error {
	if !s.Namespaced {
		return s.refusal()
	}
	if err := errors.Join(fs.validate(), p.validate(), s.checkIDs(p)); err != nil {
		return err
	}
	return s.run(ctx, fs, p)
}

// run is Run when nothing more is to be checked.
func (s Status) run(ctx context.Context, fs FS, p Process) error {
	if p.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, p.Timeout, errTimedOut)
		defer cancel()
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	// The parent-death signal of the process is bound to the thread that starts it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	kills := oomKills()
	r, err := s.start(fs, p)
	if err != nil {
		return err
	}
	interrupted := r.supervise(ctx)
	return r.outcome(ctx, interrupted, oomKills() > kills)
}

func (s Status) refusal() error {
	if s.Reason != nil {
		return s.Reason
	}
	return &RefusedError{What: "running a command", Why: "the process is not in its namespaces"}
}

// checkIDs refuses a user that the user namespace does not have.
func (s Status) checkIDs(p Process) error {
	for _, c := range []struct {
		kind    string
		id      uint32
		extents []Extent
	}{{"user", p.UID, s.UIDs}, {"group", p.GID, s.GIDs}} {
		if contains(c.extents, c.id) {
			continue
		}
		e := &RefusedError{
			What: fmt.Sprintf("running as %s id %d", c.kind, c.id),
			Why:  fmt.Sprintf("the user namespace has only the ids %s", ranges(c.extents)),
			How:  "run the builder as root, or install newuidmap and give its user ranges in /etc/subuid and /etc/subgid",
		}
		if s.Limit != nil {
			e.Why += "; " + s.Limit.Error()
		}
		return e
	}
	return nil
}

// ranges lists extents for people.
func ranges(extents []Extent) string {
	var text string
	for i, e := range extents {
		if i > 0 {
			text += ", "
		}
		text += fmt.Sprintf("%d-%d", e.Inside, uint64(e.Inside)+uint64(e.Count)-1)
	}
	return text
}

// spec is p as its first process needs it.
func (s Status) spec(fs FS, p Process) initSpec {
	spec := initSpec{
		FS: fs, Process: p.withDefaults(), PIDNamespace: s.PIDNamespace, SetGroups: s.Mapping != MappingSingle, InPlace: s.inPlace,
	}
	if s.inPlace {
		spec.Process.Mounts, spec.Process.Files = nil, nil // They are there.
	}
	spec.Process.Groups = slices.DeleteFunc(slices.Clone(p.Groups), func(g uint32) bool { return !contains(s.GIDs, g) })
	if contains(s.GIDs, ttyGroup) {
		spec.TTYGroup = fmt.Sprint(ttyGroup)
	}
	return spec
}

// running is a RUN between its start and its end.
type running struct {
	cmd *exec.Cmd
	// ns is its mount namespace, by which its processes are known.
	ns      string
	pid     bool
	inPlace bool
	pumps   []*pump
	pumping sync.WaitGroup
	// done is closed when the first process is dead and everything it reported is in reports.
	done    chan struct{}
	reports []report
	// survivor is set when not everything could be killed after the first process had died.
	survivor error
}

// start starts the first process of a RUN and the goroutines that serve it.
func (s Status) start(fs FS, p Process) (*running, error) {
	flags := uintptr(unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC)
	if s.inPlace {
		flags = 0
	}
	if s.PIDNamespace {
		flags |= unix.CLONE_NEWPID
	}
	if p.Network == NetworkNone {
		flags |= unix.CLONE_NEWNET
	}
	var pipes pipes
	defer pipes.closeTheirs()
	specW, specR := pipes.toChild()
	statusR, statusW := pipes.fromChild()
	r := &running{pid: s.PIDNamespace, inPlace: s.inPlace, done: make(chan struct{})}
	r.cmd = s.command(roleInit, flags, specR, statusW, s.self)
	if !s.PIDNamespace {
		// Its death would not take the others with it, so when we die it is told to see to them.
		r.cmd.SysProcAttr.Pdeathsig = unix.SIGTERM
	}
	r.connect(&pipes, p)
	if pipes.err != nil {
		pipes.closeOurs()
		return nil, fmt.Errorf("pipe: %w", pipes.err)
	}
	if err := r.cmd.Start(); err != nil {
		pipes.closeOurs()
		return nil, &RefusedError{What: "starting a process in its own namespaces", Err: err}
	}
	r.ns = mountNamespace(r.cmd.Process.Pid)
	go func() {
		// A process that dies before it has read this is seen by its missing report.
		_ = errors.Join(gob.NewEncoder(specW).Encode(s.spec(fs, p)), specW.Close())
	}()
	for _, pump := range r.pumps {
		r.pumping.Go(pump.run)
	}
	go r.collect(statusR)
	return r, nil
}

// connect gives the process pipes of ours as stdout and stderr, one pipe if both go to the same place.
func (r *running) connect(pipes *pipes, p Process) {
	out, outW := pipes.fromChild()
	r.cmd.Stdout, r.cmd.Stderr = outW, outW
	r.pumps = []*pump{{from: out, to: p.Stdout}}
	if sameWriter(p.Stdout, p.Stderr) {
		return
	}
	errR, errW := pipes.fromChild()
	r.cmd.Stderr = errW
	r.pumps = append(r.pumps, &pump{from: errR, to: p.Stderr})
}

// collect reads the reports until the process is dead. Its end of the pipe is
// the only one, so the last report is followed by the end of file.
func (r *running) collect(status io.ReadCloser) {
	defer close(r.done)
	dec := gob.NewDecoder(status)
	for {
		var rep report
		if err := dec.Decode(&rep); err != nil {
			break
		}
		r.reports = append(r.reports, rep)
	}
	_ = status.Close()
	_ = r.cmd.Wait()
	if len(r.reports) > 0 {
		return
	}
	switch {
	case r.inPlace:
		r.survivor = sweepDescendants(false)
	case !r.pid:
		// In a PID namespace the others are dead with it; otherwise they are hunted down.
		r.survivor = sweepMountNamespace(r.ns)
	}
}

// supervise returns when the process is dead and its output delivered; it
// reports whether ctx had to end it.
func (r *running) supervise(ctx context.Context) (interrupted bool) {
	select {
	case <-r.done:
	case <-ctx.Done():
		interrupted = true
		_ = r.cmd.Process.Signal(unix.SIGTERM)
		select {
		case <-r.done:
		case <-time.After(killGrace + sweepDeadline + drainLimit):
			_ = r.cmd.Process.Kill()
			<-r.done
		}
	}
	drained := make(chan struct{})
	go func() {
		r.pumping.Wait()
		close(drained)
	}()
	select {
	case <-drained:
	case <-time.After(drainLimit):
	}
	for _, p := range r.pumps {
		_ = p.from.Close()
	}
	return interrupted
}

// outcome turns what was reported into Run's error.
func (r *running) outcome(ctx context.Context, interrupted, oom bool) error {
	var ended, failed, leftover error
	for _, rep := range r.reports {
		switch rep.Kind {
		case reportFailed:
			failed = rep.Err.err()
		case reportStart:
			ended = &ExitError{Code: int(rep.Status), Reason: rep.Err.Text}
		case reportExit:
			ended = exitError(unix.WaitStatus(rep.Status), oom)
		case reportLeftover:
			leftover = rep.Err.err()
		case reportReady: // not for us
		}
	}
	if len(r.reports) == 0 {
		failed, ended = r.crashed(oom)
	}
	cause := context.Cause(ctx)
	switch {
	case leftover != nil:
		return fmt.Errorf("after the command: %w", errors.Join(leftover, ended, failed))
	case interrupted && errors.Is(cause, errTimedOut):
		return &ExitError{Code: 128 + int(unix.SIGKILL), Signal: int(unix.SIGKILL), TimedOut: true}
	case interrupted:
		return cause
	case failed != nil:
		return fmt.Errorf("running the command: %w", failed)
	case ended != nil:
		return ended
	}
	for _, p := range r.pumps {
		if p.err != nil {
			return fmt.Errorf("output of the command: %w", p.err)
		}
	}
	return nil
}

// crashed is for a first process that ended without a report.
func (r *running) crashed(oom bool) (failed, ended error) {
	st, ok := r.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if r.survivor == nil && ok && st.Signaled() && oom {
		return nil, &ExitError{Code: 128 + int(st.Signal()), Signal: int(st.Signal()), OOM: true}
	}
	return errors.Join(fmt.Errorf("its first process ended unexpectedly: %v", r.cmd.ProcessState), r.survivor), nil
}

// exitError is nil for exit code 0.
func exitError(st unix.WaitStatus, oom bool) error {
	if st.Signaled() {
		return &ExitError{
			Code: 128 + int(st.Signal()), Signal: int(st.Signal()), OOM: oom && st.Signal() == unix.SIGKILL,
		}
	}
	if st.ExitStatus() == 0 {
		return nil
	}
	// A shell passes on that its child was killed.
	return &ExitError{Code: st.ExitStatus(), OOM: oom && st.ExitStatus() == 128+int(unix.SIGKILL)}
}

// sameWriter compares two writers, which need not be comparable.
func sameWriter(a, b io.Writer) (same bool) {
	defer func() {
		if recover() != nil {
			same = false
		}
	}()
	return a == b
}

// pump carries output. A writer that fails loses the rest; the command is not stopped for that.
type pump struct {
	from *os.File
	to   io.Writer
	err  error
}

func (p *pump) run() {
	if p.to != nil {
		_, p.err = io.Copy(p.to, p.from)
		if errors.Is(p.err, os.ErrClosed) {
			p.err = nil
		}
	}
	_, _ = io.Copy(io.Discard, p.from)
}

// pipes makes pipes and remembers their ends and the first error.
type pipes struct {
	ours, theirs []*os.File
	err          error
}

func (p *pipes) toChild() (ours, theirs *os.File) {
	theirs, ours = p.open()
	p.ours, p.theirs = append(p.ours, ours), append(p.theirs, theirs)
	return ours, theirs
}

func (p *pipes) fromChild() (ours, theirs *os.File) {
	ours, theirs = p.open()
	p.ours, p.theirs = append(p.ours, ours), append(p.theirs, theirs)
	return ours, theirs
}

func (p *pipes) open() (r, w *os.File) {
	r, w, err := os.Pipe()
	if err != nil {
		p.err = errors.Join(p.err, err)
	}
	return r, w
}

func (p *pipes) closeOurs()   { closeAll(p.ours) }
func (p *pipes) closeTheirs() { closeAll(p.theirs) }

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The tests run the package as its users do: in a process that calls Dispatch
// and Enter. That process is this test binary with one of these as its argument.
const (
	helperRun   = "helper:run"
	helperEnter = "helper:enter"
)

func TestMain(m *testing.M) {
	Dispatch()
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case helperRun:
			serveRun()
			return
		case helperEnter:
			serveEnter(os.Args[2])
			return
		}
	}
	os.Exit(runTests(m))
}

// request is what helperRun is to do; the processes run at the same time.
type request struct {
	Runs         []run
	ProbeOverlay string
	CancelAfter  time.Duration
}

type run struct {
	FS      FS
	Process Process
}

// answer is what it saw.
type answer struct {
	Status  string
	Mapping Mapping
	PID     bool
	Refused bool
	Probe   string
	Results []result
}

type result struct {
	Stdout, Stderr string
	Err            string
	Exit           *ExitError
	Took           time.Duration
}

// err is the error as a test wants to see it.
func (r result) String() string {
	return fmt.Sprintf("err %q\nstdout %q\nstderr %q", r.Err, r.Stdout, r.Stderr)
}

func serveRun() {
	s := Enter()
	var q request
	if err := gob.NewDecoder(os.Stdin).Decode(&q); err != nil {
		panic(err)
	}
	a := answer{Status: s.String(), Mapping: s.Mapping, PID: s.PIDNamespace}
	if q.ProbeOverlay != "" {
		if err := s.ProbeOverlay(q.ProbeOverlay); err != nil {
			a.Probe = err.Error()
		}
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	if q.CancelAfter > 0 {
		time.AfterFunc(q.CancelAfter, func() { cancel(errors.New("called off")) })
	}
	a.Results = make([]result, len(q.Runs))
	done := make(chan struct{})
	for i, r := range q.Runs {
		go func() {
			a.Results[i] = runOne(ctx, s, r)
			done <- struct{}{}
		}()
	}
	for range q.Runs {
		<-done
	}
	a.Refused = !s.Namespaced
	if err := gob.NewEncoder(os.Stdout).Encode(a); err != nil {
		panic(err)
	}
}

func runOne(ctx context.Context, s Status, r run) result {
	var stdout, stderr bytes.Buffer
	r.Process.Stdout, r.Process.Stderr = &stdout, &stderr
	start := time.Now()
	err := s.Run(ctx, r.FS, r.Process)
	res := result{Stdout: stdout.String(), Stderr: stderr.String(), Took: time.Since(start)}
	if err != nil {
		res.Err = err.Error()
	}
	if e, ok := errors.AsType[*ExitError](err); ok {
		res.Exit = e
	}
	return res
}

// serveEnter ends in the way that how says, inside the namespaces.
func serveEnter(how string) {
	if how == "refused" {
		// The filter of a RUN forbids namespaces, as that of a pod with RuntimeDefault does.
		runtime.LockOSThread()
		filter, err := seccompFilter()
		if err := errors.Join(err, installFilter(filter)); err != nil {
			fmt.Fprintln(os.Stdout, err)
			os.Exit(97)
		}
	}
	s := Enter()
	if !s.Namespaced {
		fmt.Fprintln(os.Stdout, s.Reason)
		os.Exit(99)
	}
	switch how {
	case "refused":
		os.Exit(98)
	case "self":
		fmt.Fprintln(os.Stdout, unix.Access(fdPath(int(s.self.Fd())), unix.W_OK))
		copied, err := sealedCopy()
		if err == nil {
			_, err = copied.WriteAt([]byte("x"), 0)
		}
		fmt.Fprintln(os.Stdout, err)
	case "exit":
		os.Exit(42)
	case "kill":
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	case "args":
		fmt.Fprint(os.Stdout, strings.Join(os.Args[3:], "|"), "|", os.Getenv("PROBE"), "|", os.Args[0] != roleBuilder)
	case "wait":
		c := make(chan os.Signal, 1)
		signal.Notify(c, unix.SIGTERM)
		fmt.Fprintln(os.Stdout, os.Getpid())
		<-c
		os.Exit(143)
	case "orphan":
		// A grandchild outlives us unless our parent cares.
		cmd := exec.Command("/bin/busybox", "sleep", "1000")
		if err := cmd.Start(); err != nil {
			panic(err)
		}
		fmt.Fprintln(os.Stdout, cmd.Process.Pid)
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	}
}

// situation is a way in which people run the builder.
type situation struct {
	name string
	// wrap is the command that starts the builder so.
	wrap []string
	uid  int
	want Mapping
}

const (
	subUser = "kgtestsub"
	oneUser = "kgtestone"
)

// dockerCaps is the bounding set of an ordinary pod, as setpriv names it.
const dockerCaps = "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+mknod,+net_bind_service," +
	"+net_raw,+setfcap,+setgid,+setpcap,+setuid,+sys_chroot,+audit_write"

func asRoot() situation { return situation{name: "root", want: MappingIdentity} }

// asPod is root in a pod with nothing special: the default capabilities, and a
// /proc in which the runtime has masked a file, which rules out PID namespaces.
func asPod() situation {
	s := withDockerCaps()
	s.name, s.wrap = "pod", append(maskedProc(), s.wrap...)
	return s
}

func withDockerCaps() situation {
	return situation{
		name: "root with default capabilities", want: MappingIdentity,
		wrap: []string{"setpriv", "--bounding-set", dockerCaps, "--inh-caps", "-all", "--"},
	}
}

func maskedProc() []string {
	return []string{"unshare", "--mount", "sh", "-c", `mount --bind /dev/null /proc/interrupts && mount --bind -o ro /proc/sys /proc/sys && exec "$@"`, "sh"}
}

func situations(t *testing.T) []situation {
	t.Helper()
	all := []situation{asRoot(), withDockerCaps(), asPod()}
	for _, tool := range []string{"useradd", "newuidmap"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Logf("not as an ordinary user, for %s is missing", tool)
			return usable(t, all...)
		}
	}
	for _, u := range []struct {
		name string
		uid  int
		want Mapping
	}{{subUser, 47110, MappingSubordinate}, {oneUser, 47111, MappingSingle}} {
		makeUser(t, u.name, u.uid, u.want == MappingSubordinate)
		id := fmt.Sprint(u.uid)
		user := []string{"setpriv", "--reuid", id, "--regid", id, "--clear-groups", "--inh-caps", "-all", "--"}
		all = append(all,
			situation{name: string(u.want), want: u.want, uid: u.uid, wrap: user},
			situation{name: string(u.want) + " in a pod", want: u.want, uid: u.uid, wrap: append(maskedProc(), user...)})
	}
	return usable(t, all...)
}

// usable leaves out the situations that cannot be made here, and says so.
func usable(t *testing.T, all ...situation) []situation {
	t.Helper()
	var can []situation
	for _, s := range all {
		if len(s.wrap) > 0 {
			if out, err := exec.Command(s.wrap[0], append(s.wrap[1:], "true")...).CombinedOutput(); err != nil {
				t.Logf("not tried: %s: %v %s", s.name, err, out)
				continue
			}
		}
		can = append(can, s)
	}
	return can
}

// telling are the situations in which processes are found and killed in different ways.
func telling(t *testing.T) []situation {
	t.Helper()
	var few []situation
	for _, s := range situations(t) {
		if s.name == "root" || strings.HasSuffix(s.name, "pod") && s.want != MappingSingle {
			few = append(few, s)
		}
	}
	return few
}

// makeUser adds an account for the length of the test, with or without subordinate ids.
func makeUser(t *testing.T, name string, uid int, sub bool) {
	t.Helper()
	must := func(args ...string) {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	_ = exec.Command("userdel", name).Run()
	must("useradd", "--uid", fmt.Sprint(uid), "--no-create-home", "--key", "SUB_UID_COUNT=0", "--key", "SUB_GID_COUNT=0", name)
	t.Cleanup(func() { _ = exec.Command("userdel", name).Run() })
	if sub {
		must("usermod", "--add-subuids", "1000000-1065535", "--add-subgids", "1000000-1065535", name)
	}
}

// needNamespaces skips where the tests would only find out that they may not.
func needNamespaces(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to make files of several owners and accounts")
	}
	a := ask(t, asRoot(), request{})
	if a.Refused {
		t.Skipf("needs namespaces: %s", a.Status)
	}
	if _, err := os.Stat("/bin/busybox"); err != nil {
		t.Skip("needs a static /bin/busybox (package busybox-static)")
	}
}

// binaryDir has a copy of this program that every user can execute; made in TestMain, read-only after.
var binaryDir string

func testBinary(t *testing.T) string {
	t.Helper()
	if binaryDir == "" {
		t.Fatal("no copy of the test binary")
	}
	return filepath.Join(binaryDir, "isolation.test")
}

// runTests runs the tests with a copy of the binary in place.
func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "isolation-")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	self, err := os.ReadFile("/proc/self/exe")
	if err := errors.Join(err, os.Chmod(dir, 0o755), os.WriteFile(filepath.Join(dir, "isolation.test"), self, 0o755)); err != nil {
		panic(err)
	}
	binaryDir = dir
	return m.Run()
}

// publicDir is a temporary directory that other users can enter.
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "isolation-") //nolint:usetesting // the parents of t.TempDir are closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("left over: %v", err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// ask has a helper in the situation do what q says.
func ask(t *testing.T, s situation, q request) answer {
	t.Helper()
	args := append(append([]string{}, s.wrap...), testBinary(t), helperRun)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var in, out, errs bytes.Buffer
	if err := gob.NewEncoder(&in).Encode(q); err != nil {
		t.Fatal(err)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = &in, &out, &errs
	cmd.Env = append(os.Environ(), "SECRET_OF_THE_BUILDER=1")
	if err := cmd.Run(); err != nil {
		t.Fatalf("helper: %v\n%s", err, errs.String())
	}
	var a answer
	if err := gob.NewDecoder(&out).Decode(&a); err != nil {
		t.Fatalf("helper's answer: %v\n%s", err, errs.String())
	}
	if errs.Len() > 0 {
		t.Logf("helper: %s", errs.String())
	}
	return a
}

// runOnly is ask for one process.
func runOnly(t *testing.T, s situation, fs FS, p Process) result {
	t.Helper()
	return ask(t, s, request{Runs: []run{{fs, p}}}).Results[0]
}

// sh is a process that runs a script with busybox.
func sh(script string) Process {
	return Process{
		Args: []string{"/bin/sh", "-c", script},
		Env:  []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"},
	}
}

// overlayFS makes an overlay with a root of busybox at its bottom, owned by uid.
func overlayFS(t *testing.T, uid int) FS {
	t.Helper()
	dir := publicDir(t)
	fs := FS{Lowers: []string{filepath.Join(dir, "lower")}, Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work")}
	rootFS(t, fs.Lowers[0])
	for _, d := range []string{fs.Upper, fs.Work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	chownAll(t, dir, uid)
	return fs
}

// plainFS is a plain directory with busybox in it.
func plainFS(t *testing.T, uid int) FS {
	t.Helper()
	dir := filepath.Join(publicDir(t), "root")
	rootFS(t, dir)
	chownAll(t, filepath.Dir(dir), uid)
	return FS{Dir: dir}
}

func rootFS(t *testing.T, dir string) {
	t.Helper()
	for _, d := range []string{"bin", "tmp", "root", "work"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "bin/busybox"), string(busybox), 0o755)
	for _, a := range []string{
		"sh", "cat", "echo", "ls", "id", "sleep", "kill", "mount", "unshare", "hostname", "stat", "touch", "rm", "mkdir",
		"setsid", "env", "ps", "grep", "ip", "dd", "test", "readlink", "chown", "ln", "wc", "chmod", "nohup", "sed", "mknod", "trap", "head", "tr", "df", "umount",
	} {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", a)); err != nil {
			t.Fatal(err)
		}
	}
}

func write(t *testing.T, file, data string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(data), mode); err != nil {
		t.Fatal(err)
	}
}

func chownAll(t *testing.T, dir string, uid int) {
	t.Helper()
	err := filepath.Walk(dir, func(p string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(p, uid, uid)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// listing names the paths below dir with their types.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var lines []string
	err := filepath.Walk(dir, func(p string, i os.FileInfo, err error) error {
		if err == nil && p != dir {
			lines = append(lines, strings.TrimPrefix(p, dir+"/")+" "+i.Mode().Type().String())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

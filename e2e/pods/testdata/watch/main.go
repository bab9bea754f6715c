// SPDX-License-Identifier: Apache-2.0

// Command watch is the first process of a pod: it starts its arguments, passes signals on, waits for that one process as an
// entrypoint does, and then writes to the file that WATCH_REPORT names which other processes there still are, zombies
// included. SIGUSR1 becomes SIGKILL. With WATCH_AGAIN=true it then waits until the rest of a killed one has gone, and runs
// the arguments a second time, as Argo does when it retries in the same container.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// patience is how long the rest of a killed process may take to go.
const patience = 5 * time.Second

func main() {
	code, err := watch(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "watch:", err)
		code = 125
	}
	os.Exit(code)
}

func watch(argv []string) (int, error) {
	report, again := os.Getenv("WATCH_REPORT"), os.Getenv("WATCH_AGAIN") == "true"
	for _, name := range []string{"WATCH_REPORT", "WATCH_AGAIN"} {
		if err := os.Unsetenv(name); err != nil {
			return 0, err
		}
	}
	var child atomic.Pointer[os.Process]
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1)
	go func() {
		for s := range signals {
			if s == syscall.SIGUSR1 {
				s = syscall.SIGKILL
			}
			if p := child.Load(); p != nil {
				_ = p.Signal(s)
			}
		}
	}()
	code, err := run(argv, &child)
	if err != nil {
		return 0, err
	}
	if again {
		signal.Ignore(syscall.SIGUSR1) // it may come late
		list := reap()
		fmt.Fprintf(os.Stderr, "watch: first run ended with %d\n", code)
		if len(list) > 0 {
			return 0, fmt.Errorf("left of it after %v: %s", patience, strings.Join(list, ""))
		}
		if code, err = run(argv, &child); err != nil {
			return 0, err
		}
	}
	list, err := others()
	if err != nil {
		return 0, err
	}
	return code, os.WriteFile(report, []byte(strings.Join(list, "")), 0o644)
}

func run(argv []string, child *atomic.Pointer[os.Process]) (int, error) {
	p, err := os.StartProcess(argv[0], argv, &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}, Env: os.Environ()})
	if err != nil {
		return 0, err
	}
	child.Store(p)
	state, err := p.Wait()
	child.Store(nil)
	if err != nil {
		return 0, err
	}
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return state.ExitCode(), nil
}

// reap waits for what has become ours, and gives what is then left.
func reap() []string {
	for begun := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
		list, err := others()
		if err != nil {
			return []string{err.Error()}
		}
		if len(list) == 0 || time.Since(begun) > patience {
			return list
		}
	}
}

// others lists the processes that are not this one.
func others() ([]string, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var list []string
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		name, rest, _ := strings.Cut(string(stat), ") ")
		list = append(list, fmt.Sprintf("%s) %.1s\n", name, rest))
	}
	return list, nil
}

// SPDX-License-Identifier: Apache-2.0

// Command watch is the first process of a pod: it starts its arguments, passes signals on, waits for that one process as an
// entrypoint does, and then writes to the file that WATCH_REPORT names which other processes there still are, zombies
// included. It reaps nothing else.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
)

func main() {
	if err := watch(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "watch:", err)
		os.Exit(125)
	}
}

func watch(argv []string) error {
	report := os.Getenv("WATCH_REPORT")
	if err := os.Unsetenv("WATCH_REPORT"); err != nil {
		return err
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	child, err := os.StartProcess(argv[0], argv, &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}, Env: os.Environ()})
	if err != nil {
		return err
	}
	go func() {
		for s := range signals {
			_ = child.Signal(s)
		}
	}()
	state, err := child.Wait()
	if err != nil {
		return err
	}
	list, err := others(child.Pid)
	if err != nil {
		return err
	}
	if err := os.WriteFile(report, []byte(strings.Join(list, "")), 0o644); err != nil {
		return err
	}
	code := state.ExitCode()
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		code = 128 + int(status.Signal())
	}
	os.Exit(code)
	return nil
}

// others lists the processes that are neither we nor the one that we waited for.
func others(child int) ([]string, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var list []string
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() || pid == child {
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

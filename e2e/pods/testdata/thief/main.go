// SPDX-License-Identifier: Apache-2.0

// Command thief is what a hostile RUN may execute. It looks for secrets, which in these tests all begin with "planted_", in
// every way it knows, and prints a line "GOT technique secret" for each that it obtained and "CAN technique what" for what it
// could do; names only, so that no masking of values hides one. It changes nothing that it does not own.
package main

import (
	"bytes"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"syscall"
)

// thief remembers what was obtained.
type thief struct {
	technique string
	tried     int
	told      map[string]bool
}

// look reports every secret in data.
func (t *thief) look(data []byte) {
	for _, m := range regexp.MustCompile(`planted_([a-z0-9-]+)`).FindAllSubmatch(data, -1) {
		t.tell("GOT", string(m[1]))
	}
}

func (t *thief) can(what string) { t.tell("CAN", what) }

func (t *thief) tell(verb, what string) {
	line := fmt.Sprintf("%s %s %s", verb, t.technique, what)
	if !t.told[line] {
		t.told[line] = true
		fmt.Println(line)
	}
}

// technique is one way to obtain something.
type technique struct {
	name string
	try  func(t *thief)
}

func main() {
	signal.Ignore(syscall.SIGPIPE)
	if len(os.Args) > 1 && os.Args[1] == "child" {
		child(os.Args[2:])
		return
	}
	t := &thief{told: map[string]bool{}}
	for _, list := range [][]technique{processes(), memory(), files(), sockets(), kernel(), escapes()} {
		for _, k := range list {
			t.technique = k.name
			t.tried++
			k.try(t)
		}
	}
	fmt.Printf("TRIED %d techniques as uid %d\n", t.tried, os.Getuid())
}

// interesting tells whether data could hold a secret at all.
func interesting(data []byte) bool { return bytes.Contains(data, []byte("planted_")) }

// others are the processes that /proc shows and that this program did not start.
func others() []string {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []string
	own := []string{fmt.Sprint(os.Getpid())}
	for _, e := range entries {
		if e.Name()[0] >= '1' && e.Name()[0] <= '9' && !slices.Contains(own, e.Name()) {
			pids = append(pids, e.Name())
		}
	}
	return pids
}

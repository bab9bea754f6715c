// SPDX-License-Identifier: Apache-2.0

// Command report reads `go test -json` from standard input and prints what a person wants of it: the output of what failed,
// every skip with its reason, the slowest tests, and a last line "N passed, N failed, N skipped". It exits 1 when something
// failed or nothing ran, and with -no-skip also when something was skipped.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// event is one line of test2json.
type event struct {
	Action, Package, Test, Output string
	ImportPath                    string // of a build
	Elapsed                       float64
}

// tally is what has been seen so far.
type tally struct {
	passed, failed, skipped int
	output                  map[string][]string // package or package.Test -> its lines so far
	blamed                  map[string]bool     // packages with a failed test
	slow                    []event
}

func main() {
	noSkip := flag.Bool("no-skip", false, "a skipped test is a failure")
	flag.Parse()
	ok, err := report(os.Stdin, os.Stdout, *noSkip)
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
	}
	if !ok || err != nil {
		os.Exit(1)
	}
}

func report(r io.Reader, w io.Writer, noSkip bool) (bool, error) {
	t := tally{output: map[string][]string{}, blamed: map[string]bool{}}
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			var e event
			if json.Unmarshal([]byte(line), &e) != nil {
				e = event{Action: "output", Package: "go", Output: line}
				fmt.Fprint(w, line)
			}
			t.add(w, e)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return false, err
		}
	}
	slices.SortFunc(t.slow, func(a, b event) int { return cmp.Compare(b.Elapsed, a.Elapsed) })
	for _, e := range t.slow[:min(5, len(t.slow))] {
		fmt.Fprintf(w, "slow: %6.1fs %s %s\n", e.Elapsed, e.Package, e.Test)
	}
	_, err := fmt.Fprintf(w, "%d passed, %d failed, %d skipped\n", t.passed, t.failed, t.skipped)
	return t.failed == 0 && t.passed > 0 && (!noSkip || t.skipped <= 0), err
}

func (t *tally) add(w io.Writer, e event) {
	key := e.Package + "." + e.Test
	switch e.Action {
	case "output":
		if text := strings.TrimSpace(e.Output); !strings.HasPrefix(text, "=== ") && text != "PASS" {
			t.output[key] = append(t.output[key], e.Output)
		}
		return
	case "build-output":
		fmt.Fprint(w, e.Output)
		return
	case "pass":
		if e.Test != "" {
			t.passed++
		}
	case "skip":
		if e.Test != "" {
			t.skipped++
			fmt.Fprintf(w, "skipped: %s %s: %s\n", e.Package, e.Test, reason(t.output[key]))
		}
	case "fail":
		t.fail(w, e, key)
	default:
		return
	}
	if e.Test == "" && e.Action != "skip" { // a package without tests is no news
		fmt.Fprintf(w, "%-4s %7.1fs %s\n", e.Action, e.Elapsed, e.Package)
	} else if e.Test != "" && !strings.Contains(e.Test, "/") {
		t.slow = append(t.slow, e)
	}
	delete(t.output, key)
}

// fail counts a failed test, or a package that failed without a failed test: it did not compile, or it panicked or timed out.
func (t *tally) fail(w io.Writer, e event, key string) {
	if e.Test != "" {
		t.blamed[e.Package] = true
		t.failed++
	} else if !t.blamed[e.Package] {
		t.failed++
	}
	fmt.Fprintf(w, "FAILED: %s %s\n%s", e.Package, e.Test, strings.Join(t.output[key], ""))
}

// reason is the text of the skip: the last line before the "--- SKIP" that closes it, without file and line.
func reason(output []string) string {
	for _, line := range slices.Backward(output) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "--- SKIP") {
			if _, after, ok := strings.Cut(line, ".go:"); ok {
				_, line, _ = strings.Cut(after, ": ")
			}
			return line
		}
	}
	return "no reason given"
}

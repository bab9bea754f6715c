// SPDX-License-Identifier: Apache-2.0

// Command toolbox is the only program of the demonstration's base image: a few commands of a Unix system, and a shell that
// knows `sh -c` with quotes, variables, `&&`, `;`, `>` and `>>`. It exists so that `make demo` needs no network and no
// package; it is no part of kaniko-go.
package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// command runs with its arguments, reading files relative to the working directory, and writes to w.
type command func(args []string, w io.Writer) error

func commands() map[string]command {
	return map[string]command{"cat": cat, "cp": cp, "echo": echo, "ls": ls, "mkdir": mkdir, "sha256sum": sum, "true": func([]string, io.Writer) error { return nil }}
}

func main() {
	name, args := filepath.Base(os.Args[0]), os.Args[1:]
	if err := run(name, args); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

func run(name string, args []string) error {
	if name == "sh" {
		if len(args) != 2 || args[0] != "-c" {
			return fmt.Errorf("only sh -c SCRIPT is known, not %q", args)
		}
		return shell(args[1])
	}
	c, ok := commands()[name]
	if !ok {
		return fmt.Errorf("not one of the toolbox's commands")
	}
	return c(args, os.Stdout)
}

func echo(args []string, w io.Writer) error {
	_, err := fmt.Fprintln(w, strings.Join(args, " "))
	return err
}

func cat(args []string, w io.Writer) error {
	for _, name := range args {
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}

func cp(args []string, _ io.Writer) error {
	if len(args) != 2 {
		return fmt.Errorf("wants one source and one target")
	}
	b, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	return os.WriteFile(args[1], b, 0o644)
}

func ls(args []string, w io.Writer) error {
	if len(args) == 0 {
		args = []string{"."}
	}
	for _, dir := range args {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if _, err := fmt.Fprintln(w, e.Name()); err != nil {
				return err
			}
		}
	}
	return nil
}

func mkdir(args []string, _ io.Writer) error {
	for _, dir := range args {
		if dir == "-p" {
			continue
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	return nil
}

func sum(args []string, w io.Writer) error {
	for _, name := range args {
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "%x  %s\n", sha256.Sum256(b), name); err != nil {
			return err
		}
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

// costsCommand writes what the parts of a binary cost, by the sizes of its symbols. The binary must have its symbols.
func costsCommand(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("costs", flag.ContinueOnError)
	out := f.String("o", "docs/size.md", "file to write")
	stripped := f.String("stripped", "bin/kaniko-go", "the binary as it is published")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() != 1 {
		return errors.New("usage: release costs [-o FILE] [-stripped BINARY] BINARY-WITH-SYMBOLS")
	}
	info, err := os.Stat(*stripped)
	if err != nil {
		return err
	}
	modules, err := linked(ctx)
	if err != nil {
		return err
	}
	symbols, err := exec.CommandContext(ctx, "go", "tool", "nm", "-size", f.Arg(0)).Output()
	if err != nil {
		return fmt.Errorf("go tool nm: %w", err)
	}
	return os.WriteFile(*out, costs(symbols, modules, info.Size()), 0o644)
}

// costs is the page: the largest first.
func costs(symbols []byte, modules []module, whole int64) []byte {
	const (
		standard = "Go's standard library"
		runtime  = "Go's runtime: function tables, types, strings, garbage collector"
		ours     = "kaniko-go"
	)
	sizes := map[string]int64{}
	for s := bufio.NewScanner(bytes.NewReader(symbols)); s.Scan(); {
		// ADDRESS SIZE TYPE NAME, where the name may have blanks and b and B take no room in the file.
		fields := strings.Fields(s.Text())
		if len(fields) < 4 || strings.EqualFold(fields[2], "b") || fields[2] == "U" {
			continue
		}
		size, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			continue
		}
		switch pkg := packageOf(fields[3]); {
		case pkg == "main" || within(pkg, "github.com/kaniko-go/kaniko-go"):
			sizes[ours] += size
		case pkg == "" || pkg == "runtime" || strings.HasPrefix(pkg, "internal/runtime"):
			sizes[runtime] += size
		default:
			name := standard
			for _, m := range modules {
				if within(pkg, m.Path) && (name == standard || len(m.Path) > len(name)) {
					name = m.Path
				}
			}
			sizes[name] += size
		}
	}
	names := slices.SortedFunc(maps.Keys(sizes), func(a, b string) int { return cmp.Or(cmp.Compare(sizes[b], sizes[a]), strings.Compare(a, b)) })
	var out bytes.Buffer
	fmt.Fprintf(&out, `<!-- Written by make size. Do not edit. -->

# What the binary is made of

%.1f MB as published for linux/amd64. Below is the code and data of each module by its symbols; function tables, types and strings, which grow with
all of it, cannot be told apart and are one line.

| module | KB |
|---|---|
`, float64(whole)/1e6)
	rest := int64(0)
	for i, name := range names {
		if i >= 20 {
			rest += sizes[name]
			continue
		}
		fmt.Fprintf(&out, "| %s | %d |\n", name, sizes[name]/1000)
	}
	fmt.Fprintf(&out, "| everything else | %d |\n", rest/1000)
	return out.Bytes()
}

func within(pkg, module string) bool { return pkg == module || strings.HasPrefix(pkg, module+"/") }

// packageOf gives the import path of a symbol, "" for what the linker made.
func packageOf(symbol string) string {
	if strings.HasPrefix(symbol, "go:") || strings.HasPrefix(symbol, "type:") || strings.HasPrefix(symbol, "runtime.") {
		return ""
	}
	// The instances of a generic function have the types between brackets, and those have dots and slashes.
	symbol, _, _ = strings.Cut(symbol, "[")
	slash := strings.LastIndexByte(symbol, '/') + 1
	name, _, found := strings.Cut(symbol[slash:], ".")
	if !found {
		return ""
	}
	return symbol[:slash] + strings.ReplaceAll(name, "%2e", ".")
}

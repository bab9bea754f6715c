// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"context"
	"debug/elf"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
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
	symbols, err := readSymbols(f.Arg(0))
	if err != nil {
		return err
	}
	return os.WriteFile(*out, costs(symbols, modules, info.Size()), 0o644)
}

// readSymbols lists those that take room in the file, which variables that begin as zero do not.
func readSymbols(binary string) ([]elf.Symbol, error) {
	f, err := elf.Open(binary)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	symbols, err := f.Symbols()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", binary, err)
	}
	return slices.DeleteFunc(symbols, func(s elf.Symbol) bool {
		return int(s.Section) >= len(f.Sections) || f.Sections[s.Section].Type == elf.SHT_NOBITS
	}), nil
}

// costs is the page: the largest first.
func costs(symbols []elf.Symbol, modules []module, whole int64) []byte {
	const (
		standard = "Go's standard library"
		runtime  = "Go's runtime, types and strings"
		ours     = "kaniko-go"
	)
	sizes := map[string]int64{}
	for _, symbol := range symbols {
		size := int64(symbol.Size)
		switch pkg := packageOf(symbol.Name); {
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

%.1f MB as published for linux/amd64; the image adds 0.2 MB of certificates. Below is the code and data of each module by its symbols. The tables of
functions and lines, which grow with all of it and are nearly as much again, belong to nobody.

What is not the standard library is there because its alternative is worse: BuildKit's parser, with protobuf that it brings, so that the language
is BuildKit's own; klauspost/compress, so that layers are compressed faster and zstd is known at all; the three clouds' own libraries, so that no
login helper has to be a program in the image; go-git, so that git sources need no git; x/crypto for SSH.

| module | KB |
|---|---|
`, float64(whole)/1e6)
	rest, tables := int64(0), whole
	for i, name := range names {
		tables -= sizes[name]
		if i >= 20 {
			rest += sizes[name]
			continue
		}
		fmt.Fprintf(&out, "| %s | %d |\n", name, sizes[name]/1000)
	}
	fmt.Fprintf(&out, "| everything else | %d |\n| tables of functions and lines | %d |\n", rest/1000, tables/1000)
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

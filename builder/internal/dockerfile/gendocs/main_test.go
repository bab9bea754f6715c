// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kaniko-go/kaniko-go/builder/internal/dockerfile"
)

// arguments make a valid instruction of each kind.
func arguments() map[string]string {
	return map[string]string{
		"FROM": "x", "ARG": "a", "ENV": "a=b", "LABEL": "a=b", "RUN": "x", "COPY": "a b", "ADD": "a b", "WORKDIR": "/w", "USER": "u",
		"EXPOSE": "80", "VOLUME": "/v", "CMD": "x", "ENTRYPOINT": "x", "SHELL": `["x"]`, "STOPSIGNAL": "9", "HEALTHCHECK": "CMD x",
		"ONBUILD": "RUN x", "MAINTAINER": "m",
	}
}

// TestFlags wants the table to have exactly the flags that BuildKit's parser knows, of those in any of its rows.
func TestFlags(t *testing.T) {
	listed := map[string]bool{}
	flags := map[string]bool{"--frobnicate": true}
	for _, r := range language() {
		listed[r.instruction+" "+r.flag] = true
		if r.flag != "" {
			flags[r.flag] = true
		}
	}
	for name, rest := range arguments() {
		if !listed[name+" "] {
			t.Errorf("%s is not in the table", name)
		}
		for flag := range flags {
			if name == "ENV" || name == "LABEL" {
				continue // words that begin with dashes are names to them
			}
			source := name + " " + flag + "=true " + rest + "\n"
			if name != "FROM" {
				source = "FROM scratch\n" + source
			}
			_, err := dockerfile.Parse("Dockerfile", []byte(source))
			known := err == nil || !strings.Contains(err.Error(), "unknown flag")
			if known != listed[name+" "+flag] && !takesNoFlags(name) {
				t.Errorf("%s %s: BuildKit knows it: %t, the table has it: %t", name, flag, known, listed[name+" "+flag])
			}
		}
	}
}

// takesNoFlags are instructions to which such a word is an argument.
func takesNoFlags(name string) bool {
	switch name {
	case "SHELL", "ONBUILD", "MAINTAINER", "ARG", "WORKDIR", "USER", "EXPOSE", "VOLUME", "CMD", "ENTRYPOINT", "STOPSIGNAL":
		return true
	default:
		return false
	}
}

func TestDocumentIsCurrent(t *testing.T) {
	have, err := os.ReadFile("../../../../docs/dockerfile.md")
	if err != nil {
		t.Fatal(err)
	}
	corpus, err := readSeen("../../../../e2e/corpus/testdata/differences.txt")
	if err != nil || len(corpus) == 0 {
		t.Fatalf("the corpus's list has %d lines, %v", len(corpus), err)
	}
	if diff := cmp.Diff(document(corpus), string(have)); diff != "" {
		t.Errorf("run make generate (-want +have):\n%s", diff)
	}
}

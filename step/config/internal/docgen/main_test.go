// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReferenceIsCurrent(t *testing.T) {
	want, err := render()
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("docs/configuration.md is stale; run go generate ./step/config (-want +got):\n%s", diff)
	}
}

func TestEveryVariableIsDescribed(t *testing.T) {
	for _, s := range sections() {
		for _, v := range s.Variables {
			if v.Desc == "" || !strings.HasSuffix(v.Desc, ".") {
				t.Errorf("%s: the description %q is not a sentence", v.Name, v.Desc)
			}
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSubordinate(t *testing.T) {
	const file = "# comment\nalice:100000:65536\nbob:300000:10\n\n1000:500000:5\nbroken\n"
	ranges, err := parseSubordinate(strings.NewReader(file), []string{"1000", "alice"})
	if err != nil {
		t.Fatal(err)
	}
	want := "0 1000 1\n1 100000 65536\n65537 500000 5\n"
	if d := cmp.Diff(want, text(subordinate(1000, ranges))); d != "" {
		t.Error(d)
	}
	if _, err := parseSubordinate(strings.NewReader("alice:x:1"), []string{"alice"}); err == nil {
		t.Error("a number that is none")
	}
}

func TestIdentityFollowsOurOwnNamespace(t *testing.T) {
	got := identity([]Extent{{0, 231072, 65536}, {70000, 900000, 10}})
	want := []Extent{{0, 0, 65536}, {70000, 70000, 10}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for id, in := range map[uint32]bool{0: true, 65535: true, 65536: false, 70009: true, 70010: false} {
		if contains(got, id) != in {
			t.Errorf("%d: %v", id, !in)
		}
	}
	if r := ranges(got); r != "0-65535, 70000-70009" {
		t.Error(r)
	}
}

// SPDX-License-Identifier: Apache-2.0

package dirfd_test

import (
	"testing"

	"github.com/kaniko-go/kaniko-go/builder/internal/dirfd"
)

func TestKept(t *testing.T) {
	k := &dirfd.Kept{}
	for _, p := range []string{"proc", "/etc/hosts", "run/secrets/token", "odd [a]*\n/x", "proc/sys"} {
		k.Add(p)
	}
	for _, c := range []struct {
		path         string
		whole, leads bool
	}{
		{"", false, true},
		{"proc", true, false},
		{"proc/1/environ", true, false},
		{"etc", false, true},
		{"etc/hosts", true, false},
		{"etc/hosts/below", true, false},
		{"etc/hostname", false, false},
		{"run", false, true},
		{"run/secrets", false, true},
		{"run/secrets/other", false, false},
		{"odd [a]*\n", false, true},
		{"odd [a]*\n/x/y", true, false},
		{"odd a", false, false},
		{"et", false, false},
	} {
		if got := k.At(c.path); got.Whole() != c.whole || got.Leads() != c.leads {
			t.Errorf("%q: whole %v, leads %v, want %v, %v", c.path, got.Whole(), got.Leads(), c.whole, c.leads)
		}
	}
	var none *dirfd.Kept
	if none.At("x").Whole() || none.Child("x").Leads() {
		t.Error("nil keeps something")
	}
}

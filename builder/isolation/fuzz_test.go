// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"fmt"
	"path"
	"strings"
	"testing"
)

// FuzzMountPoint mounts at a path of the input's choice, as the kernel would write it down: it is found again, byte for byte
// (O03).
func FuzzMountPoint(f *testing.F) {
	for _, p := range []string{"/a b", "/tab\there", "/line\nbreak", `/back\slash`, "/#", "/[*]?", "/\xff", `/\040`, "/ - /x", "", "/\u00a0\v\r", "/deleted//deleted"} {
		f.Add(p)
	}
	escape := strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`, "#", `\043`)
	f.Fuzz(func(t *testing.T, p string) {
		if strings.ContainsRune(p, 0) {
			return // no path
		}
		point := path.Clean("/" + p)
		line := fmt.Sprintf("36 35 98:0 /root %s ro,noatime master:1 shared:2 - ext4 /dev/%s rw\n", escape.Replace(point), escape.Replace("x"+p))
		mounts, err := parseMounts(line + line)
		if err != nil {
			t.Fatal(err)
		}
		if len(mounts) != 2 || mounts[1].path != point || mounts[1].id != 36 || !mounts[1].readOnly || mounts[1].fstype != "ext4" {
			t.Fatalf("%q is read as %+v", line, mounts)
		}
	})
}

// FuzzSubordinate reads files of other people's making: ranges are those of the names asked for.
func FuzzSubordinate(f *testing.F) {
	f.Add("alice:100000:65536\nbob:1:2\n", "alice")
	f.Add("#a:1:2\n:::\na:4294967295:4294967295", "a")
	f.Fuzz(func(t *testing.T, file, name string) {
		ranges, err := parseSubordinate(strings.NewReader(file), []string{name})
		if err != nil {
			return
		}
		if len(ranges) > 0 && !strings.Contains(file, name+":") {
			t.Fatalf("%v for %q of %q", ranges, name, file)
		}
		_ = text(subordinate(1000, ranges))
	})
}

// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

// mountPoint is one line of /proc/self/mountinfo.
type mountPoint struct {
	id       int
	path     string // clean, as this process sees it
	fstype   string
	readOnly bool
}

// readMounts lists what is mounted where, in the order in which it was mounted.
func readMounts() ([]mountPoint, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return parseMounts(string(b))
}

// parseMounts reads mountinfo as proc(5) describes it: "36 35 98:0 /root /point rw,noatime master:1 - ext4 /dev/sda1 rw".
func parseMounts(text string) ([]mountPoint, error) {
	var out []mountPoint
	for line := range strings.Lines(text) {
		// Only a space parts fields: other white space is part of names, and not escaped.
		f := strings.Split(strings.TrimSuffix(line, "\n"), " ")
		end := slices.Index(f, "-")
		if len(f) < 10 || end < 6 || end+2 >= len(f) {
			return nil, fmt.Errorf("mountinfo: unexpected line %q", strings.TrimSpace(line))
		}
		id, err := strconv.Atoi(f[0])
		if err != nil {
			return nil, fmt.Errorf("mountinfo: unexpected line %q", strings.TrimSpace(line))
		}
		point := unescapeOctal(f[4])
		if !path.IsAbs(point) {
			continue // not below our root
		}
		out = append(out, mountPoint{
			id: id, path: path.Clean(point), fstype: f[end+1],
			readOnly: slices.Contains(strings.Split(f[5], ","), "ro"),
		})
	}
	return out, nil
}

// unescapeOctal undoes what the kernel does to space, tab, newline, backslash and "#".
func unescapeOctal(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// SPDX-License-Identifier: Apache-2.0

package copy

import (
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	mode "github.com/tonistiigi/dchapes-mode"
)

// chmod changes a mode as --chmod says; nil changes nothing.
type chmod struct {
	octal int // -1 for symbolic
	set   mode.Set
}

func parseChmod(s string) (*chmod, error) {
	if s == "" {
		return nil, nil
	}
	if n, err := strconv.ParseUint(s, 8, 16); err == nil && n <= 0o7777 {
		return &chmod{octal: int(n)}, nil
	}
	invalid := fmt.Errorf("invalid chmod parameter: '%s'. it should be octal string and between 0 and 07777", s)
	if strings.Trim(s, "0123456789") == "" {
		return nil, invalid
	}
	set, err := mode.ParseWithUmask(s, 0)
	if err != nil {
		return nil, invalid
	}
	return &chmod{octal: -1, set: set}, nil
}

func (c *chmod) apply(m uint16, dir bool) uint16 {
	switch {
	case c == nil:
		return m
	case c.octal >= 0:
		return uint16(c.octal)
	}
	fm := fs.FileMode(m & 0o777)
	for bit, flag := range map[uint16]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if m&bit != 0 {
			fm |= flag
		}
	}
	if dir {
		fm |= fs.ModeDir
	}
	fm = c.set.Apply(fm)
	out := uint16(fm.Perm())
	for bit, flag := range map[uint16]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if fm&flag != 0 {
			out |= bit
		}
	}
	return out
}

// made is the mode of directories that are made on the way: an octal --chmod gives its permission bits.
func (c *chmod) made() uint16 {
	if c != nil && c.octal >= 0 {
		return uint16(c.octal) & 0o777
	}
	return 0o755
}

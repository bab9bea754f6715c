// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
)

// Extent is a line of /proc/PID/uid_map or gid_map: Count ids from Inside on
// are those from Outside on in the parent namespace.
type Extent struct {
	Inside, Outside, Count uint32
}

// contains reports whether id exists in the namespace that extents describe.
func contains(extents []Extent, id uint32) bool {
	for _, e := range extents {
		if id >= e.Inside && id-e.Inside < e.Count {
			return true
		}
	}
	return false
}

// readExtents reads a uid_map or gid_map.
func readExtents(file string) ([]Extent, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var extents []Extent
	for s := bufio.NewScanner(f); s.Scan(); {
		var e Extent
		if _, err := fmt.Sscan(s.Text(), &e.Inside, &e.Outside, &e.Count); err != nil {
			return nil, fmt.Errorf("%s: line %q: %w", file, s.Text(), err)
		}
		extents = append(extents, e)
	}
	return extents, nil
}

// identity maps every id that our own namespace has to itself. A wider map would be refused.
func identity(own []Extent) []Extent {
	m := make([]Extent, 0, len(own))
	for _, e := range own {
		m = append(m, Extent{e.Inside, e.Inside, e.Count})
	}
	return m
}

// subordinate maps 0 to the caller and the ids from 1 on to its ranges.
func subordinate(caller uint32, ranges []Extent) []Extent {
	m := []Extent{{0, caller, 1}}
	next := uint32(1)
	for _, r := range ranges {
		m = append(m, Extent{next, r.Outside, r.Count})
		next += r.Count
	}
	return m
}

// text is the form that the kernel's files take.
func text(extents []Extent) string {
	var b strings.Builder
	for _, e := range extents {
		fmt.Fprintf(&b, "%d %d %d\n", e.Inside, e.Outside, e.Count)
	}
	return b.String()
}

// mapIDs gives the child pid the widest mapping that we can write. limit says
// why it is not the identity or the subordinate ranges.
func mapIDs(pid int) (m Mapping, limit, err error) {
	if os.Geteuid() == 0 {
		if err = writeIdentity(pid); err == nil {
			return MappingIdentity, nil, nil
		}
		limit = fmt.Errorf("identity mapping refused (%w); it needs the capabilities SETUID, SETGID and SETFCAP", err)
	} else {
		if err = writeSubordinate(pid); err == nil {
			return MappingSubordinate, nil, nil
		}
		limit = fmt.Errorf("only one id is available: %w", err)
	}
	if err = writeSingle(pid); err != nil {
		return "", nil, &RefusedError{
			What: "mapping user ids", Why: limit.Error(), Err: err,
			How: "give the container its default capabilities, or run it as an ordinary user",
		}
	}
	return MappingSingle, limit, nil
}

func writeIdentity(pid int) error {
	for _, kind := range []string{"uid_map", "gid_map"} {
		own, err := readExtents("/proc/self/" + kind)
		if err != nil {
			return err
		}
		if err := writeProc(pid, kind, text(identity(own))); err != nil {
			return err
		}
	}
	return nil
}

// writeSingle is what the kernel lets everybody write: the own ids, with
// setgroups switched off. A better attempt may have written one of the two maps already.
func writeSingle(pid int) error {
	for _, k := range []struct {
		file string
		own  int
	}{{"uid_map", os.Geteuid()}, {"gid_map", os.Getegid()}} {
		have, err := readExtents(fmt.Sprintf("/proc/%d/%s", pid, k.file))
		if err != nil {
			return err
		}
		if len(have) > 0 {
			continue
		}
		if k.file == "gid_map" {
			if err := writeProc(pid, "setgroups", "deny"); err != nil {
				return err
			}
		}
		if err := writeProc(pid, k.file, text([]Extent{{0, uint32(k.own), 1}})); err != nil {
			return err
		}
	}
	return nil
}

func writeProc(pid int, file, content string) error {
	name := fmt.Sprintf("/proc/%d/%s", pid, file)
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	return errors.Join(err, f.Close())
}

// writeSubordinate lets newuidmap(1) and newgidmap(1) do what only they may.
// They are looked up by PATH, which is safe as long as no RUN has happened.
func writeSubordinate(pid int) error {
	u, err := user.LookupId(strconv.Itoa(os.Geteuid()))
	names := []string{strconv.Itoa(os.Geteuid())}
	if err == nil {
		names = append(names, u.Username)
	}
	for _, k := range []struct {
		tool, file string
		own        uint32
	}{
		{"newgidmap", "/etc/subgid", uint32(os.Getegid())},
		{"newuidmap", "/etc/subuid", uint32(os.Geteuid())},
	} {
		ranges, err := readSubordinate(k.file, names)
		if err != nil {
			return err
		}
		tool, err := exec.LookPath(k.tool)
		if err != nil {
			return err
		}
		args := append([]string{strconv.Itoa(pid)}, strings.Fields(text(subordinate(k.own, ranges)))...)
		if out, err := exec.Command(tool, args...).CombinedOutput(); err != nil { //nolint:noctx // ends by itself
			return fmt.Errorf("%s: %w: %s", k.tool, err, strings.TrimSpace(string(out)))
		}
	}
	return nil
}

// readSubordinate returns the ranges of a subuid(5) or subgid(5) file that belong to one of names.
func readSubordinate(file string, names []string) ([]Extent, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	ranges, err := parseSubordinate(f, names)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if len(ranges) == 0 {
		return nil, fmt.Errorf("%s has no range for %s", file, strings.Join(names, " or "))
	}
	return ranges, nil
}

func parseSubordinate(r io.Reader, names []string) ([]Extent, error) {
	var ranges []Extent
	s := bufio.NewScanner(r)
	for s.Scan() {
		f := strings.Split(strings.TrimSpace(s.Text()), ":")
		if len(f) != 3 || strings.HasPrefix(f[0], "#") {
			continue
		}
		for _, n := range names {
			if f[0] != n {
				continue
			}
			first, err1 := strconv.ParseUint(f[1], 10, 32)
			count, err2 := strconv.ParseUint(f[2], 10, 32)
			if err := errors.Join(err1, err2); err != nil {
				return nil, fmt.Errorf("line %q: %w", s.Text(), err)
			}
			ranges = append(ranges, Extent{Outside: uint32(first), Count: uint32(count)})
			break
		}
	}
	return ranges, s.Err()
}

// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/user"
)

// accountFileLimit bounds /etc/passwd and /etc/group of a hostile image.
const accountFileLimit = 10 << 20

// Account is whom a RUN runs as.
type Account struct {
	UID, GID uint32
	// Groups are the supplementary groups, GID among them as runtimes have it.
	Groups []uint32
	// Home is the home directory in /etc/passwd, "/" if there is none.
	Home string
}

// Account resolves a USER value as BuildKit does for RUN: "" is uid 0 with its supplementary
// groups; uid:gid needs no lookup; an explicit group means no supplementary groups; a uid that is not in
// /etc/passwd has gid 0; a name must be there.
func (t *Tree) Account(spec string) (Account, error) {
	passwd, group, err := t.accountFiles()
	if err != nil {
		return Account{}, err
	}
	name := spec
	if name == "" {
		name = "0"
	}
	u, err := user.GetExecUser(name, &user.ExecUser{Home: "/"}, bytes.NewReader(passwd), bytes.NewReader(group))
	if err != nil {
		return Account{}, fmt.Errorf("user %q: %w", spec, err)
	}
	a := Account{UID: uint32(u.Uid), GID: uint32(u.Gid), Home: u.Home}
	if a.Home == "" {
		a.Home = "/"
	}
	a.Groups = []uint32{a.GID}
	if !strings.Contains(spec, ":") {
		for _, g := range u.Sgids {
			if !slices.Contains(a.Groups, uint32(g)) {
				a.Groups = append(a.Groups, uint32(g))
			}
		}
	}
	return a, nil
}

// Owner resolves a --chown value, or the USER that owns a WORKDIR: a number alone is uid and gid; a name
// alone has its own gid, as it has with a group that is empty or not found; a name that is not found is 0 (as BuildKit
// has it), except in an empty root, where any name is an error.
func (t *Tree) Owner(spec string) (uid, gid uint32, err error) {
	passwd, group, err := t.accountFiles()
	if err != nil {
		return 0, 0, err
	}
	u, g, _ := strings.Cut(spec, ":")
	entries, err := t.root.Entries()
	if err != nil {
		return 0, 0, err
	}
	empty := len(entries) == 0
	if uid, gid, err = ownerUser(u, passwd, empty); err != nil {
		return 0, 0, err
	}
	gid, err = ownerGroup(g, gid, group, empty)
	return uid, gid, err
}

func ownerUser(u string, passwd []byte, empty bool) (uid, gid uint32, err error) {
	if u == "" || u == "root" {
		return 0, 0, nil
	}
	if n, err := strconv.ParseUint(u, 10, 31); err == nil {
		return uint32(n), uint32(n), nil
	}
	if empty {
		return 0, 0, fmt.Errorf("invalid user index: -1: %q cannot be looked up in an empty root", u)
	}
	found, err := user.ParsePasswdFilter(bytes.NewReader(passwd), func(p user.User) bool { return p.Name == u })
	if err != nil || len(found) == 0 {
		return 0, 0, err
	}
	return uint32(found[0].Uid), uint32(found[0].Gid), nil
}

// ownerGroup is the group's id, or that of the user.
func ownerGroup(g string, own uint32, group []byte, empty bool) (uint32, error) {
	if g == "" {
		return own, nil
	}
	if g == "root" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(g, 10, 31); err == nil {
		return uint32(n), nil
	}
	if empty {
		return 0, fmt.Errorf("invalid group index: -1: %q cannot be looked up in an empty root", g)
	}
	found, err := user.ParseGroupFilter(bytes.NewReader(group), func(x user.Group) bool { return x.Name == g })
	if err != nil || len(found) == 0 {
		return own, err
	}
	return uint32(found[0].Gid), nil
}

// accountFiles returns the two files' bytes, nil for one that is missing.
func (t *Tree) accountFiles() (passwd, group []byte, err error) {
	read := func(p string) ([]byte, error) {
		b, err := t.ReadFile(p, accountFileLimit)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrNotDir) {
			return nil, nil
		}
		if b == nil && err == nil {
			b = []byte{}
		}
		return b, err
	}
	if passwd, err = read("/etc/passwd"); err != nil {
		return nil, nil, err
	}
	group, err = read("/etc/group")
	return passwd, group, err
}

// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
)

// List describes every path below the root in the form of List for a directory. An error is a name that no file system holds.
func (m *Model) List() (map[string]string, error) {
	all := map[*node][]string{}
	err := m.each("", m.root, func(p string, n *node) { all[n] = append(all[n], p) })
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for n, paths := range all {
		sort.Strings(paths)
		for _, p := range paths {
			out[p] = n.describe()
			if len(paths) > 1 {
				out[p] += " names=" + strings.Join(paths, ",")
			}
		}
	}
	return out, nil
}

func (m *Model) each(prefix string, dir *node, fn func(string, *node)) error {
	for _, k := range slices.Sorted(maps.Keys(dir.kids)) {
		kid := dir.kids[k]
		if len(k) > maxName || len(kid.link) > maxLink {
			return errPath
		}
		fn(prefix+k, kid.node)
		if kid.typ == '5' {
			if err := m.each(prefix+k+"/", kid.node, fn); err != nil {
				return err
			}
		}
	}
	return nil
}

func (n *node) describe() string {
	return Line(n.typ, n.mode, n.uid, n.gid, n.mtime, int64(len(n.data)), n.data, n.link, n.major, n.minor, n.xattrs)
}

// Line is the description of one path that Model, disk and what is compared with them have in common: of a file size and
// content, of a link the target, of a device the numbers.
func Line(typ byte, mode, uid, gid, mtime, size int64, data, link string, major, minor int64, xattrs map[string]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%c %04o %d:%d %d", typ, mode, uid, gid, mtime)
	switch typ {
	case '0':
		fmt.Fprintf(&b, " %d %s", size, short(data))
	case '2':
		fmt.Fprintf(&b, " -> %q", link)
	case '3', '4':
		fmt.Fprintf(&b, " %d:%d", major, minor)
	}
	for _, k := range slices.Sorted(maps.Keys(xattrs)) {
		fmt.Fprintf(&b, " %s=%q", k, xattrs[k])
	}
	return b.String()
}

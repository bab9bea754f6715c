// SPDX-License-Identifier: Apache-2.0

package copyoracle

import (
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
)

// node is one path of a tree. Its type is "dir", "file", "link", "hard" (Text is another path) or "fifo".
type node struct {
	Path, Type, Text string
	Mode             uint16 `json:",omitempty"`
	UID, GID         int    `json:",omitempty"`
	Time             int64  `json:",omitempty"`
}

// random is one COPY: two trees and the flags.
type random struct {
	Source, Target []node
	Paths          []string
	Dest           string
	Chown          string   `json:",omitempty"` // "uid:gid"
	Chmod          string   `json:",omitempty"`
	Exclude        []string `json:",omitempty"`
	Parents        bool     `json:",omitempty"`
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

func generate(r *rand.Rand) random {
	c := random{Source: grown(r, 4+r.IntN(8)), Target: grown(r, r.IntN(8)), Parents: r.IntN(4) == 0}
	for range 1 + r.IntN(3)/2 + r.IntN(4)/3 {
		if c.Parents {
			c.Paths = append(c.Paths, pick(r, "a", "a/b", "b/c/a", "**/a", "**/b", "a/./b", "a/./**/c", "*/b", "./a/b", "a/*", "*", "a/**", "nope", "nope/**", "**", "b*", "a/b/./c", "a*/./b", "*/./**", "?/b/./c", "[ab]/./*", "*/*/./a"))
		} else {
			c.Paths = append(c.Paths, pick(r, "a", "b", "c", "a/b", "b/a", "a/b/c", "a/", ".", "/", "*", "a*", "?", "a/*", "*/b", "[ab]", "[^a]", "d/../a", "../b", "nope", "nope*", "*/*", "a/../*"))
		}
	}
	name := func() string { return pick(r, "a", "b", "c", "d", "new") }
	c.Dest = pick(r, "/", "/"+name(), "/"+name()+"/", "/"+name()+"/"+name(), "/"+name()+"/"+name()+"/", "/"+name()+"/.", "/x/y/z", "/x/y/")
	if r.IntN(4) == 0 {
		c.Chown = pick(r, "0:0", "5:6", "7:7")
	}
	if r.IntN(3) == 0 {
		c.Chmod = pick(r, "755", "0644", "4711", "1777", "0", "u=rwX,go=rX", "+x", "g=u", "a-w", "u+s,g+s")
	}
	for range r.IntN(8) / 5 * (1 + r.IntN(2)) {
		c.Exclude = append(c.Exclude, pick(r, "a", "b", "*", "b/*", "**/c", "a/b", "!a", "!b/c", "!**/a", "c*", "**"))
	}
	return c
}

// grown makes up to n paths, at most three deep, parents first.
func grown(r *rand.Rand, n int) []node {
	dirs := []string{""}
	var files []string
	var list []node
	for range n {
		dir := pick(r, dirs...)
		p := path.Join(dir, pick(r, "a", "b", "c", "d"))
		if slices.ContainsFunc(list, func(o node) bool { return o.Path == p }) {
			continue
		}
		o := node{Path: p, Type: pick(r, "dir", "dir", "dir", "file", "file", "file", "link", "hard", "fifo"), UID: pick(r, 0, 0, 3), GID: pick(r, 0, 0, 4), Time: int64(1000 + r.IntN(5))}
		o.Mode = pick[uint16](r, 0o755, 0o644, 0o700, 0o4755, 0o2750, 0o1777, 0)
		switch o.Type {
		case "dir":
			if strings.Count(p, "/") < 2 {
				dirs = append(dirs, p)
			}
		case "file":
			o.Text = pick(r, "", "x", "yy")
			files = append(files, p)
		case "fifo":
			files = append(files, p)
		case "link":
			files = append(files, p)
			o.Mode, o.Text = 0o777, pick(r, "a", "b", "../b", "/c", "/a/b", "d/a", "nope", "/nope/new", "..", ".", "/")
		case "hard":
			if len(files) == 0 {
				continue
			}
			o = node{Path: p, Type: "hard", Text: pick(r, files...)}
		}
		list = append(list, o)
	}
	return list
}

// smaller are the cases with one thing less.
func (c random) smaller() []random {
	var list []random
	without := func(nodes []node, i int) []node {
		gone := nodes[i].Path
		return slices.DeleteFunc(slices.Clone(nodes), func(o node) bool {
			return o.Path == gone || strings.HasPrefix(o.Path, gone+"/") || o.Type == "hard" && (o.Text == gone || strings.HasPrefix(o.Text, gone+"/"))
		})
	}
	for i := range c.Source {
		d := c
		d.Source = without(c.Source, i)
		list = append(list, d)
	}
	for i := range c.Target {
		d := c
		d.Target = without(c.Target, i)
		list = append(list, d)
	}
	for i := range c.Paths {
		if len(c.Paths) > 1 {
			d := c
			d.Paths = slices.Delete(slices.Clone(c.Paths), i, i+1)
			list = append(list, d)
		}
	}
	for i := range c.Exclude {
		d := c
		d.Exclude = slices.Delete(slices.Clone(c.Exclude), i, i+1)
		list = append(list, d)
	}
	if c.Chown != "" {
		d := c
		d.Chown = ""
		list = append(list, d)
	}
	if c.Chmod != "" {
		d := c
		d.Chmod = ""
		list = append(list, d)
	}
	return list
}

// instruction is the case as a line of a Dockerfile, for people.
func (c random) instruction() string {
	var flags string
	for flag, value := range map[string]string{"chown": c.Chown, "chmod": c.Chmod} {
		if value != "" {
			flags += fmt.Sprintf(" --%s=%s", flag, value)
		}
	}
	for _, e := range c.Exclude {
		flags += " --exclude=" + e
	}
	if c.Parents {
		flags += " --parents"
	}
	return "COPY" + flags + " " + strings.Join(c.Paths, " ") + " " + c.Dest
}

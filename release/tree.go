// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// own is the list of what in the image is the image's, for builds in the container's own root: they put these files aside, and refuse where
// there are others.
const own = "/kaniko/files"

// node is one path of a tree. A directory has neither content nor link.
type node struct {
	mode    fs.FileMode
	content []byte
	link    string
}

// tree is what is copied into an image, by absolute path. Directories that are not in it are made with mode 0755.
type tree map[string]node

// anybody is the mode of directories that every user may write to, but not take each other's files from.
const anybody = fs.ModeDir | fs.ModeSticky | 0o777

// plainTree is one binary and the certificates of Debian's package; certificates of one's own are added where kaniko's users put them.
func plainTree(ctx context.Context, program []byte, certificates deb) (tree, error) {
	roots, err := certificates.files(ctx, "/usr/share/ca-certificates/mozilla/*.crt")
	if err != nil {
		return nil, err
	}
	var bundle bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(roots)) {
		bundle.Write(bytes.TrimRight(roots[name], "\n"))
		bundle.WriteByte('\n')
	}
	return tree{
		"/kaniko":                            {mode: anybody},
		"/kaniko/.docker":                    {mode: anybody},
		"/kaniko/executor":                   {mode: 0o755, content: program},
		"/kaniko/ssl":                        {mode: fs.ModeDir | 0o755},
		"/kaniko/ssl/certs":                  {mode: anybody},
		"/kaniko/warmer":                     {link: "executor"},
		"/etc/ssl/certs/ca-certificates.crt": {mode: 0o644, content: bundle.Bytes()},
		"/workspace":                         {mode: anybody},
	}, nil
}

// debugTree is what the debug image has besides: a shell, so that scripts run.
func debugTree(ctx context.Context, busybox deb, applets []string) (tree, error) {
	found, err := busybox.files(ctx, "/bin/busybox")
	if err != nil {
		return nil, err
	}
	t := tree{
		"/kaniko":          {mode: anybody},
		"/busybox/busybox": {mode: 0o755, content: found["/bin/busybox"]},
		"/bin/sh":          {link: "/busybox/sh"},
	}
	for _, name := range applets {
		if name != "busybox" {
			t["/busybox/"+name] = node{link: "busybox"}
		}
	}
	return t, nil
}

// paths are all paths with those of the directories that lead to them, which end in a slash.
func (t tree) paths() []string {
	set := map[string]bool{}
	for p, n := range t {
		if n.mode.IsDir() {
			p += "/"
		}
		set[p] = true
		for dir := path.Dir(strings.TrimSuffix(p, "/")); dir != "/"; dir = path.Dir(dir) {
			set[dir+"/"] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// list adds the list of what is ours. Jobs make the last two themselves.
func (t tree) list(paths []string) {
	paths = append(paths, own, "/kaniko/.docker/config.json", "/kaniko/ssl/certs/additional-ca-cert-bundle.crt")
	slices.Sort(paths)
	t[own] = node{mode: 0o644, content: []byte(strings.Join(slices.Compact(paths), "\n") + "\n")}
}

func (t tree) size() int {
	total := 0
	for _, n := range t {
		total += len(n.content)
	}
	return total
}

// write makes the tree in a new directory.
func (t tree) write(dir string) error {
	for _, p := range slices.Sorted(maps.Keys(t)) {
		n, full := t[p], filepath.Join(dir, p)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			return err
		}
		var err error
		switch {
		case n.link != "":
			err = os.Symlink(n.link, full)
		case n.mode.IsDir():
			err = os.MkdirAll(full, 0o755)
		default:
			err = os.WriteFile(full, n.content, n.mode)
		}
		if err != nil {
			return err
		}
	}
	// Last, and not by the calls above: they apply the umask.
	for _, p := range t.paths() {
		n, found := t[strings.TrimSuffix(p, "/")]
		if !found {
			n.mode = 0o755
		}
		if n.link != "" {
			continue
		}
		if err := os.Chmod(filepath.Join(dir, p), n.mode); err != nil {
			return err
		}
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package copyoracle

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/kaniko-go/kaniko-go/builder/internal/copy"
	"github.com/kaniko-go/kaniko-go/builder/internal/dockerfile"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// ours copies with the product's code.
func ours(c random, begun time.Time) (map[string]string, error) {
	source, err := grow(c.Source)
	if err != nil {
		return nil, err
	}
	target, err := grow(c.Target)
	if err != nil {
		return nil, err
	}
	// "--parents" takes a source as it is written; the plan cleans the others.
	req := copy.Request{Source: source, Dest: c.Dest, Chown: c.Chown, Chmod: c.Chmod, Parents: c.Parents}
	for _, p := range c.Paths {
		req.Items = append(req.Items, copy.Item{Path: p})
	}
	if c.Exclude != nil {
		if req.Exclude, err = dockerfile.NewMatcher(c.Exclude); err != nil {
			return nil, err
		}
	}
	after, err := copy.Apply(target, req)
	if err != nil {
		return nil, err
	}
	return describeTree(after, begun)
}

func grow(nodes []node) (*tree.Tree, error) {
	e := tree.Empty().Edit()
	for _, n := range nodes {
		m := tree.Meta{Mode: n.Mode, UID: uint32(n.UID), GID: uint32(n.GID), MTime: n.Time}
		var ino *tree.Inode
		switch n.Type {
		case "dir":
			ino = tree.NewDir(m)
		case "file":
			ino = tree.NewFile(m, int64(len(n.Text)), tree.Bytes(n.Text))
		case "link":
			ino = tree.NewSymlink(m, n.Text)
		case "fifo":
			ino = tree.NewFifo(m)
		case "hard":
			ino = e.Lookup(n.Text)
			ino.Shared = true
		}
		if err := e.Put(n.Path, ino); err != nil {
			return nil, fmt.Errorf("tree: %w", err)
		}
	}
	return e.Commit(), nil
}

// describeTree writes every path down but the root. A time that is not before the copy is "now".
func describeTree(t *tree.Tree, begun time.Time) (map[string]string, error) {
	all := map[string]string{}
	first := map[*tree.Inode]string{}
	err := t.Walk(func(p string, ino *tree.Inode) error {
		if p == "" {
			return nil
		}
		if other, ok := first[ino]; ok && ino.Shared && ino.Type == tree.File {
			all[p] = "hard " + other
			return nil
		}
		first[ino] = p
		text := ""
		switch ino.Type {
		case tree.Symlink:
			text = ino.Link()
		case tree.File:
			r, err := ino.Open()
			if err != nil {
				return err
			}
			b, err := io.ReadAll(r)
			if err != nil {
				return err
			}
			text = string(b)
		}
		kind := map[tree.Type]string{tree.Dir: "dir", tree.File: "file", tree.Symlink: "link", tree.Fifo: "fifo"}[ino.Type]
		all[p] = line(kind, uint32(ino.Mode), ino.UID, ino.GID, time.Unix(ino.MTime, 0), begun, text)
		return nil
	})
	return all, err
}

func line(kind string, mode, uid, gid uint32, at, begun time.Time, text string) string {
	when := "now"
	if at.Before(begun) {
		when = fmt.Sprint(at.Unix())
	}
	return strings.TrimSpace(fmt.Sprintf("%s %04o %d:%d %s %q", kind, mode, uid, gid, when, text))
}

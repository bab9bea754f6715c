// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"errors"
	"fmt"
	"strings"
)

// Model is a root directory in memory to which layers are applied by the words of the OCI image specification, one entry
// after the other, symbolic links followed inside the root. It is what the builder is compared with, so it is plain: maps
// that are changed in place.
type Model struct {
	root  *node
	layer int
}

// node is an inode.
type node struct {
	typ          byte // of a tar file: '0', '2', '3', '4', '5' or '6'
	mode         int64
	uid, gid     int64
	mtime        int64
	link, data   string
	major, minor int64
	xattrs       map[string]string
	kids         map[string]*name
}

// name is a directory entry; layer is the last one that wrote it, or something below it.
type name struct {
	*node
	layer int
}

// Errors of the model: it has few words, as only whether there is one is compared.
var (
	errEntry = errors.New("an entry that is not allowed")
	errPath  = errors.New("a path that leads nowhere")
)

// What no root can hold, whatever the builder.
const (
	maxName  = 255
	maxLink  = 4095
	maxDepth = 256
	maxLinks = 40
)

// NewModel is an empty root.
func NewModel() *Model {
	return &Model{root: &node{typ: '5', mode: 0o755, kids: map[string]*name{}}}
}

// Apply applies a layer. After an error the model is half done and worth nothing.
func (m *Model) Apply(layer []Entry) error {
	m.layer++
	for _, e := range layer {
		if err := m.entry(e); err != nil {
			return fmt.Errorf("%q: %w", e.Name, err)
		}
	}
	return nil
}

func (m *Model) entry(e Entry) error {
	if e.Type == 'g' {
		return nil
	}
	parts := lexical(e.Name)
	if strings.ContainsRune(e.Name+e.Link, 0) || len(parts) > maxDepth {
		return errEntry
	}
	for i, part := range parts {
		if gone, ok := strings.CutPrefix(part, ".wh."); ok {
			return m.whiteout(parts[:i], gone, parts[i+1:])
		}
	}
	n, err := newNode(e)
	if len(parts) == 0 {
		if err != nil || n.typ != '5' {
			return errEntry
		}
		n.kids = m.root.kids
		m.root = n
		return nil
	}
	if err != nil {
		return err
	}
	return m.place(parts, e, n)
}

func (m *Model) place(parts []string, e Entry, n *node) error {
	dir, base := parts[:len(parts)-1], parts[len(parts)-1]
	at, err := m.walk(dir, true, 0)
	if err != nil {
		return err
	}
	parent := at[len(at)-1].node
	if parent.typ != '5' || len(at) > maxDepth {
		return errPath
	}
	old := parent.kids[base]
	if e.Type == '1' {
		header := n
		if n, err = m.hardLinked(e.Link); err != nil || old != nil && old.node == n && m.sameName(e.Link, old) {
			return errEntry
		}
		n.relink(header)
	}
	if n.typ == '5' && old != nil && old.typ == '5' {
		n.kids = old.kids
	}
	fresh := &name{n, m.layer}
	parent.kids[base] = fresh
	for _, above := range at {
		above.layer = m.layer
	}
	return nil
}

// relink applies what the header of a further name says to the file. A new owner takes capabilities away.
func (n *node) relink(header *node) {
	n.uid, n.gid, n.mtime = header.uid, header.gid, header.mtime
	if n.typ != '2' {
		n.mode = header.mode
	}
	delete(n.xattrs, "security.capability")
	for k, v := range header.xattrs {
		if n.xattrs == nil {
			n.xattrs = map[string]string{}
		}
		n.xattrs[k] = v
	}
}

// hardLinked is the inode that a hard link is a further name of.
func (m *Model) hardLinked(target string) (*node, error) {
	k, err := m.find(target)
	if err != nil {
		return nil, err
	}
	if k == nil || k.typ == '5' {
		return nil, errPath
	}
	return k.node, nil
}

func (m *Model) sameName(target string, k *name) bool {
	found, err := m.find(target)
	return err == nil && found == k
}

// find is the entry that a path names, its last component not followed; nil if there is none.
func (m *Model) find(target string) (*name, error) {
	parts := lexical(target)
	if len(parts) == 0 {
		return &name{node: m.root}, nil
	}
	at, err := m.walk(parts[:len(parts)-1], false, 0)
	if err != nil || at == nil {
		return nil, err
	}
	parent := at[len(at)-1]
	if parent.typ != '5' {
		return nil, errPath
	}
	return parent.kids[parts[len(parts)-1]], nil
}

// newNode is the inode of an entry; for a hard link an empty one.
func newNode(e Entry) (*node, error) {
	n := &node{typ: e.Type, mode: e.Mode & 0o7777, uid: e.UID, gid: e.GID, mtime: e.MTime, major: e.Major, minor: e.Minor}
	for _, r := range e.PAX {
		if attr, ok := strings.CutPrefix(r.Key, "SCHILY.xattr."); ok && (attr == "security.capability" || strings.HasPrefix(attr, "user.") && !strings.HasPrefix(attr, "user.overlay.")) {
			if n.xattrs == nil {
				n.xattrs = map[string]string{}
			}
			n.xattrs[attr] = r.Value
		}
	}
	switch e.Type {
	case 0:
		n.typ = '0'
		if strings.HasSuffix(e.Name, "/") {
			n.typ = '5'
		}
		if n.typ == '5' && e.Data != "" {
			return nil, errEntry
		}
	case '7', 'S':
		n.typ = '0'
	case '0', '1', '3', '4', '5', '6':
	case '2':
		if e.Link == "" {
			return nil, errEntry
		}
	default:
		return nil, errEntry
	}
	switch n.typ {
	case '0':
		n.data = e.Content()
	case '2':
		n.link, n.mode = e.Link, 0o777
	case '5':
		n.kids = map[string]*name{}
	}
	if n.typ != '3' && n.typ != '4' {
		n.major, n.minor = 0, 0
	}
	return n, nil
}

// lexical are the components of an entry's name; ".." above the root stays at the root.
func lexical(p string) []string {
	var out []string
	for part := range strings.SplitSeq(p, "/") {
		switch part {
		case "", ".":
		case "..":
			out = out[:max(0, len(out)-1)]
		default:
			out = append(out, part)
		}
	}
	return out
}

// walk follows a path with its links and returns the names on the physical way to it, the root first. What is missing is made,
// or, without create, gives nil.
func (m *Model) walk(parts []string, create bool, links int) ([]*name, error) {
	at := []*name{{node: m.root}}
	for i := 0; i < len(parts); i++ {
		top := at[len(at)-1]
		if parts[i] == ".." {
			at = at[:max(1, len(at)-1)]
			continue
		}
		if top.typ != '5' {
			return nil, errPath
		}
		kid := top.kids[parts[i]]
		if kid == nil {
			if !create {
				return nil, nil
			}
			return m.makeAll(at, parts[i:])
		}
		if kid.typ != '2' {
			at = append(at, kid)
			continue
		}
		if links++; links > maxLinks {
			return nil, errPath
		}
		var target []string
		for part := range strings.SplitSeq(kid.link, "/") {
			if part != "" && part != "." {
				target = append(target, part)
			}
		}
		if strings.HasPrefix(kid.link, "/") {
			at = at[:1]
		}
		parts, i = append(target, parts[i+1:]...), -1
	}
	return at, nil
}

// makeAll makes directories below the last of at. From the first missing one on, ".." is meant by the letters.
func (m *Model) makeAll(at []*name, parts []string) ([]*name, error) {
	var whole []string
	for range len(at) - 1 {
		whole = append(whole, "")
	}
	depth := len(whole)
	for _, p := range parts {
		if p == ".." {
			if len(whole) > 0 {
				whole = whole[:len(whole)-1]
			}
			depth = min(depth, len(whole))
			continue
		}
		whole = append(whole, p)
	}
	at = at[:depth+1]
	for _, p := range whole[depth:] {
		top := at[len(at)-1]
		kid := top.kids[p]
		if kid == nil {
			kid = &name{node: &node{typ: '5', mode: 0o755, kids: map[string]*name{}}}
			top.kids[p] = kid
		}
		if kid.typ != '5' {
			return nil, errPath
		}
		at = append(at, kid)
	}
	return at, nil
}

// whiteout removes what lower layers have: a name, or with the name of an opaque directory all that is in it. Other names of
// that kind are markers of AUFS, which mean nothing.
func (m *Model) whiteout(dir []string, gone string, below []string) error {
	opaque := gone == ".wh..opq" && len(below) == 0
	if !opaque && (strings.HasPrefix(gone, ".wh.") || len(below) > 0 && strings.HasPrefix(below[len(below)-1], ".wh..wh.") && below[len(below)-1] != ".wh..wh..opq") {
		return nil
	}
	if len(below) > 0 ||
		gone == "" || gone == "." || gone == ".." {
		return errEntry
	}
	at, err := m.walk(dir, false, 0)
	if err != nil || at == nil || at[len(at)-1].typ != '5' {
		return nil //nolint:nilerr // nothing there is nothing to remove
	}
	parent := at[len(at)-1]
	if opaque {
		m.hide(parent.node)
		return nil
	}
	switch kid := parent.kids[gone]; {
	case kid == nil:
	case kid.layer != m.layer:
		delete(parent.kids, gone)
	case kid.typ == '5':
		m.hide(kid.node)
	}
	return nil
}

func (m *Model) hide(dir *node) {
	for k, kid := range dir.kids {
		switch {
		case kid.layer != m.layer:
			delete(dir.kids, k)
		case kid.typ == '5':
			m.hide(kid.node)
		}
	}
}

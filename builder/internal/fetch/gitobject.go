// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/go-git/go-git/v6/plumbing"
)

// Sizes of objects that are read whole.
const (
	maxCommitSize = 1 << 20
	maxTreeSize   = 64 << 20
	maxLinkSize   = 4095 // PATH_MAX without its NUL
)

type commitInfo struct {
	tree plumbing.Hash
	time time.Time
}

// commit reads what we need of a commit: its tree and the time of its committer.
func (o *objects) commit(h plumbing.Hash) (commitInfo, error) {
	b, err := o.read(h, plumbing.CommitObject, maxCommitSize)
	if err != nil {
		return commitInfo{}, err
	}
	var info commitInfo
	for line, rest, more := cutLine(b); more && line != ""; line, rest, more = cutLine(rest) {
		key, value, _ := strings.Cut(line, " ")
		switch key {
		case "tree":
			info.tree = sameKind(h, value)
		case "committer":
			info.time = signatureTime(value)
		}
	}
	if info.tree.IsZero() {
		return commitInfo{}, fmt.Errorf("%w: commit %s has no tree", errPack, h)
	}
	return info, nil
}

// tag reads what an annotated tag points to.
func (o *objects) tag(h plumbing.Hash) (plumbing.Hash, error) {
	b, err := o.read(h, plumbing.TagObject, maxCommitSize)
	if err != nil {
		return plumbing.ZeroHash, err
	}
	line, _, _ := cutLine(b)
	if value, ok := strings.CutPrefix(line, "object "); ok {
		if to := sameKind(h, value); !to.IsZero() {
			return to, nil
		}
	}
	return plumbing.ZeroHash, fmt.Errorf("%w: tag %s has no object", errPack, h)
}

// sameKind reads the name of an object that another names; zero if it is none of the same kind.
func sameKind(h plumbing.Hash, value string) plumbing.Hash {
	to, ok := plumbing.FromHex(value)
	if !ok || len(value) != h.HexSize() {
		return plumbing.ZeroHash
	}
	return to
}

func cutLine(b []byte) (line string, rest []byte, ok bool) {
	before, after, ok := bytes.Cut(b, []byte("\n"))
	return string(before), after, ok
}

// signatureTime reads NAME <ADDRESS> SECONDS ZONE; 0 if there is none.
func signatureTime(s string) time.Time {
	fields := strings.Fields(s[strings.LastIndexByte(s, '>')+1:])
	if len(fields) == 0 {
		return time.Unix(0, 0)
	}
	sec, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil || sec < 0 || sec > maxTime {
		return time.Unix(0, 0)
	}
	return time.Unix(sec, 0)
}

// maxTime is the end of the year 9999, beyond which dates are not written.
const maxTime = 253402300799

// treeEntry is one name of a tree object.
type treeEntry struct {
	mode uint32
	name string
	hash plumbing.Hash
}

// The kinds of tree entries: the upper bits of their modes.
const (
	modeType      = 0o170000
	modeDir       = 0o040000
	modeFile      = 0o100000
	modeLink      = 0o120000
	modeSubmodule = 0o160000
)

// tree reads a tree object. Names that git itself refuses to check out are an error, and so is a name that occurs twice.
func (o *objects) tree(h plumbing.Hash) ([]treeEntry, error) {
	b, err := o.read(h, plumbing.TreeObject, maxTreeSize)
	if err != nil {
		return nil, err
	}
	var entries []treeEntry
	seen := map[string]bool{}
	for len(b) > 0 {
		head, rest, ok := bytes.Cut(b, []byte{0})
		if !ok || len(rest) < h.Size() {
			return nil, fmt.Errorf("%w: tree %s is cut off", errPack, h)
		}
		modeText, name, _ := strings.Cut(string(head), " ")
		mode, err := strconv.ParseUint(modeText, 8, 32)
		if err != nil {
			return nil, fmt.Errorf("%w: tree %s has a mode %q", errPack, h, escape(modeText))
		}
		if err := checkName(name); err != nil {
			return nil, err
		}
		if seen[name] {
			return nil, fmt.Errorf("%w: the name %q occurs twice in a tree", ErrForbidden, escape(name))
		}
		seen[name] = true
		e := treeEntry{mode: uint32(mode), name: name}
		e.hash, _ = plumbing.FromBytes(rest[:h.Size()])
		entries = append(entries, e)
		b = rest[h.Size():]
	}
	return entries, nil
}

// checkName refuses names that are no names, and .git in any spelling of case: it would be taken for a repository's own.
func checkName(name string) error {
	if name == "" || name == "." || name == ".." || len(name) > 255 || strings.Contains(name, "/") || strings.EqualFold(name, ".git") {
		return fmt.Errorf("%w: invalid path %q", ErrForbidden, escape(name))
	}
	return nil
}

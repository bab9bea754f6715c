// SPDX-License-Identifier: Apache-2.0

package tree

// Change is one path of a layer: an inode that is added or replaces what was
// there, or, with a nil Inode, a path that is gone (a whiteout).
type Change struct {
	// Path is clean, relative to the root and without a leading slash.
	Path  string
	Inode *Inode
}

// Sink takes a stream of changes. Parents come before their children and names in
// byte order; a whiteout of a directory stands for everything that was below it.
type Sink func(Change) error

// Diff calls sink with what makes next out of prev. Where the two share an inode nothing is looked
// at, so the cost is that of the changes if next was made from prev.
//
// Every directory above a change is in the stream, as it is in next, because a layer holds
// it; a directory that differs in nothing but its time and has no change below it is not.
// A directory that was removed and made again gives one whiteout for each
// entry that is lost.
func Diff(prev, next *Tree, sink Sink) error {
	d := differ{sink: sink}
	return d.dirs("", prev.root, next.root)
}

type differ struct {
	sink Sink
	// pending are the directories above the current path that were not yet given to sink.
	pending []Change
}

func (d *differ) emit(c Change) error {
	for _, p := range d.pending {
		if err := d.sink(p); err != nil {
			return err
		}
	}
	d.pending = d.pending[:0]
	return d.sink(c)
}

func (d *differ) dirs(p string, prev, next *Inode) error {
	if prev == next {
		return nil
	}
	before, err := prev.Entries()
	if err != nil {
		return pathError("compare", p, err)
	}
	after, err := next.Entries()
	if err != nil {
		return pathError("compare", p, err)
	}
	for len(before) > 0 || len(after) > 0 {
		switch {
		case len(after) == 0 || len(before) > 0 && before[0].Name < after[0].Name:
			err = d.emit(Change{Path: join(p, before[0].Name)})
			before = before[1:]
		case len(before) == 0 || after[0].Name < before[0].Name:
			err = d.added(join(p, after[0].Name), after[0].Inode)
			after = after[1:]
		default:
			err = d.both(join(p, after[0].Name), before[0].Inode, after[0].Inode)
			before, after = before[1:], after[1:]
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *differ) both(p string, prev, next *Inode) error {
	if prev == next {
		return nil
	}
	if prev.Type != Dir || next.Type != Dir {
		return d.added(p, next)
	}
	if !prev.SameMeta(next) {
		if err := d.emit(Change{p, next}); err != nil {
			return err
		}
		return d.dirs(p, prev, next)
	}
	d.pending = append(d.pending, Change{p, next})
	mark := len(d.pending)
	if err := d.dirs(p, prev, next); err != nil {
		return err
	}
	if len(d.pending) == mark {
		d.pending = d.pending[:mark-1]
	}
	return nil
}

func (d *differ) added(p string, ino *Inode) error {
	if err := d.emit(Change{p, ino}); err != nil || ino.Type != Dir {
		return err
	}
	return walk(ino, p, func(p string, ino *Inode) error { return d.sink(Change{p, ino}) })
}

// Apply carries out one change of a layer, as unpacking it would: a directory over a directory changes its
// metadata and keeps its entries.
func (e *Editor) Apply(c Change) error {
	if c.Inode == nil {
		return e.Remove(c.Path)
	}
	if c.Inode.Type != Dir {
		return e.Put(c.Path, c.Inode)
	}
	if old := e.Lookup(c.Path); old != nil && old.Type == Dir {
		return e.SetMeta(c.Path, c.Inode.Meta)
	}
	return e.Put(c.Path, NewDir(c.Inode.Meta))
}

// Canon returns what prev becomes when the changes between it and next have gone through
// a layer, and those changes. It differs from next where a layer cannot tell: times of directories
// with no change below them stay as they were. Every instruction's result goes through
// it, so that a Tree is the same whether an instruction ran or its layer came out of a cache.
// No time in the changes is newer than times allow, that of an unchanged parent included. Changes of which ignore, if
// it is not nil, says true are left out.
func Canon(prev, next *Tree, times Times, ignore func(p string) bool) (*Tree, []Change, error) {
	var changes []Change
	e := prev.Edit()
	err := Diff(prev, next, func(c Change) error {
		if ignore != nil && ignore(c.Path) {
			return nil
		}
		if c.Inode != nil {
			c.Inode = times.clamp(c.Inode)
		}
		changes = append(changes, c)
		return e.Apply(c)
	})
	if err != nil {
		return nil, nil, err
	}
	// Where nothing differs the two share their directories: a build has many Trees.
	return &Tree{root: e.root.commit(next.root)}, changes, nil
}

// SPDX-License-Identifier: Apache-2.0

package dirfd

import "strings"

// Kept says what below a directory belongs to others: mounts, and files that are no part of a root. It is
// neither changed nor removed nor looked into, and the directories that lead to it stay where they are. nil
// keeps nothing. It must not be changed while it is in use.
type Kept struct {
	whole bool
	below map[string]*Kept
}

// Add keeps the path, which is relative and clean, and everything below it.
func (k *Kept) Add(path string) {
	for name := range strings.SplitSeq(path, "/") {
		if name == "" {
			continue
		}
		next := k.below[name]
		if next == nil {
			if k.below == nil {
				k.below = map[string]*Kept{}
			}
			next = &Kept{}
			k.below[name] = next
		}
		k = next
	}
	k.whole = true
}

// Child is what is kept at and below a name of the directory; nil if nothing is.
func (k *Kept) Child(name string) *Kept {
	if k == nil {
		return nil
	}
	return k.below[name]
}

// At is Child for a path. Below something that is kept whole everything is.
func (k *Kept) At(path string) *Kept {
	for name := range strings.SplitSeq(path, "/") {
		if name == "" {
			continue
		}
		if k = k.Child(name); k == nil || k.whole {
			return k
		}
	}
	return k
}

// Whole tells whether the path itself is kept, with all below it; otherwise it is a directory that leads to what is.
func (k *Kept) Whole() bool { return k != nil && k.whole }

// Leads tells whether the path is a directory on the way to something that is kept.
func (k *Kept) Leads() bool { return k != nil && !k.whole && len(k.below) > 0 }

// Walk calls fn for every path that is kept or leads there, parents first.
func (k *Kept) Walk(fn func(path string, k *Kept) error) error { return k.walk("", fn) }

func (k *Kept) walk(prefix string, fn func(string, *Kept) error) error {
	if k == nil {
		return nil
	}
	for name, next := range k.below {
		p := prefix + name
		if err := fn(p, next); err != nil {
			return err
		}
		if next.whole {
			continue
		}
		if err := next.walk(p+"/", fn); err != nil {
			return err
		}
	}
	return nil
}

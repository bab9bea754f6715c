// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"math"
	"time"
)

// Unset is the MTime of a directory that an archive has files below but no entry of: nothing gave it a time, mode or owner.
const Unset = math.MinInt64

// Times says which times the files of new layers have.
type Times struct {
	// Epoch is SOURCE_DATE_EPOCH; nil if there is none. Newer times become it.
	Epoch *time.Time
}

// Of returns the time that a layer holds for a file with the modification time sec, in seconds since 1970.
func (t Times) Of(sec int64) int64 {
	if t.Epoch != nil {
		return min(sec, t.Epoch.Unix())
	}
	return sec
}

// clamp returns an inode whose time is not too new. Only directories, which have one name, can need another: all else
// has its time from whoever made it.
func (t Times) clamp(ino *Inode) *Inode {
	if ino.Type != Dir || t.Of(ino.MTime) == ino.MTime {
		return ino
	}
	m := ino.Meta
	m.MTime = t.Of(ino.MTime)
	return ino.With(m)
}

// Now is the time of what the builder itself makes.
func (t Times) Now() int64 { return t.Of(time.Now().Unix()) }

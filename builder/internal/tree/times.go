// SPDX-License-Identifier: Apache-2.0

package tree

import "time"

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

// Now is the time of what the builder itself makes.
func (t Times) Now() int64 { return t.Of(time.Now().Unix()) }

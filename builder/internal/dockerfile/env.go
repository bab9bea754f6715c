// SPDX-License-Identifier: Apache-2.0

package dockerfile

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// Env is a set of variables in the order of their last assignment, which is
// the order BuildKit hands them to a process in. The zero value is ready to
// use. It is not safe for concurrent use.
type Env struct {
	entries map[string]entry
	seq     int
	size    int
	slice   []string // what Slice made, until the next change
}

type entry struct {
	pair string // "key=value"
	seq  int
}

// Set assigns a variable and moves it to the end.
func (e *Env) Set(key, value string) {
	if e.entries == nil {
		e.entries = map[string]entry{}
	}
	if old, ok := e.entries[key]; ok {
		e.size -= len(old.pair) + 1
	}
	pair := key + "=" + value
	e.seq++
	e.entries[key] = entry{pair: pair, seq: e.seq}
	e.size += len(pair) + 1
	e.slice = nil
}

// Delete removes a variable.
func (e *Env) Delete(key string) {
	if old, ok := e.entries[key]; ok {
		e.size -= len(old.pair) + 1
		delete(e.entries, key)
		e.slice = nil
	}
}

// Get implements shell.EnvGetter.
func (e *Env) Get(key string) (string, bool) {
	found, ok := e.entries[key]
	if !ok {
		return "", false
	}
	return found.pair[len(key)+1:], true
}

// Keys implements shell.EnvGetter.
func (e *Env) Keys() []string {
	return slices.SortedFunc(maps.Keys(e.entries), func(a, b string) int {
		return cmp.Compare(e.entries[a].seq, e.entries[b].seq)
	})
}

// Slice gives KEY=VALUE pairs. Calls without a change between them share one
// slice, which must not be written to.
func (e *Env) Slice() []string {
	if e.slice == nil {
		e.slice = make([]string, 0, len(e.entries))
		for _, key := range e.Keys() {
			e.slice = append(e.slice, e.entries[key].pair)
		}
	}
	return e.slice
}

// Size is what the variables take in a process's environment, in bytes.
func (e *Env) Size() int { return e.size }

// Clone returns an independent copy.
func (e *Env) Clone() *Env {
	return &Env{entries: maps.Clone(e.entries), seq: e.seq, size: e.size, slice: e.slice}
}

// SplitPair cuts KEY=VALUE; without "=" the value is empty.
func SplitPair(pair string) (key, value string) {
	key, value, _ = strings.Cut(pair, "=")
	return key, value
}

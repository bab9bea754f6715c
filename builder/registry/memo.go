// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"sync"
)

// memo does a piece of work once per key and hands the answer to everybody who
// asks, now or later. A failure is handed to those who waited for it but not
// kept, so that a later call may try again. The zero value is ready for use.
type memo[K comparable, V any] struct {
	mu      sync.Mutex
	entries map[K]*memoEntry[V]
}

type memoEntry[V any] struct {
	done  chan struct{}
	value V
	err   error
	ended bool // the worker's context had ended: its failure says nothing to others
}

// do returns the answer for key, running work when nobody has yet. A caller
// whose context ends stops waiting; when the worker's own context ended, the
// next one that waited takes over.
func (m *memo[K, V]) do(ctx context.Context, key K, work func() (V, error)) (V, error) {
	for {
		e, mine := m.entry(key)
		if mine {
			e.value, e.err = work()
			if e.err != nil {
				e.ended = ctx.Err() != nil
				m.forget(key)
			}
			close(e.done)
			return e.value, e.err
		}
		select {
		case <-e.done:
		case <-ctx.Done():
			var none V
			return none, ctx.Err()
		}
		if !e.ended || ctx.Err() != nil {
			return e.value, e.err
		}
	}
}

func (m *memo[K, V]) entry(key K) (e *memoEntry[V], mine bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.entries[key]; e != nil {
		return e, false
	}
	if m.entries == nil {
		m.entries = map[K]*memoEntry[V]{}
	}
	e = &memoEntry[V]{done: make(chan struct{})}
	m.entries[key] = e
	return e, true
}

func (m *memo[K, V]) forget(key K) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.entries, key)
}

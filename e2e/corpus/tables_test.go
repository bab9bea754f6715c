// SPDX-License-Identifier: Apache-2.0

package corpus

// tables are cases that are made, not written: every form of one thing with every form of another.
func tables() []testCase { return nil }

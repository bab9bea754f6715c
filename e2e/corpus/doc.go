// SPDX-License-Identifier: Apache-2.0

// Package corpus compares kaniko-go with BuildKit, Dockerfile by Dockerfile. testdata/cases holds small build contexts, one
// behaviour each, several in a file; tables_test.go makes more of them. What BuildKit makes of a case, completely (files with
// type, mode, owner, size, time, attributes and content, configuration, history, layers, diffIDs), is kept in testdata/golden;
// -update writes that anew, and -buildkit compares it with what BuildKit makes now. Where we differ on purpose is one line in
// testdata/differences.txt; anything else that differs fails.
package corpus

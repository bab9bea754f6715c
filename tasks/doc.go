// SPDX-License-Identifier: Apache-2.0

// Package tasks is the home of the Tekton Tasks, one directory each. It holds
// no code but the tests that decode them strictly and validate them with
// Tekton's own packages, which no package of the binary may import.
package tasks

//go:generate go run ./internal/generate -root ..

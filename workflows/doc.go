// SPDX-License-Identifier: Apache-2.0

// Package workflows is the home of the Argo WorkflowTemplates, one directory
// each. It holds no code but the tests that decode them strictly and validate
// them with Argo's own packages, which no package of the binary may import.
// They are generated together with the Tekton Tasks: go generate ./tasks.
package workflows

// SPDX-License-Identifier: Apache-2.0

// Package cluster runs kaniko-go's tasks and templates on a real Kubernetes cluster with Tekton and Argo Workflows, and judges what a user
// sees there: status, message, results, logs, and the image in the registry. The tests have the build tag cluster, so that no other
// suite starts a cluster; make e2e-cluster brings it up, runs them and takes it down. How it is made is in README.md, by the packages programs
// and node below. What a pod may do in each kind of container is the matter of e2e/pods, not of this package.
package cluster
